#!/bin/sh
# Are two ranks of one thread each as fast as one rank of two threads?  Usage: check_ranks.sh PROGRAM.  77: fewer than two processors.
# Three times each, in turn; the medians of pairs/s must be as 0.85 to 1 at least.
set -eu
program=$1
[ "$(nproc)" -ge 2 ] || { echo "skipped: fewer than two processors"; exit 77; }
folder=$(mktemp -d "${TMPDIR:-/tmp}/cudpo-ranks-XXXXXX")
trap 'rm -rf "$folder"' EXIT
cat >"$folder/config.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4096, "hidden_size": 384, "intermediate_size": 1024,
 "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
 "tie_word_embeddings": true, "initializer_range": 0.02, "rope_theta": 10000.0}
CONFIG
step() { # PAIRS-OF-A-RANK FILE
    echo bench step "$folder/config.json" --device cpu --prompt 64 --completion 64 --per_device_train_batch_size "$1" --steps 5 --json "$2"
}
rate() { sed -n 's/.*"pairs_per_second": \([0-9.]*\).*/\1/p' "$1"; }
for i in 1 2 3; do
    OMP_NUM_THREADS=2 "$program" $(step 16 "$folder/one.json") >/dev/null 2>&1
    OMP_NUM_THREADS=1 "$program" launch --nproc 2 -- $(step 8 "$folder/two.json") >/dev/null 2>&1
    rate "$folder/one.json" >>"$folder/one"
    rate "$folder/two.json" >>"$folder/two"
done
one=$(sort -n "$folder/one" | sed -n 2p) two=$(sort -n "$folder/two" | sed -n 2p)
echo "one rank of two threads: $one pairs/s; two ranks of one thread: $two pairs/s"
awk -v one="$one" -v two="$two" 'BEGIN { printf "as %.3f to 1\n", two / one; exit !(one > 0 && two >= 0.85 * one) }'
