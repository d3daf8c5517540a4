#!/usr/bin/env bash
# check_memory.sh TOOL PROGRAM FOLDER - a short run of `cudpo train --device cuda` under a tool of compute-sanitizer
# (memcheck, racecheck, initcheck, synccheck): two steps, fp32 and bf16.  77, a skipped test, where there is no GPU or no
# such tool; FOLDER takes what the runs write.
set -euo pipefail
tool=$1 program=$2 folder=$3/sanitizer-$1
command -v compute-sanitizer >/dev/null || { echo "skipped: no compute-sanitizer here"; exit 77; }
report=$("$program" doctor)
grep -q 'GPU 0' <<<"$report" || { echo "skipped: no GPU here"; exit 77; }
export CUDPO_CACHE=$folder/cache # what products take under the tool is nobody else's measure
golden=$(cd "$(dirname "$0")" && pwd)/golden
for bf16 in false true; do
    rm -rf "$folder"
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" train --device cuda --bf16 "$bf16" \
        --model_name_or_path "$golden/models/qwen3" --train_dataset "$golden/data/train.jsonl" --max_length 48 \
        --per_device_train_batch_size 2 --max_steps 2 --save_strategy no --output_dir "$folder/run"
done
rm -rf "$folder"
