#!/bin/sh
# Every op of the table is measured; and a short run of `cudpo bench` on the CPU makes sense: no time is zero, and each op
# whose operands leave the cache reaches between 1 and 110 % of what a copy or a product reaches.
# Usage: check_table.sh ROOT PROGRAM
bad=0
ops=$(sed -n '/(\*gemm)/,$p' "$1/src/backend/backend.h" | grep -o '(\*[a-z_]*)(backend \*be' | sed 's/(\*\([a-z_]*\)).*/\1/')
for op in $ops; do
    grep -q "be->$op(" "$1"/bench/bench_*.c "$1"/bench/stage.h || { echo "no benchmark calls $op"; bad=1; }
done
[ "$(echo "$ops" | wc -l)" -ge 32 ] || { echo "backend.h: ops not found"; bad=1; }
[ "$bad" -eq 0 ] || exit 1
[ -n "$2" ] || exit 0

# Qwen2.5-0.5B with a fifth of its vocabulary: products of the whole one are most of the time.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
file=$folder/table.json
cat >"$folder/config.json" <<'CONFIG'
{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 896, "num_hidden_layers": 24,
 "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 32768,
 "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "hidden_act": "silu",
 "tie_word_embeddings": true, "use_sliding_window": false, "dtype": "bfloat16"}
CONFIG

# A shared machine has its moments: three of them.
for try in 1 2 3; do
    "$2" bench --device cpu --shape "$folder/config.json" --length 64 --seconds 0.02 --no_baseline --json "$file" || exit 1
    wrong=$(awk '
        function value(key) { match($0, "\"" key "\": [-0-9.e+]*"); return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) + 0 }
        /"op": / {
            rows++
            percent = value("percent_of_ceiling")
            if (value("median_us") <= 0 || value("gbps") <= 0) print "a zero: " $0
            if (/"cached": false/ && (percent < 1 || percent > 110)) print percent " % of the ceiling: " $0
        }
        END { if (rows < 45) print rows " rows" }' "$file")
    [ -z "$wrong" ] && exit 0
    echo "try $try: $wrong"
done
exit 1
