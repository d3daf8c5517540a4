#!/usr/bin/env bash
# reference.sh SOURCES CUDPO FOLDER - the run that launchers are tested with, by one rank, without interruption: train.json, its
# configuration, and reference-1, what it leaves.
set -euo pipefail
sources=$1 cudpo=$2 runs=$3
. "$sources/tests/launch/run.sh"
rm -rf "$runs"
mkdir -p "$runs"
cat >"$runs/train.json" <<END
{"model_name_or_path": "$sources/tests/golden/models/llama3", "train_dataset": "$sources/tests/golden/data/train.jsonl",
 "max_length": 64, "max_steps": $steps, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 1,
 "save_steps": 20, "save_total_limit": 2, "resume_from_checkpoint": "true", "device": "cpu"}
END
export OMP_NUM_THREADS=1 CUDPO_CACHE=$runs/cache
timeout 120 "$cudpo" train "$runs/train.json" --output_dir "$runs/reference-1" >"$runs/log" 2>&1 || { cat "$runs/log" >&2; exit 1; }
