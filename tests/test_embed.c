/* test_embed.c - rows of a table by token. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ends.h"

static void three_tokens_by_hand(backend *be)
{
    static const float table[] = {1, 2, 3, 4, 5, 6};
    static const int32_t token[] = {2, 0, 2};
    static const double want[] = {5, 6, 1, 2, 5, 6};
    float got[6];
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 2);
    CHECK_OK(be->embed(be, x, ops_floats(&o, table, 3, 2), ops_indices(&o, token, 3, 1)));
    ops_get(&o, got, x);
    check_close("x", got, want, 6, 0);
    ops_end(&o);
}

/* Token 2 stands twice: its row gains both; the others gain once or not at all. */
static void gradient_by_hand(backend *be)
{
    static const float dtable[] = {10, 10, 20, 20, 30, 30}, dx[] = {1, 2, 3, 4, 5, 6};
    static const int32_t token[] = {2, 0, 2};
    static const double want[] = {13, 14, 20, 20, 36, 38};
    float got[6];
    ops o = ops_begin(be);
    const tensor to = ops_floats(&o, dtable, 3, 2);
    CHECK_OK(be->embed_backward(be, to, ops_floats(&o, dx, 3, 2), ops_indices(&o, token, 3, 1)));
    ops_get(&o, got, to);
    check_close("dtable", got, want, 6, 0);
    ops_end(&o);
}

/* Types of the table's gradient and of activations, and how tensors lie: dense, or with rows `pad` elements apart and the
 * first `shift` elements behind a boundary. */
typedef struct layout {
    bool table_bf16, bf16;
    int pad, shift;
} layout;

static const layout layouts[] = {
    {false, false, 0, 0}, {false, false, 3, 0}, {false, false, 4, 0}, {false, false, 0, 1},
    {true, true, 0, 0},   {true, true, 8, 0},   {true, true, 4, 4},   {true, true, 1, 3},
    {true, false, 0, 0},  {false, true, 0, 0},  {true, false, 4, 2},  {false, true, 4, 2},
};

/* The CPU has float alone. */
static int layouts_of(backend *be)
{
    return be->on_device ? 12 : 4;
}

static tensor make(ops *o, bool bf16, const layout *l, const float *host, int64_t rows,
                   int64_t cols)
{
    const tensor t = ops_make_at(o, bf16_or_f32(bf16), rows, cols, cols + l->pad, l->shift);
    if (host != NULL) ops_put_floats(o, t, host);
    return t;
}

static float *small_integers(uint64_t seed, int64_t n)
{
    float *x = zeros(n, sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(rng_below(seed, 0, (uint64_t)i, 9) - 4);
    }
    return x;
}

/* Half of the tokens are one, a quarter another: runs of every length. */
static int32_t *tokens_of(uint64_t seed, int64_t T, int64_t V)
{
    int32_t *token = zeros(T, sizeof *token);
    for (int64_t t = 0; t < T; t++) {
        const uint64_t bits = rng_bits(seed, 0, (uint64_t)t);
        int64_t range = 1;
        while (range < V && bits >> (range % 60) & 1) {
            range += 1 + range / 2;
        }
        token[t] = (int32_t)((7 + rng_below(seed, 1, (uint64_t)t, range)) % V);
    }
    return token;
}

/* Sums of integers are exact in float in any order, so each element has one right answer; a bf16 table rounds it once. */
static void check_exactly(backend *be, const layout *l, int64_t T, int64_t V, int64_t C,
                          const int32_t *token)
{
    float *table = random_floats(1, V * C), *x = zeros(T * C, 4);
    float *dtable = small_integers(2, V * C), *dx = small_integers(3, T * C);
    float *want = zeros(V * C, 4);
    memcpy(want, dtable, (size_t)(V * C) * sizeof *want);
    for (int64_t i = 0; i < T * C; i++) {
        want[token[i / C] * C + i % C] += dx[i];
    }
    const dtype table_type = bf16_or_f32(l->table_bf16);
    round_to(table_type, want, V * C);
    round_to(bf16_or_f32(l->bf16), table, V * C);
    ops o = ops_begin(be);
    const tensor index = ops_indices(&o, token, T, 1);
    const tensor to = make(&o, l->bf16, l, NULL, T, C);
    const tensor grad = make(&o, l->table_bf16, l, dtable, V, C);
    CHECK_OK(be->embed(be, to, make(&o, l->bf16, l, table, V, C), index));
    CHECK_OK(be->embed_backward(be, grad, make(&o, l->bf16, l, dx, T, C), index));
    ops_get_floats(&o, x, to);
    ops_get_floats(&o, dtable, grad);
    for (int64_t i = 0; i < T * C; i++) {
        if (x[i] != table[token[i / C] * C + i % C]) fail_msg("x[%lld]", (long long)i);
    }
    for (int64_t i = 0; i < V * C; i++) {
        if (dtable[i] != want[i])
            fail_msg("dtable[%lld,%lld] = %g, want %g", (long long)(i / C), (long long)(i % C),
                     (double)dtable[i], (double)want[i]);
    }
    ops_end(&o);
    free(table);
    free(x);
    free(dtable);
    free(dx);
    free(want);
}

/* Widths around pieces of 4, warps of 32, chunks of 256 and of 128 vectors. */
static void widths_and_layouts(backend *be)
{
    static const int64_t widths[] = {1, 4, 31, 32, 33, 127, 128, 129, 252, 256, 257, 260, 1000};
    enum { T = 70, V = 50 };
    int32_t *token = tokens_of(5, T, V);
    for (int l = 0; l < layouts_of(be); l++) {
        for (int i = l % 2; i < 13; i += l == 0 ? 1 : 2) {
            check_exactly(be, &layouts[l], T, V, widths[i], token);
        }
    }
    check_exactly(be, &layouts[layouts_of(be) - 1], 3, V, 1032, token);
    check_exactly(be, &layouts[layouts_of(be) / 2], 3, V, 1032, token);
    free(token);
}

/* Lengths around blocks of 64 and tiles of 1024 entries; runs of one and of all tokens. */
static void lengths_and_runs(backend *be)
{
    static const int64_t lengths[] = {1,   31,   63,   64,   65,   127, 128,
                                      129, 1000, 1023, 1024, 1025, 2500};
    for (int i = 0; i < 13; i++) {
        const int64_t T = lengths[i];
        int32_t *token = tokens_of(6, T, 3000);
        check_exactly(be, &layouts[i % layouts_of(be)], T, 3000, 5, token);
        for (int64_t t = 0; t < T; t++) {
            token[t] = 3;
        }
        check_exactly(be, &layouts[(i + 4) % layouts_of(be)], T, 4, 8, token);
        for (int64_t t = 0; t < T; t++) {
            token[t] = (int32_t)(T - 1 - t);
        }
        check_exactly(be, &layouts[(i + 8) % layouts_of(be)], T, T, 3, token);
        for (int64_t t = 0; t < T; t++) { /* 65, 64, 1, 63, 65, .. of each */
            token[t] = (int32_t)(t % 258 < 65 ? 2 : t % 258 < 129 ? 0 : t % 258 < 130 ? 3 : 1);
        }
        check_exactly(be, &layouts[0], T, 4, 4, token);
        free(token);
    }
}

/* A token of n rows gets the float sum of 30 or so numbers of size below 4: each of n additions rounds a sum below 32,
 * whatever their order. */
static void sums_of_any_numbers(backend *be)
{
    enum { T = 700, V = 50, C = 33 };
    float *table = random_floats(1, V * C), *dx = random_floats(2, T * C), *got = zeros(V * C, 4);
    double *want = zeros(V * C, 8);
    int32_t token[T];
    for (int64_t i = 0; i < V * C; i++) {
        want[i] = (double)table[i];
    }
    for (int64_t t = 0; t < T; t++) {
        token[t] = (int32_t)rng_below(3, 0, (uint64_t)t, V);
        for (int64_t i = 0; i < C; i++) {
            want[token[t] * C + i] += (double)dx[t * C + i];
        }
    }
    ops o = ops_begin(be);
    const tensor w = ops_strided(&o, table, V, C, C + 3);
    CHECK_OK(
        be->embed_backward(be, w, ops_strided(&o, dx, T, C, C + 2), ops_indices(&o, token, T, 1)));
    ops_get(&o, got, w);
    check_close("dtable", got, want, V * C, 30 * 32 * EPS);
    ops_end(&o);
    free(table);
    free(dx);
    free(got);
    free(want);
}

static void nothing_and_other_strides(backend *be)
{
    static const int32_t token[] = {1, -5, 0, -5}; /* every second one is a token */
    static const float table[] = {1, 2, 3, 4};
    static const double want[] = {3, 4, 1, 2}, gained[] = {2, 4, 6, 8};
    float got[4];
    ops o = ops_begin(be);
    const tensor w = ops_floats(&o, table, 2, 2), x = ops_output(&o, 2, 2);
    const tensor index = tensor_cols(ops_indices(&o, token, 2, 2), 0, 1);
    CHECK_OK(be->embed(be, x, w, index));
    ops_get(&o, got, x);
    check_close("x", got, want, 4, 0);
    CHECK_OK(be->embed_backward(be, w, x, index));
    CHECK_OK(be->embed(be, tensor_rows(x, 0, 0), w, tensor_rows(index, 0, 0)));
    CHECK_OK(be->embed_backward(be, w, tensor_rows(x, 0, 0), tensor_rows(index, 0, 0)));
    ops_get(&o, got, w);
    check_close("dtable", got, gained, 4, 0);
    ops_end(&o);
}

/* Nothing beyond a tensor is read, in quads, vectors or elements. */
static void ends_of_memory(backend *be)
{
    static const int64_t widths[] = {4, 5, 8, 31, 124, 129, 252, 260, 516};
    enum { T = 5 };
    static const int32_t token[T] = {2, 0, 2, 1, 4};
    float *host = random_floats(1, T * 516);
    for (int i = 0; i < 18; i++) {
        const int64_t C = widths[i / 2];
        const dtype type = bf16_or_f32(be->on_device && i % 2 == 1);
        ops o = ops_begin(be);
        const tensor x = ends_make(be, type, T, C, host), table = ends_make(be, type, T, C, host);
        const tensor index = ops_indices(&o, token, T, 1);
        CHECK_OK(be->embed(be, x, table, index));
        CHECK_OK(be->embed_backward(be, table, x, index));
        CHECK_OK(be->sync(be));
        be->free(be, x.data);
        be->free(be, table.data);
        ops_end(&o);
    }
    free(host);
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 3}, {-1, 0}, {0, INT32_MAX}, {INT32_MIN, 1}};
    ops o = ops_begin(be);
    const tensor table = ops_output(&o, 3, 4), x = ops_output(&o, 2, 4);
    for (int i = 0; i < 4 && !be->on_device; i++) {
        const tensor token = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->embed(be, x, table, token), CUDPO_EINVAL, "is_index");
        CHECK_FAILS(be->embed_backward(be, table, x, token), CUDPO_EINVAL, "is_index");
    }
    const int32_t good[3] = {0, 1, 2};
    const tensor three = ops_indices(&o, good, 3, 1), token = tensor_rows(three, 0, 2);
    const tensor narrow = tensor_cols(x, 0, 3), none = {0};
    CHECK_FAILS(be->embed(be, x, table, three), CUDPO_EINVAL, "token");
    CHECK_FAILS(be->embed(be, narrow, table, token), CUDPO_EINVAL, "x");
    CHECK_FAILS(be->embed(be, x, none, token), CUDPO_EINVAL, "is_matrix(table)");
    CHECK_FAILS(be->embed(be, none, table, token), CUDPO_EINVAL, "x");
    CHECK_FAILS(be->embed(be, x, table, x), CUDPO_EINVAL, "token");
    CHECK_FAILS(be->embed(be, x, table, none), CUDPO_EINVAL, "token");
    CHECK_FAILS(be->embed_backward(be, table, x, three), CUDPO_EINVAL, "token");
    CHECK_FAILS(be->embed_backward(be, table, narrow, token), CUDPO_EINVAL, "dx");
    CHECK_FAILS(be->embed_backward(be, none, x, token), CUDPO_EINVAL, "is_matrix(dtable)");
    CHECK_FAILS(be->embed_backward(be, table, none, token), CUDPO_EINVAL, "dx");
    CHECK_FAILS(be->embed_backward(be, table, x, x), CUDPO_EINVAL, "token");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, table);
    ops_end(&o);
}

static void run_large(ops *o, float *result)
{
    enum { C = 200, V = 50, T = 700 };
    float *table = random_floats(1, V * C), *dx = random_floats(2, T * C);
    int32_t *token = tokens_of(3, T, V);
    const tensor w = ops_floats(o, table, V, C);
    CHECK_OK(o->be->embed_backward(o->be, w, ops_floats(o, dx, T, C), ops_indices(o, token, T, 1)));
    ops_get(o, result, w);
    free(table);
    free(dx);
    free(token);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 50 * 200);
}

#ifdef TEST_CUDA
#include "backend/cuda/ops.h"

/* The sums in the order that the contract of cuda_embed_backward names: so any other order shows. */
static void the_order_of_sums(backend *be)
{
    enum { T = 1300, V = 9, C = 40 };
    float *dx = random_floats(2, T * C), *zero = zeros(V * C, 4), *got = zeros(V * C, 4);
    int32_t token[T];
    for (int t = 0; t < T; t++) { /* token v, of 0 .. 8, has about 2^v rows, 8 the rest */
        const uint64_t bits = rng_bits(4, 0, (uint64_t)t) >> 54;
        token[t] = bits < 512 ? (int32_t)(bits == 0 ? 0 : 31 - __builtin_clz((unsigned)bits)) : 8;
    }
    ops o = ops_begin(be);
    const tensor w = ops_floats(&o, zero, V, C);
    CHECK_OK(be->embed_backward(be, w, ops_floats(&o, dx, T, C), ops_indices(&o, token, T, 1)));
    ops_get(&o, got, w);
    for (int i = 0; i < V * C; i++) {
        float one = 0, dealt[16] = {0}, total = 0;
        int n = 0;
        for (int t = 0; t < T; t++) {
            if (token[t] != i / C) continue;
            one += dx[t * C + i % C];
            dealt[n++ % 16] += dx[t * C + i % C];
        }
        for (int k = 0; k < 16; k++) {
            total += dealt[k];
        }
        assert_true(got[i] == (n <= 64 ? one : total));
    }
    ops_end(&o);
    free(dx);
    free(zero);
    free(got);
}

/* Tokens outside of the table: a row of zeros, no gradient, and the bit. */
static void bad_tokens_are_faults(backend *be)
{
    static const int32_t bad[] = {3, -1, INT32_MAX, INT32_MIN, -3};
    static const float table[] = {1, 2, 3, 4, 5, 6}, dx[] = {1, 2, 3, 4, 5, 6};
    static const double want[] = {5, 6, 0, 0, 1, 2}, gained[] = {6, 8, 3, 4, 6, 8};
    uint32_t bits = 0;
    float got[6];
    CHECK_OK(be->faults(be, &bits));
    for (int i = 0; i < 10; i++) {
        const int32_t token[] = {2, bad[i / 2], 0};
        ops o = ops_begin(be);
        const tensor w = ops_floats(&o, table, 3, 2), x = ops_output(&o, 3, 2);
        const tensor index = ops_indices(&o, token, 3, 1), g = ops_floats(&o, dx, 3, 2);
        if (i % 2 == 0) {
            CHECK_OK(be->embed(be, x, w, index));
            ops_get(&o, got, x);
            check_close("x", got, want, 6, 0);
        } else {
            CHECK_OK(be->embed_backward(be, w, g, index));
            ops_get(&o, got, w);
            check_close("dtable", got, gained, 6, 0);
        }
        CHECK_OK(be->faults(be, &bits));
        assert_int_equal(bits, FAULT_TOKEN);
        const cudpo_stream stream = ((cuda_backend *)be)->stream;
        CHECK_OK(cuda_embed(x, w, index, (tensor){0}, stream)); /* no word, no report */
        scratch s;
        CHECK_OK(cuda_scratch(&s, (cuda_backend *)be, cuda_embed_backward_scratch(3)));
        CHECK_OK(cuda_embed_backward(w, g, index, s, (tensor){0}, stream));
        CHECK_OK(be->faults(be, &bits));
        assert_int_equal(bits, 0);
        ops_end(&o);
    }
}

static void broken_contracts_of_launchers(backend *be)
{
    static const int32_t two[] = {0, 1};
    const cudpo_stream stream = ((cuda_backend *)be)->stream;
    ops o = ops_begin(be);
    const tensor w = ops_output(&o, 3, 4), x = ops_output(&o, 2, 4), none = {0};
    const tensor token = ops_indices(&o, two, 2, 1), half = ops_output_as(&o, DTYPE_BF16, 2, 4);
    tensor odd = x, overlapping = token;
    odd.data = (char *)x.data + 2;
    overlapping.data = (char *)x.data + 4;
    CHECK_FAILS(cuda_embed(half, w, token, none, stream), CUDPO_EINVAL, "x.type");
    CHECK_FAILS(cuda_embed(odd, w, token, none, stream), CUDPO_EINVAL, "is_matrix(x)");
    CHECK_FAILS(cuda_embed(x, tensor_rows(x, 0, 1), token, none, stream), CUDPO_EINVAL, "disjoint");
    CHECK_FAILS(cuda_embed(x, w, overlapping, none, stream), CUDPO_EINVAL, "disjoint(x, token)");
    CHECK_FAILS(cuda_embed(x, w, token, token, stream), CUDPO_EINVAL, "fault");
    scratch s;
    CHECK_OK(cuda_scratch(&s, (cuda_backend *)be, cuda_embed_backward_scratch(2)));
    const scratch small = {s.data, cuda_embed_backward_scratch(2) - 1}, absent = {NULL, s.bytes};
    const scratch shifted = {(char *)s.data + 8, s.bytes};
    const scratch bad[] = {small, absent, shifted};
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(cuda_embed_backward(w, x, token, bad[i], none, stream), CUDPO_EINVAL,
                    "scratch");
    }
    CHECK_FAILS(cuda_embed_backward(x, x, token, s, none, stream), CUDPO_EINVAL, "dtable, dx");
    overlapping.data = (char *)w.data + 4;
    CHECK_FAILS(cuda_embed_backward(w, x, overlapping, s, none, stream), CUDPO_EINVAL,
                "dtable, token");
    CHECK_FAILS(cuda_embed_backward(w, x, token, s, token, stream), CUDPO_EINVAL, "fault");
    CHECK_FAILS(cuda_embed_backward(w, odd, token, s, none, stream), CUDPO_EINVAL, "dx");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, w);
    ops_end(&o);
}
#endif

static const op_case cases[] = {
    {"three_tokens_by_hand", three_tokens_by_hand},
    {"gradient_by_hand", gradient_by_hand},
    {"widths_and_layouts", widths_and_layouts},
    {"lengths_and_runs", lengths_and_runs},
    {"sums_of_any_numbers", sums_of_any_numbers},
    {"nothing_and_other_strides", nothing_and_other_strides},
    {"ends_of_memory", ends_of_memory},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
#ifdef TEST_CUDA
    {"the_order_of_sums", the_order_of_sums},
    {"bad_tokens_are_faults", bad_tokens_are_faults},
    {"broken_contracts_of_launchers", broken_contracts_of_launchers},
#endif
};
OPS_MAIN(cases)
