/* test_attention_cached.c - decoding with kept keys is attention of a pack's last tokens. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_attention.h"
#ifdef TEST_CUDA
#include "backend/cuda/ops.h"
#endif

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

/* B sequences of different lengths: the last token of each, decoded, is what it is in the packed whole.  The caches' rows
 * are in 16-byte pieces, or have a gap behind them.  q is multiplied by the scale before it meets a key, so products are
 * rounded twice; weights stay fp32 in bf16 too, and a key is a tile. */
static void check_decoding(backend *be, attention_shape shape, dtype type, uint64_t seed)
{
    enum { B = 4, M = 700 };
    static const int length[B] = {1, 40, 257, 300};
    static const int32_t first[B] = {650, 0, 50, 320};
    const int64_t D = shape.head_dim, KV = shape.kv_heads * D, gap = seed % 2 == 0 ? 8 : 1;
    problem x = problem_begin(shape.heads, shape.kv_heads, shape.head_dim, shape.window);
    int32_t slot[M], counts[B];
    for (int b = 0; b < B; b++) {
        for (int32_t i = 0; i < length[b]; i++) {
            slot[x.T + i] = first[b] + i;
        }
        problem_add(&x, 0, 1, &length[b]);
        counts[b] = length[b];
    }
    problem_fill(&x, seed, NORMAL);
    round_to(type, x.qkv, x.T * x.W);
    for (int64_t b = 0, end = 0; b < B; b++) {
        end += length[b];
        want_range(&x, end - 1, end, 0, 1);
    }
    x.shape = shape;
    x.r = (rounding){2 * EPS, EPS, false, 1};
    float *last = zeros(B * x.W, 4), *got = zeros(B * x.Q, 4);
    double *qkv = doubles(x.qkv, x.T * x.W), *slopes;
    answer a = answer_create(&x);
    slopes = a.dqkv, a.dqkv = NULL; /* no backward pass */
    plain(&a, &x, qkv);
    a.dqkv = slopes;

    ops o = ops_begin(be);
    const tensor k = ops_make(&o, type, M, KV, KV + gap), v = ops_make(&o, type, M, KV, KV + gap);
    CHECK_OK(be->cache_store(be, k, v, ops_floats_as(&o, type, x.qkv, x.T, x.W),
                             ops_indices(&o, slot, x.T, 1), shape));
    for (int b = 0; b < B; b++) {
        memcpy(last + b * x.W, x.qkv + x.wanted[b] * x.W, (size_t)x.W * 4);
    }
    const tensor one = ops_make(&o, type, B, x.Q, x.Q + 3);
    CHECK_OK(be->attention_cached(be, one, ops_floats_as(&o, type, last, B, x.W), k, v,
                                  ops_indices(&o, first, B, 1), ops_indices(&o, counts, B, 1),
                                  shape));
    ops_get_floats(&o, got, one);
    for (int64_t i = 0; i < B * x.Q; i++) {
        const int64_t at = x.wanted[i / x.Q] * x.Q + i % x.Q;
        const double off = a.out_tolerance[at], result = type == DTYPE_BF16 ? EPS_BF16 : 0;
        CHECK_NEAR(got[i], a.out[at], off + result * (fabs(a.out[at]) + off));
    }
    ops_end(&o);
    answer_free(&a);
    free(last);
    free(got);
    free(qkv);
    problem_free(&x);
}

static void decoding_is_attention(backend *be)
{
    static const attention_shape shapes[] = {
        {1, 1, 8, 0, 0.35f},     {8, 2, 16, 0, 0.25f},        {6, 6, 64, 0, 0.125f},
        {4, 2, 96, 50, 0.1f},    {70, 1, 4, 0, 0.5f}, /* more heads to a kv head than a tile has rows */
        {2, 1, 128, 257, 0.09f}, {4, 4, 8, 1, 0.35f},         {2, 1, 256, 0, 0.0625f},
        {3, 3, 33, 0, 0.2f},     {2, 1, 8, INT32_MAX, 0.35f},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_decoding(be, shapes[i], DTYPE_F32, 10 + i);
        if (be->on_device) check_decoding(be, shapes[i], DTYPE_BF16, 31 + i);
    }
}

static void decode_again(ops *o, float *result)
{
    enum { B = 3, M = 200 };
    static const int32_t first[B] = {0, 50, 10}, length[B] = {40, 150, 1};
    const attention_shape shape = {4, 2, 40, 0, 0.15f};
    float *k = random_floats(1, M * 80), *v = random_floats(2, M * 80),
          *q = random_floats(3, B * 320);
    const tensor out = ops_output(o, B, 160);
    CHECK_OK(o->be->attention_cached(o->be, out, ops_floats(o, q, B, 320), ops_floats(o, k, M, 80),
                                     ops_floats(o, v, M, 80), ops_indices(o, first, B, 1),
                                     ops_indices(o, length, B, 1), shape));
    ops_get(o, result, out);
    free(k);
    free(v);
    free(q);
}

static void same_bits_again(backend *be)
{
    check_repeatable(be, decode_again, 3 * 160);
}

/* What both ops take. */
typedef struct operands {
    tensor out, k, v, qkv, slot, first, length, fault;
    attention_shape shape;
} operands;

static const attention_shape small = {2, 1, 8, 0, 1.0f};

/* Of two tokens or sequences, and caches of five rows; bf16 for launchers alone. */
static operands operands_create(ops *o, dtype type)
{
    static const int32_t slot[] = {4, 0}, first[] = {3, 0}, length[] = {2, 1};
    return (operands){.out = ops_output_as(o, type, 2, 16),
                      .k = ops_output_as(o, type, 5, 8),
                      .v = ops_output_as(o, type, 5, 8),
                      .qkv = ops_output_as(o, type, 2, 32),
                      .slot = ops_indices(o, slot, 2, 1),
                      .first = ops_indices(o, first, 2, 1),
                      .length = ops_indices(o, length, 2, 1),
                      .shape = small};
}

static cudpo_status store(backend *be, const operands *x)
{
    return be->cache_store(be, x->k, x->v, x->qkv, x->slot, x->shape);
}

static cudpo_status cached(backend *be, const operands *x)
{
    return be->attention_cached(be, x->out, x->qkv, x->k, x->v, x->first, x->length, x->shape);
}

#define REFUSED(op, text, ...)                       \
    do {                                             \
        operands c = good;                           \
        __VA_ARGS__;                                 \
        CHECK_FAILS(op(be, &c), CUDPO_EINVAL, text); \
        ops_check_untouched(&o, good.k);             \
        ops_check_untouched(&o, good.v);             \
        ops_check_untouched(&o, good.out);           \
    } while (0)

/* Rows that are none of the caches': refused on the host; on a device the output is NaN, or the row is not stored, and a
 * fault bit is set. */
static void rows_of_no_cache(backend *be)
{
    static const int32_t ranges[][4] = {{0, 0, 0, 0},  {0, 0, 6, 6}, {-1, -1, 2, 2},
                                        {5, 5, 1, 1},  {4, 4, 2, 2}, {1, 1, INT32_MAX, INT32_MAX},
                                        {0, 0, -3, -3}};
    static const int32_t slots[][2] = {{5, 5}, {-1, -1}, {INT32_MAX, INT32_MIN}};
    ops o = ops_begin(be);
    const operands good = operands_create(&o, DTYPE_F32);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        operands wrong = good;
        float got[32];
        wrong.first = ops_indices(&o, &ranges[i][0], 2, 1);
        wrong.length = ops_indices(&o, &ranges[i][2], 2, 1);
        if (!be->on_device) {
            CHECK_FAILS(cached(be, &wrong), CUDPO_EINVAL,
                        "are_ranges(first, length, B, k_cache.rows)");
            ops_check_untouched(&o, good.out);
            continue;
        }
        CHECK_OK(cached(be, &wrong));
        ops_get(&o, got, wrong.out);
        for (int n = 0; n < 32; n++) {
            assert_true(isnan(got[n]));
        }
        check_fault(be, FAULT_INDEX);
    }
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        operands c = good;
        c.slot = ops_indices(&o, slots[i], 2, 1);
        if (be->on_device) {
            CHECK_OK(store(be, &c));
            check_fault(be, FAULT_INDEX);
        } else {
            CHECK_FAILS(store(be, &c), CUDPO_EINVAL, "is_index(slot, qkv.rows, k_cache.rows)");
        }
    }
    ops_check_untouched(&o, good.k);
    ops_check_untouched(&o, good.v);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    const bool cpu = !be->on_device;
    const attention_shape bad[] = {
        {2, 0, 8, 0, 1.0f},  {2, -1, 8, 0, 1.0f}, {3, 2, 8, 0, 1.0f}, {0, 1, 8, 0, 1.0f},
        {2, 1, 8, -1, 1.0f}, {2, 1, 8, 0, NAN},   {2, 1, 0, 0, 1.0f},
    };
    ops o = ops_begin(be);
    const operands good = operands_create(&o, DTYPE_F32);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSED(store, "attention_shape_valid", c.shape = bad[i]);
        REFUSED(cached, "attention_shape_valid", c.shape = bad[i]);
    }
    const char *qkv = cpu ? "is_f32(qkv, " : "is_float(qkv, ",
               *k = cpu ? "is_f32(k_cache, " : "is_float(k_cache, ";
    const char *v = cpu ? "is_f32(v_cache, " : "is_like(v_cache, k_cache)";
    const char *out = cpu ? "is_f32(out, B" : "is_float(out, B";
    const char *no_rows = cpu ? "qkv.rows >= 0" : qkv, *no_cache = cpu ? "k_cache.rows >= 0" : k;
    const char *slot = cpu ? "is_index(slot, qkv.rows" : "is_i32(slot, qkv.rows";
    const char *first = cpu ? "are_ranges(first, length" : "is_i32(first, B";
    const char *length = cpu ? "are_ranges(first, length" : "is_i32(length, B";
    REFUSED(store, no_rows, c.qkv.rows = -1);
    REFUSED(store, qkv, c.qkv.cols--);
    REFUSED(store, qkv, c.qkv.type = DTYPE_I32);
    REFUSED(store, no_cache, c.k.rows = c.v.rows = -1; c.qkv.rows = c.slot.rows = 0);
    REFUSED(store, k, c.k.cols--);
    REFUSED(store, v, c.v.rows--);
    REFUSED(store, v, c.v.cols--);
    REFUSED(store, slot, c.slot.rows--);
    REFUSED(store, slot, c.slot.type = DTYPE_F32);
    REFUSED(store, "tensor_disjoint(k_cache, v_cache)", c.k.data = c.v.data);
    REFUSED(store, "tensor_disjoint(k_cache, qkv)", c.qkv.data = c.k.data);
    REFUSED(store, "tensor_disjoint(v_cache, qkv)", c.qkv.data = c.v.data);
    REFUSED(cached, no_rows, c.qkv.rows = -1);
    REFUSED(cached, qkv, c.qkv.cols--);
    REFUSED(cached, out, c.out.rows--);
    REFUSED(cached, out, c.out.cols--);
    REFUSED(cached, no_cache, c.k.rows = c.v.rows = -1);
    REFUSED(cached, k, c.k.cols++);
    REFUSED(cached, v, c.v.rows--);
    REFUSED(cached, v, c.v.cols--);
    REFUSED(cached, first, c.first.rows--);
    REFUSED(cached, length, c.length.type = DTYPE_F32);
    REFUSED(cached, length, c.length.rows--);
    REFUSED(cached, "tensor_disjoint(out, qkv)", c.out.data = c.qkv.data);
    REFUSED(cached, "tensor_disjoint(out, k_cache)", c.k.data = c.out.data);
    REFUSED(cached, "tensor_disjoint(out, v_cache)", c.v.data = c.out.data);
    if (cpu) {
        REFUSED(cached, "k_cache.stride <= INT_MAX", c.k.stride = (int64_t)1 << 31);
        REFUSED(cached, "v_cache.stride <= INT_MAX", c.v.stride = (int64_t)1 << 31);
    }
    /* Tables within the outputs, whose room holds what the tables must. */
    const tensor room = ops_make(&o, DTYPE_F32, 5, 8, 8),
                 table = tensor_vector(room.data, DTYPE_I32, 2);
    ops_put(&o, table, (const int32_t[]){1, 2});
    REFUSED(store, "tensor_disjoint(k_cache, slot)", c.slot = table; c.k.data = room.data);
    REFUSED(store, "tensor_disjoint(v_cache, slot)", c.slot = table; c.v.data = room.data);
    REFUSED(cached, "tensor_disjoint(out, first)", c.first = table; c.out.data = room.data);
    REFUSED(cached, "tensor_disjoint(out, length)", c.length = table; c.out.data = room.data);
    ops_end(&o);
}

#ifdef TEST_CUDA
static cudpo_status launch_store(backend *be, const operands *x)
{
    return cuda_cache_store(x->k, x->v, x->qkv, x->slot, x->shape, x->fault,
                            ((cuda_backend *)be)->stream);
}

static cudpo_status launch_cached(backend *be, const operands *x)
{
    return cuda_attention_cached(x->out, x->qkv, x->k, x->v, x->first, x->length, x->shape,
                                 x->fault, ((cuda_backend *)be)->stream);
}

/* Without a fault word, rows of no cache are passed over in silence. */
static void faults_without_a_word(backend *be)
{
    static const int32_t slots[] = {5, -1};
    ops o = ops_begin(be);
    operands x = operands_create(&o, DTYPE_F32);
    x.slot = ops_indices(&o, slots, 2, 1);
    x.fault = (tensor){0};
    CHECK_OK(launch_store(be, &x));
    ops_check_untouched(&o, x.k);
    ops_check_untouched(&o, x.v);
    x.first = ops_indices(&o, slots, 2, 1);
    CHECK_OK(launch_cached(be, &x));
    ops_end(&o);
}

/* What only a device refuses. */
static void broken_launches(backend *be)
{
    const int64_t blocks = INT32_MAX;
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const dtype other = bf16_or_f32(!bf16);
        ops o = ops_begin(be);
        const operands good = operands_create(&o, bf16_or_f32(bf16));
        REFUSED(launch_store, "k_cache.type == qkv.type", c.k.type = c.v.type = other);
        REFUSED(launch_store, "is_like(v_cache, k_cache)", c.v.type = other);
        REFUSED(launch_store, "attention_shape_valid", c.shape.head_dim = 257);
        REFUSED(launch_store, "is_fault(fault)", c.fault = good.k);
        REFUSED(launch_store, "fits_grid(qkv.rows * KV",
                c.qkv.rows = c.slot.rows = blocks * 16 + 1);
        REFUSED(launch_store, "tensor_disjoint", c.qkv.rows = c.slot.rows = blocks * 16;
                c.k.data = c.v.data);
        REFUSED(launch_cached, "k_cache.type == qkv.type", c.k.type = c.v.type = other);
        REFUSED(launch_cached, "is_like(v_cache, k_cache)", c.v.type = other);
        REFUSED(launch_cached, "out.type == qkv.type", c.out.type = other);
        REFUSED(launch_cached, "attention_shape_valid", c.shape.scale = 0);
        REFUSED(launch_cached, "is_fault(fault)", c.fault = good.out);
        REFUSED(launch_cached, "qkv.rows <= INT32_MAX / shape.heads",
                c.qkv.rows = c.out.rows = c.first.rows = c.length.rows = blocks / 2 + 1);
        REFUSED(launch_cached, "tensor_disjoint",
                c.qkv.rows = c.out.rows = c.first.rows = c.length.rows = blocks / 2;
                c.qkv.data = c.out.data);
        const tensor *const of_store[] = {&good.k, &good.v, &good.qkv, &good.slot};
        static const char *const store_text[] = {
            "tensor_disjoint(fault, k_cache)", "tensor_disjoint(fault, v_cache)",
            "tensor_disjoint(fault, qkv)", "tensor_disjoint(fault, slot)"};
        for (int i = 0; i < 4; i++) {
            REFUSED(launch_store, store_text[i],
                    c.fault = tensor_vector(of_store[i]->data, DTYPE_I32, 1));
        }
        const tensor *const of_cached[] = {&good.out, &good.qkv,   &good.k,
                                           &good.v,   &good.first, &good.length};
        static const char *const cached_text[] = {
            "tensor_disjoint(fault, out)",     "tensor_disjoint(fault, qkv)",
            "tensor_disjoint(fault, k_cache)", "tensor_disjoint(fault, v_cache)",
            "tensor_disjoint(fault, first)",   "tensor_disjoint(fault, length)"};
        for (int i = 0; i < 6; i++) {
            REFUSED(launch_cached, cached_text[i],
                    c.fault = tensor_vector(of_cached[i]->data, DTYPE_I32, 1));
        }
        CHECK_OK(launch_store(be, &good)); /* nothing of it was wrong before it was changed */
        CHECK_OK(launch_cached(be, &good));
        ops_end(&o);
    }
}
#endif

static const op_case cases[] = {
    {"two_keys_by_hand", two_keys_by_hand},
    {"decoding_is_attention", decoding_is_attention},
    {"same_bits_again", same_bits_again},
    {"rows_of_no_cache", rows_of_no_cache},
    {"broken_contracts", broken_contracts},
#ifdef TEST_CUDA
    {"faults_without_a_word", faults_without_a_word},
    {"broken_launches", broken_launches},
#endif
};
OPS_MAIN(cases)
