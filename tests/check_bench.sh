#!/usr/bin/env bash
# check_bench.sh SOURCES CUDPO - what measures cudpo is right itself: bench/gpu.sh goes through its stages whatever becomes of one,
# and leaves whole files whenever it is killed; the peers' table comes where no peer is installed, and a peer that computes
# something else is found.  77, a skipped test, where there is no python3.
set -euo pipefail
command -v python3 >/dev/null || { echo "skipped: no python3 here"; exit 77; }
sources=$1 cudpo=$2
folder=$(mktemp -d "${TMPDIR:-/tmp}/cudpo-bench-XXXXXX")
trap 'rm -rf "$folder"' EXIT
export CUDPO_COMMIT=c0ffee PYTHONDONTWRITEBYTECODE=1 PATH=$folder/bin:$PATH
unset PYTHON DEPS WHEELS

fail() { echo "check_bench.sh: $*" >&2; exit 1; }
# holds FILE EXPRESSION: whether it is true of the JSON document d.
holds() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); s = {x["name"]: x for x in d.get("stages", [])}; sys.exit(not eval(sys.argv[2]))' "$1" "$2" || fail "$1: not $2"; }
# until_true COMMAND ...: within ten seconds
until_true() { for _ in $(seq 100); do "$@" 2>/dev/null && return; sleep 0.1; done; fail "never: $*"; }

# A GPU's tools, as far as anyone asks here.
mkdir "$folder/bin"
cat >"$folder/bin/nvidia-smi" <<'END'
#!/bin/sh
case "$*" in *compute_cap*) echo 9.0 ;; *) echo "NVIDIA T1000, 580.1, 100 MiB, 50 W, 1000 MHz" ;; esac
END
chmod +x "$folder/bin/nvidia-smi"

# documented JSON TEXT ...: every key of the document, but those of configurations and versions, stands in the text.
documented() {
    python3 - "$@" <<'END' || fail "keys that nobody explains"
import json, re, sys
def keys(value):
    for key, inner in value.items() if isinstance(value, dict) else []:
        yield key
        yield from () if key in ("config", "versions") else keys(inner)
    for inner in value if isinstance(value, list) else []:
        yield from keys(inner)
found = set(keys(json.load(open(sys.argv[1]))))
text = " ".join(open(sys.argv[2]).read().split())
lacking = [key for key in sorted(found) if not re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text)]
sys.exit(f"{sys.argv[2]} lacks {', '.join(lacking)}" if lacking or len(found) < 20 else 0)
END
}
(
    cd "$sources"
    export OMP_NUM_THREADS=1
    "$cudpo" bench add swiglu --device cpu --shape tests/golden/models/llama3 --length 8 --seconds 0 --json "$folder/ops.json" >/dev/null
    "$cudpo" bench step tests/golden/models/llama3 --device cpu --prompt 4 --completion 4 --steps 1 --json "$folder/step.json" >/dev/null
    "$cudpo" bench --help >"$folder/ops.help"
    "$cudpo" bench step --help >"$folder/step.help"
    documented "$folder/ops.json" "$folder/ops.help"
    documented "$folder/ops.json" <(sed -n '/^\*\*Each op/,/^\*\*Collectives/p' README.md)
    documented "$folder/step.json" "$folder/step.help"
)

# The stages as they are: build first, and all that follows within nine minutes.
"$sources/bench/gpu.sh" --dry-run >"$folder/plan"
head -1 "$folder/plan" | grep -q '^build .*CMAKE_CUDA_ARCHITECTURES=90-real' || fail "the first stage is no build"
for stage in 'step Qwen2.5-0.5B' 'step Llama-3.2-1B' 'step Llama-3.1-8B' tests kernels peers memcheck racecheck; do
    grep -q "^$stage" "$folder/plan" || fail "no stage $stage"
done
[ "$(awk '/^in all/ {print ($5 < 540)}' "$folder/plan")" = 1 ] || fail "more than nine minutes"

cat >"$folder/stages" <<'END'
[{"name": "first", "budget": 20, "command": ["sh", "-c", "echo '{\"pairs_per_second\": 2, \"seconds\": {\"median\": 0.5}}' >'{json}'"]},
 {"name": "fails", "budget": 20, "command": ["sh", "-c", "echo oops; exit 3"]},
 {"name": "hangs", "budget": 0.5, "command": ["sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"]},
 {"name": "half", "budget": 20, "command": ["sh", "-c", "echo '{\"rows\": [' >'{json}'"]},
 {"name": "not there", "budget": 20, "command": ["/nowhere/program"]},
 {"name": "no tool", "budget": 20, "needs": "no-such-tool", "command": ["true"]},
 {"name": "tests", "budget": 20, "command": ["printf", "1/2 Test #1: a ....   Passed    0.1 sec\n2/2 Test #2: b ....***Failed  0.1 sec\n"]},
 {"name": "last", "budget": 20, "command": ["true"]}]
END
"$sources/bench/gpu.sh" --stages "$folder/stages" --out "$folder/all" >/dev/null && fail "a failed stage was no failure"
all=$(echo "$folder"/all/nvidia-t1000-*-c0ffee.json)
holds "$all" '[x["name"] for x in d["stages"]] == ["first", "fails", "hangs", "half", "not there", "no tool", "tests", "last"]'
holds "$all" 's["first"]["status"] == "ok" and s["first"]["result"]["pairs_per_second"] == 2'
holds "$all" 's["fails"]["status"] == "failed with 3" and "oops" in s["fails"]["tail"]'
holds "$all" 's["hangs"]["status"] == "its time was up" and s["hangs"]["seconds"] < 20'
holds "$all" 's["half"]["result"] is None and s["not there"]["status"].startswith("failed")'
holds "$all" 's["no tool"]["status"] == "absent: no no-such-tool here"'
holds "$all" 's["tests"]["result"]["tests"] == {"passed": 1, "skipped": 0, "failed": ["b (Failed)"]}'
holds "$all" 's["last"]["status"] == "ok" and d["commit"] == "c0ffee" and d["device"] == "NVIDIA T1000"'
grep -q '| fails | failed with 3 |' "${all%.json}.md" || fail "no table"
grep -q '| first | 2.00 | 0 | 500.0 |' "${all%.json}.md" || fail "no whole steps in the table"

# No time: the second stage is not begun.
echo '[{"name": "long", "budget": 20, "command": ["sleep", "0.4"]}, {"name": "late", "budget": 20, "command": ["true"]}]' >"$folder/stages"
"$sources/bench/gpu.sh" --stages "$folder/stages" --out "$folder/late" --total 5.3 >/dev/null
holds "$(echo "$folder"/late/*.json)" 's["long"]["status"] == "ok" and s["late"]["status"] == "no time was left"'

# What was spent before, on unpacking what the build needs, is time too.
echo '[{"name": "late", "budget": 20, "command": ["true"]}]' >"$folder/stages"
"$sources/bench/gpu.sh" --stages "$folder/stages" --out "$folder/spent" --total 60 --spent 57 >/dev/null
holds "$(echo "$folder"/spent/*.json)" 's["late"]["status"] == "no time was left"'
tail -1 "$sources/bench/gpu.sh" | grep -q -- '--spent "$SECONDS"' || fail "bench/gpu.sh does not say what it spent"

# Every library that the build asks for is looked for, and named in the head.
libraries=$(sed -n 's/^pkg_check_modules([A-Z0-9]* REQUIRED IMPORTED_TARGET \(.*\))$/\1/p' "$sources/CMakeLists.txt")
[ "$(wc -w <<<"$libraries")" -ge 6 ] || fail "CMakeLists.txt: libraries not found"
for library in $libraries; do
    grep -q "[ ]$library:" "$sources/bench/gpu.sh" || fail "bench/gpu.sh does not look for $library"
    name=${library#lib} name=${name%-*}
    grep -qi "^#.*$name" "$sources/bench/gpu.sh" || fail "the head of bench/gpu.sh does not name $library"
done

# Killed within the second stage, by a signal that can be seen coming and by one that can't.
echo '[{"name": "first", "budget": 20, "command": ["true"]},
       {"name": "second", "budget": 20, "command": ["sh", "-c", "echo 77 >\"'"$folder"'/$0\"; exec sleep 15", "{json}.pid"]}]' |
    sed 's|/\$0|/second|' >"$folder/stages"
for signal in TERM KILL; do
    rm -f "$folder/second"
    "$sources/bench/gpu.sh" --stages "$folder/stages" --out "$folder/$signal" >/dev/null 2>&1 &
    child=$!
    until_true test -s "$folder/second"
    kill -$signal $child
    wait $child 2>/dev/null && fail "SIG$signal was no failure"
    file=$(echo "$folder/$signal"/*.json)
    holds "$file" 's["first"]["status"] == "ok" and s["second"]["status"] == ("cut short" if "'$signal'" == "TERM" else "running")'
    test -s "${file%.json}.md" || fail "no table after SIG$signal"
done

# The peers' table without a peer.
(cd "$folder" && python3 -S "$sources/bench/peers/step.py" --short --cudpo "$cudpo" --json peers.json >peers.txt)
grep -q 'absent: no trl in this Python' "$folder/peers.txt" || fail "no reason why TRL is absent"
holds "$folder/peers.json" '[r["peer"] for r in d["rows"] if "ms" in r] == ["cudpo", "cudpo-precomputed"] and d["failures"] == []'
holds "$folder/peers.json" 'all(r["ms"] > 0 and r["peak_mb"] > 1 and r.get("loss_difference", 0) < 1e-6 for r in d["rows"] if "ms" in r)'
python3 -S "$sources/bench/peers/step.py" --short --cudpo "$cudpo" --peers cudpo trl-tuned --require trl-tuned >/dev/null 2>&1 &&
    fail "a peer that was required is absent, and nobody noticed"

# One that computes another loss, by more than it may; one that is cut short by a crash.
cat >"$folder/bin/other" <<'END'
#!/usr/bin/env python3
import json, os, sys
if sys.argv[1] == "--version":
    sys.exit(print("cudpo 0"))
job = json.load(open(sys.argv[2]))
os.makedirs(job["output_dir"], exist_ok=True)
off = float(os.environ["OFF"]) if job["precompute_ref_log_probs"] else 0
with open(job["output_dir"] + "/metrics.jsonl", "w") as out:
    for step in range(job["max_steps"]):
        line = {"time": step / 10, "loss": 0.69 + off, "grad_norm": 1, "logps/chosen": -100, "logps/rejected": -90}
        out.write(json.dumps(line) + "\n")
sys.exit(3 if os.environ["OFF"] == "0.5" else 0)
END
chmod +x "$folder/bin/other"
other() { OFF=$1 python3 -S "$sources/bench/peers/step.py" --short --cudpo other --peers cudpo cudpo-precomputed --json "$folder/other.json" >/dev/null 2>&1; }
other 0.00009 || fail "9e-5 is near enough in fp32"
holds "$folder/other.json" 'd["rows"][1]["agrees"] and abs(d["rows"][1]["ms"] - 100) < 1e-6 and d["rows"][1]["pairs_per_s"] > 39.9'
other 0.00011 && fail "1.1e-4 is too far in fp32"
holds "$folder/other.json" 'not d["rows"][1]["agrees"] and "cudpo_speedup" not in d["rows"][1]'
other nan && fail "NaN is no loss"
other 0.5 && fail "nothing was measured"
holds "$folder/other.json" 'all(r["absent"].startswith("exit status 3") for r in d["rows"])'

# On a GPU: a tiny model in fp32 first, memory by NVML less what was in use before.
cat >"$folder/nvml.c" <<'END'
static int calls;
int nvmlInit_v2(void) { return calls = 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = device; return (int)i; }
int nvmlDeviceGetHandleByUUID(const char *name, void **device) { *device = device; return name == 0; }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *of)
{
    of[0] = 1000000000, of[2] = calls++ ? 350000000 : 100000000, of[1] = of[0] - of[2];
    return device == 0;
}
END
if cc -shared -fPIC -o "$folder/libnvidia-ml.so.1" "$folder/nvml.c"; then
    gpu() { OFF=$1 CUDA_VISIBLE_DEVICES=0 LD_LIBRARY_PATH=$folder python3 -S "$sources/bench/peers/step.py" --device cuda --shapes tiny --lengths lognormal --batch 2 --accumulate 1 --steps 5 \
        --cudpo other --peers cudpo cudpo-precomputed --json "$folder/gpu.json" >/dev/null 2>&1; }
    gpu 0 || fail "no table on a GPU"
    holds "$folder/gpu.json" 'all(r["memory"] == "NVML" and r["peak_mb"] == 250 and r["precision"] == "bf16" for r in d["rows"])'
    holds "$folder/gpu.json" 'd["agreement_fp32"]["tiny"]["cudpo-precomputed"]["loss"] == 0 and d["machine"]["gpu"]["name"] == "NVIDIA T1000"'
    gpu 0.0005 && fail "5e-4 is too far in fp32"
    holds "$folder/gpu.json" '"computes another loss" in d["rows"][1]["absent"]'
fi
echo "bench/gpu.sh and bench/peers/step.py do what they say"
