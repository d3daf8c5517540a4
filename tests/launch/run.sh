# run.sh - the run that launchers are tested with, and what must become of it.  Sourced with sources (the checkout), runs (the
# folder of reference.sh), scenario (a name) and work (a folder of the test's own) set.

# Long enough to be interrupted, and known from an uninterrupted one.
steps=150

fail() {
    echo "$scenario: $*" >&2
    exit 1
}
skip() {
    echo "skipped: $*"
    exit 77
}

# within SECONDS WHAT COMMAND ...: waits until COMMAND succeeds.
within() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    while ! "$@"; do
        [ $SECONDS -lt $end ] || fail "not in time: $what"
        sleep 0.1
    done
}

# The last step that a run has logged.
last_step() { tail -n 1 "${1:-$work/out}/metrics.jsonl" 2>/dev/null | sed -n 's/^{"step": \([0-9]*\),.*}$/\1/p'; }
has_step() { [ "$(last_step "${2:-$work/out}")" -ge "$1" ] 2>/dev/null; }
reaches() { within 30 "step $1 of ${2:-$work/out}" has_step "$@"; }
checkpoint() { ls -d "${1:-$work/out}"/checkpoint-* 2>/dev/null | sed -n 's/.*checkpoint-\([0-9]*\)$/\1/p' | sort -n | tail -n 1; }
has_checkpoint() { [ -n "$(checkpoint "$@")" ]; }

# finished [FOLDER [REFERENCE]]: the run is whole and ended in the bits of an uninterrupted one, with every step logged once.
finished() {
    local out=${1:-$work/out} reference=$runs/reference-${2:-1}
    sed -n 's/^{"step": \([0-9]*\),.*}$/\1/p' "$out/metrics.jsonl" | cmp - <(seq $steps) || fail "steps of $out/metrics.jsonl"
    cmp "$out/model.safetensors" "$reference/model.safetensors" || fail "other weights than those of $reference"
    cmp <(timeless <"$out/metrics.jsonl") <(timeless <"$reference/metrics.jsonl") || fail "other metrics than those of $reference"
}
timeless() { sed 's/, "units_per_second": [^,}]*//; s/, "time": [^,}]*//'; }

