#!/usr/bin/env bash
# reference.sh SOURCES CUDPO FOLDER - the run that launchers are tested with, uninterrupted and without a launcher: train.json, its
# configuration, and reference-N, what N ranks leave.
set -euo pipefail
sources=$1 cudpo=$2 runs=$3 work=$3 scenario=reference
. "$sources/tests/launch/run.sh"
rm -rf "$runs"
mkdir -p "$runs"
cat >"$runs/train.json" <<END
{"model_name_or_path": "$sources/tests/golden/models/llama3", "train_dataset": "$sources/tests/golden/data/train.jsonl",
 "max_length": 64, "max_steps": $steps, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 1,
 "save_steps": 20, "save_total_limit": 2, "resume_from_checkpoint": "true", "device": "cpu"}
END
export OMP_NUM_THREADS=1 CUDPO_CACHE=$runs/cache

# ranks N: each says its place as torchrun would.
ranks() {
    local rank started=() port
    port=$(free_port "$runs") || fail "no free port"
    for rank in $(seq 0 $(($1 - 1))); do
        RANK=$rank WORLD_SIZE=$1 LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$1 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
            timeout 120 "$cudpo" train "$runs/train.json" --output_dir "$runs/reference-$1" $(shared "$1") >"$runs/log-$1.$rank" 2>&1 &
        started+=($!)
    done
    for rank in "${started[@]}"; do wait "$rank" || { tail -n 20 "$runs/log-$1".*; fail "$1 ranks"; }; done
}
timeout 120 "$cudpo" train "$runs/train.json" --output_dir "$runs/reference-1" >"$runs/log-1" 2>&1 || { cat "$runs/log-1"; fail "one rank"; }
for n in 2 4; do
    ranks $n
    whole "$runs/reference-$n"
    near_one_rank "$runs/reference-$n"
done
