/* test_attention_cached.c - decoding with kept keys gives what attention over the whole pack gives. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"

/* One head of one dimension: k = (0, ln 3), q = 1, v = (4, 8): weights 1/4 and 3/4, out 7. */
static void two_keys_by_hand(backend *be)
{
    static const float first_token[] = {0, 0, 4}, second_token[] = {1, 1.09861229f, 8};
    static const int32_t slot[] = {3, 4}, first[] = {3}, length[] = {2};
    const attention_shape shape = {1, 1, 1, 0, 1.0f};
    float got;
    ops o = ops_begin(be);
    const tensor k = ops_output(&o, 6, 1), v = ops_output(&o, 6, 1), out = ops_output(&o, 1, 1);
    const tensor q = ops_floats(&o, second_token, 1, 3);
    CHECK_OK(be->cache_store(be, k, v, ops_floats(&o, first_token, 1, 3),
                             ops_indices(&o, slot, 1, 1), shape));
    CHECK_OK(be->cache_store(be, k, v, q, ops_indices(&o, slot + 1, 1, 1), shape));
    CHECK_OK(be->attention_cached(be, out, q, k, v, ops_indices(&o, first, 1, 1),
                                  ops_indices(&o, length, 1, 1), shape));
    ops_get(&o, &got, out);
    CHECK_NEAR(got, 7.0, 8 * 8 * EPS);
    ops_check_untouched(&o, tensor_rows(k, 0, 3)); /* other slots stay */
    ops_check_untouched(&o, tensor_rows(v, 5, 1));
    ops_end(&o);
}

/* B sequences of different lengths: the last token of each, decoded, against attention over the packed whole. */
static void check_decoding(backend *be, attention_shape shape, uint64_t seed)
{
    enum { B = 4, M = 700 };
    static const int32_t length[B] = {1, 40, 257, 300};
    static const int32_t first[B] = {650, 0, 50, 320};
    const int64_t D = shape.head_dim, Q = shape.heads * D, KV = shape.kv_heads * D, W = Q + 2 * KV;
    int32_t segments[B * SEGMENT_FIELDS] = {0}, slot[M];
    int64_t T = 0;
    for (int b = 0; b < B; b++) {
        segments[b * SEGMENT_FIELDS + SEGMENT_BEGIN] = (int32_t)T;
        segments[b * SEGMENT_FIELDS + SEGMENT_LENGTH] = length[b];
        for (int32_t i = 0; i < length[b]; i++) {
            slot[T++] = first[b] + i;
        }
    }
    float *qkv = random_floats(seed, T * W), *want = zeros(T * Q, 4), *last = zeros(B * W, 4);
    float *got = zeros(B * Q, 4);
    ops o = ops_begin(be);
    const tensor out = ops_output(&o, T, Q), lse = ops_output(&o, T, shape.heads);
    const tensor all = ops_floats(&o, qkv, T, W);
    CHECK_OK(be->attention(be, out, lse, all, ops_indices(&o, segments, B, SEGMENT_FIELDS),
                           (tensor){0}, shape));
    ops_get(&o, want, out);

    const tensor k = ops_strided(&o, NULL, M, KV, KV + 1), v = ops_strided(&o, NULL, M, KV, KV + 2);
    CHECK_OK(be->cache_store(be, k, v, all, ops_indices(&o, slot, T, 1), shape));
    for (int64_t b = 0, t = -1; b < B; b++) {
        t += length[b];
        memcpy(last + b * W, qkv + t * W, (size_t)W * 4);
    }
    const tensor one = ops_strided(&o, NULL, B, Q, Q + 3);
    CHECK_OK(be->attention_cached(be, one, ops_floats(&o, last, B, W), k, v,
                                  ops_indices(&o, first, B, 1), ops_indices(&o, length, B, 1),
                                  shape));
    ops_get(&o, got, one);
    for (int64_t b = 0, t = -1; b < B; b++) {
        t += length[b];
        for (int64_t i = 0; i < Q; i++) {
            CHECK_NEAR(got[b * Q + i], (double)want[t * Q + i], 64 * EPS);
        }
    }
    ops_end(&o);
    free(qkv);
    free(want);
    free(last);
    free(got);
}

static void decoding_is_attention(backend *be)
{
    static const attention_shape shapes[] = {
        {1, 1, 8, 0, 0.35f},     {8, 2, 16, 0, 0.25f}, {6, 6, 64, 0, 0.125f},
        {4, 2, 96, 50, 0.1f},    {70, 1, 4, 0, 0.5f}, /* more heads to a kv head than a tile has rows */
        {2, 1, 128, 257, 0.09f}, {4, 4, 8, 1, 0.35f},
    };
    for (int i = 0; i < 7; i++) {
        check_decoding(be, shapes[i], 10 + (uint64_t)i);
    }
}

/* Rows that are none of the caches': refused on the host; on a device the output is NaN and a fault bit is set. */
static void check_ranges(ops *o, tensor out, tensor qkv, tensor k, tensor v, tensor first,
                         tensor length, attention_shape shape)
{
    backend *be = o->be;
    if (!be->on_device) {
        CHECK_FAILS(be->attention_cached(be, out, qkv, k, v, first, length, shape), CUDPO_EINVAL,
                    "are_ranges");
        return;
    }
    float got[8];
    CHECK_OK(be->attention_cached(be, out, qkv, k, v, first, length, shape));
    ops_get(o, got, out);
    for (int i = 0; i < 8; i++) {
        assert_true(isnan(got[i]));
    }
    check_fault(be, FAULT_INDEX);
}

static void check_slot(ops *o, tensor k, tensor v, tensor qkv, tensor slot, attention_shape shape)
{
    backend *be = o->be;
    if (!be->on_device) {
        CHECK_FAILS(be->cache_store(be, k, v, qkv, slot, shape), CUDPO_EINVAL, "is_index");
        return;
    }
    CHECK_OK(be->cache_store(be, k, v, qkv, slot, shape));
    check_fault(be, FAULT_INDEX);
}

static void broken_contracts(backend *be)
{
    const attention_shape shape = {2, 1, 4, 0, 1.0f};
    static const int32_t ranges[][2] = {{0, 0}, {0, 6},         {-1, 2}, {5, 1},
                                        {4, 2}, {1, INT32_MAX}, {0, -3}};
    static const int32_t five[] = {5}, minus_one[] = {-1}, fine[] = {0}, one[] = {1};
    ops o = ops_begin(be);
    const tensor k = ops_output(&o, 5, 4), v = ops_output(&o, 5, 4), out = ops_output(&o, 1, 8);
    const tensor qkv = ops_output(&o, 1, 16), first = ops_indices(&o, fine, 1, 1);
    const tensor length = ops_indices(&o, one, 1, 1);
    for (int i = 0; i < 7; i++) {
        const tensor f = ops_indices(&o, &ranges[i][0], 1, 1);
        const tensor n = ops_indices(&o, &ranges[i][1], 1, 1);
        check_ranges(&o, out, qkv, k, v, f, n, shape);
    }
    check_slot(&o, k, v, qkv, ops_indices(&o, five, 1, 1), shape);
    check_slot(&o, k, v, qkv, ops_indices(&o, minus_one, 1, 1), shape);
    CHECK_FAILS(be->cache_store(be, k, tensor_rows(v, 0, 4), qkv, first, shape), CUDPO_EINVAL,
                "v_cache");
    CHECK_FAILS(be->cache_store(be, k, v, out, first, shape), CUDPO_EINVAL, "qkv");
    CHECK_FAILS(be->attention_cached(be, qkv, qkv, k, v, first, length, shape), CUDPO_EINVAL,
                "out");
    ops_check_untouched(&o, k);
    ops_check_untouched(&o, v);
    if (!be->on_device) ops_check_untouched(&o, out);
    ops_end(&o);
}

static const op_case cases[] = {
    {"two_keys_by_hand", two_keys_by_hand},
    {"decoding_is_attention", decoding_is_attention},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
