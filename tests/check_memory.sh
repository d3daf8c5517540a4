#!/usr/bin/env bash
# check_memory.sh TOOL PROGRAM [FOLDER] - under a tool of compute-sanitizer (memcheck, racecheck, initcheck, synccheck): a test
# program; or, with a FOLDER for what it writes, two steps of `cudpo train --device cuda` in fp32 and in bf16.  77, a skipped
# test, where there is no GPU or no such tool.
set -euo pipefail
tool=$1 program=$2
command -v compute-sanitizer >/dev/null || { echo "skipped: no compute-sanitizer here"; exit 77; }
grep -q '^GPU 0' <<<"$(nvidia-smi -L 2>/dev/null)" || { echo "skipped: no GPU here"; exit 77; }
check() { compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" "$@"; }
if [ $# -lt 3 ]; then
    check
    exit
fi
folder=$3/sanitizer-$tool
export CUDPO_CACHE=$folder/cache # what products take under the tool is nobody else's measure
golden=$(cd "$(dirname "$0")" && pwd)/golden
for bf16 in false true; do
    rm -rf "$folder"
    check train --device cuda --bf16 "$bf16" \
        --model_name_or_path "$golden/models/qwen3" --train_dataset "$golden/data/train.jsonl" --max_length 48 \
        --per_device_train_batch_size 2 --max_steps 2 --save_strategy no --output_dir "$folder/run"
done
rm -rf "$folder"
