/* attention_cached.c - decoding: keys and values are kept, and each sequence asks with one query. */
#include "backend/cpu/attention.h"
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

#include <limits.h>
#include <string.h>

static int64_t width_of(const attention_shape *s)
{
    return ((int64_t)s->heads + 2 * (int64_t)s->kv_heads) * s->head_dim;
}

cudpo_status cpu_cache_store(backend *be, tensor k_cache, tensor v_cache, tensor qkv, tensor slot,
                             attention_shape shape)
{
    (void)be;
    CUDPO_REQUIRE(attention_shape_valid(&shape));
    const int64_t Q = (int64_t)shape.heads * shape.head_dim;
    const int64_t KV = (int64_t)shape.kv_heads * shape.head_dim;
    CUDPO_REQUIRE(qkv.rows >= 0 && is_f32(qkv, qkv.rows, width_of(&shape)));
    CUDPO_REQUIRE(k_cache.rows >= 0 && is_f32(k_cache, k_cache.rows, KV));
    CUDPO_REQUIRE(is_f32(v_cache, k_cache.rows, KV));
    CUDPO_REQUIRE(is_index(slot, qkv.rows, k_cache.rows));
    CUDPO_REQUIRE(tensor_disjoint(k_cache, v_cache) && tensor_disjoint(k_cache, qkv));
    CUDPO_REQUIRE(tensor_disjoint(v_cache, qkv) && tensor_disjoint(k_cache, slot));
    CUDPO_REQUIRE(tensor_disjoint(v_cache, slot));
    const size_t bytes = (size_t)KV * sizeof(float);
    for (int64_t t = 0; t < qkv.rows; t++) {
        memcpy(row_of(k_cache, index_of(slot, t)), row_of(qkv, t) + Q, bytes);
        memcpy(row_of(v_cache, index_of(slot, t)), row_of(qkv, t) + Q + KV, bytes);
    }
    return CUDPO_OK;
}

/* Every sequence has a key, and all of its keys lie in the M rows of the caches. */
static bool are_ranges(tensor first, tensor length, int64_t B, int64_t M)
{
    if (!is_index(first, B, M) || !is_i32(length, B, 1)) return false;
    for (int64_t b = 0; b < B; b++) {
        if (index_of(length, b) < 1 || index_of(length, b) > M - index_of(first, b)) return false;
    }
    return true;
}

cudpo_status cpu_attention_cached(backend *be, tensor out, tensor qkv, tensor k_cache,
                                  tensor v_cache, tensor first, tensor length,
                                  attention_shape shape)
{
    (void)be;
    CUDPO_REQUIRE(attention_shape_valid(&shape));
    const int64_t D = shape.head_dim, ratio = shape.heads / shape.kv_heads;
    const int64_t B = qkv.rows, KV = shape.kv_heads * D;
    CUDPO_REQUIRE(qkv.rows >= 0 && is_f32(qkv, B, width_of(&shape)));
    CUDPO_REQUIRE(is_f32(out, B, shape.heads * D));
    CUDPO_REQUIRE(k_cache.rows >= 0 && is_f32(k_cache, k_cache.rows, KV));
    CUDPO_REQUIRE(is_f32(v_cache, k_cache.rows, KV));
    CUDPO_REQUIRE(k_cache.stride <= INT_MAX && v_cache.stride <= INT_MAX);
    CUDPO_REQUIRE(are_ranges(first, length, B, k_cache.rows));
    CUDPO_REQUIRE(tensor_disjoint(out, qkv) && tensor_disjoint(out, k_cache));
    CUDPO_REQUIRE(tensor_disjoint(out, v_cache) && tensor_disjoint(out, first));
    CUDPO_REQUIRE(tensor_disjoint(out, length));
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < B; b++) {
        for (int64_t kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
            const key_run run = {.k = row_of(k_cache, index_of(first, b)) + kv_head * D,
                                 .v = row_of(v_cache, index_of(first, b)) + kv_head * D,
                                 .k_stride = k_cache.stride,
                                 .v_stride = v_cache.stride,
                                 .length = index_of(length, b)};
            /* The heads that share these keys are the rows of a tile. */
            for (int64_t i = 0; i < ratio; i += QUERIES) {
                const int64_t column = (kv_head * ratio + i) * D;
                const query_tile tile = {.out = row_of(out, b) + column,
                                         .q = row_of(qkv, b) + column,
                                         .out_stride = D,
                                         .q_stride = D,
                                         .rows = min_i64(QUERIES, ratio - i),
                                         .position = run.length - 1};
                attention_forward_tile(&tile, &run, 1, &shape);
            }
        }
    }
    return CUDPO_OK;
}
