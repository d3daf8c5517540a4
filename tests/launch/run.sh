# run.sh - the run that launchers are tested with, and what must become of it.  Sourced with sources (the checkout), cudpo (the
# program), runs (the folder of reference.sh), scenario (a name) and work (a folder of the test's own) set.

# Long enough to be interrupted, and known from uninterrupted ones.
steps=200

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
is_gone() { [ ! -e "/proc/$1" ]; }

# free_port SEED: the first of ten ports in a row, below those that the kernel hands out, of which nobody listens to any.
free_port() {
    local taken try port
    taken=" $(awk '$4 == "0A" {split($2, a, ":"); print a[2]}' /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        while read -r hex; do echo $((16#$hex / 10)); done | tr '\n' ' ')"
    for try in $(seq 0 1199); do
        port=$((2000 + ($(printf %s "$1" | cksum | cut -d' ' -f1) + try) % 1200))
        case $taken in *" $port "*) continue ;; esac
        echo $((port * 10))
        return
    done
    return 1
}

# The keys by which so many ranks train on the same pairs in each step as one does.
shared() { echo --per_device_train_batch_size $((8 / $1)); }

# The last step that a run has logged.
last_step() { tail -n 1 "${1:-$work/out}/metrics.jsonl" 2>/dev/null | sed -n 's/^{"step": \([0-9]*\),.*}$/\1/p'; }
has_step() { [ "$(last_step "${2:-$work/out}")" -ge "$1" ] 2>/dev/null; }
reaches() { within 60 "step $1 of ${2:-$work/out}" has_step "$@"; }
checkpoint() { ls -d "${1:-$work/out}"/checkpoint-* 2>/dev/null | sed -n 's/.*checkpoint-\([0-9]*\)$/\1/p' | sort -n | tail -n 1; }
has_checkpoint() { [ -n "$(checkpoint "$@")" ]; }

# whole [FOLDER]: a model is there, and each step was logged once.
whole() {
    local out=${1:-$work/out}
    [ -s "$out/model.safetensors" ] || fail "no model in $out"
    sed -n 's/^{"step": \([0-9]*\),.*}$/\1/p' "$out/metrics.jsonl" | cmp - <(seq $steps) || fail "steps of $out/metrics.jsonl"
}

# finished [FOLDER [RANKS]]: the run is whole and ended in the bits of an uninterrupted one of as many ranks.
finished() {
    local out=${1:-$work/out} reference=$runs/reference-${2:-1}
    whole "$out"
    cmp "$out/model.safetensors" "$reference/model.safetensors" || fail "other weights than those of $reference"
    cmp <(timeless <"$out/metrics.jsonl") <(timeless <"$reference/metrics.jsonl") || fail "other metrics than those of $reference"
}
timeless() { sed 's/, "units_per_second": [^,}]*//; s/, "time": [^,}]*//'; }

# near_one_rank [FOLDER]: the losses of the first steps are those of one rank, but for rounding.
near_one_rank() {
    paste <(losses <"${1:-$work/out}/metrics.jsonl") <(losses <"$runs/reference-1/metrics.jsonl") |
        awk 'NR <= 10 {d = $1 - $2; if (d < 0) d = -d; if (!(d <= 1e-5)) bad = 1} END {exit bad || NR < 10}' ||
        fail "other losses than those of one rank"
}
losses() { sed -n 's/.*"loss": \([^,}]*\).*/\1/p'; }
