/* test_embed.c - rows of a table by token. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"
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
 * first `shift` elements behind a boundary; all of them, or those of one side alone. */
typedef enum side { BOTH, TABLES, ACTIVATIONS } side;

typedef struct layout {
    bool table_bf16, bf16;
    int pad, shift;
    side only;
} layout;

static const layout layouts[] = {
    {false, false, 0, 0, BOTH},   {false, false, 3, 0, BOTH},
    {false, false, 4, 0, BOTH},   {false, false, 0, 1, BOTH},
    {false, false, 0, 1, TABLES}, {false, false, 0, 1, ACTIVATIONS},
    {true, true, 0, 0, BOTH},     {true, true, 8, 0, BOTH},
    {true, true, 4, 4, BOTH},     {true, true, 1, 3, BOTH},
    {true, false, 0, 0, BOTH},    {false, true, 0, 0, BOTH},
    {true, false, 4, 2, BOTH},    {false, true, 4, 2, BOTH},
    {true, true, 0, 2, TABLES},   {true, true, 0, 2, ACTIVATIONS},
};
enum { DENSE_FLOAT = 0, DENSE_HALF = 6 };

/* The CPU has float alone. */
static int layouts_of(backend *be)
{
    return be->on_device ? 16 : 6;
}

static tensor make(ops *o, bool bf16, const layout *l, side of, const float *host, int64_t rows,
                   int64_t cols)
{
    const bool plain = l->only != BOTH && l->only != of;
    const tensor t = ops_make_at(o, bf16_or_f32(bf16), rows, cols, plain ? cols : cols + l->pad,
                                 plain ? 0 : l->shift);
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
    const tensor to = make(&o, l->bf16, l, ACTIVATIONS, NULL, T, C);
    const tensor grad = make(&o, l->table_bf16, l, TABLES, dtable, V, C);
    CHECK_OK(be->embed(be, to, make(&o, l->bf16, l, TABLES, table, V, C), index));
    CHECK_OK(be->embed_backward(be, grad, make(&o, l->bf16, l, ACTIVATIONS, dx, T, C), index));
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

/* As many rows as a vocabulary of 151,936 has: first and last, and tokens far apart that share their low bits. */
static void a_large_table(backend *be)
{
    enum { T = 40, V = 151936 };
    int32_t token[T];
    for (int t = 0; t < T; t++) {
        token[t] = t % 4 == 0   ? V - 1
                   : t % 4 == 1 ? 0
                   : t % 4 == 2 ? 131072 + 7
                                : (int32_t)rng_below(9, 0, (uint64_t)t, V);
    }
    check_exactly(be, &layouts[DENSE_FLOAT], T, V, 8, token);
    if (be->on_device) check_exactly(be, &layouts[DENSE_HALF], T, V, 8, token);
}

/* A token of n rows gains n additions, each of which rounds a part of the sum of sizes, the table's old element and n of dx;
 * the factor of 1.01 is for products of errors. */
static void sums_of_any_numbers(backend *be)
{
    enum { T = 700, V = 50, C = 33 };
    float *table = random_floats(1, V * C), *dx = random_floats(2, T * C), *got = zeros(V * C, 4);
    double *want = zeros(V * C, 8), *size = zeros(V * C, 8);
    int32_t token[T], rows[V] = {0};
    for (int64_t i = 0; i < V * C; i++) {
        want[i] = (double)table[i];
        size[i] = fabs(want[i]);
    }
    for (int64_t t = 0; t < T; t++) {
        token[t] = (int32_t)rng_below(3, 0, (uint64_t)t, V);
        rows[token[t]]++;
        for (int64_t i = 0; i < C; i++) {
            want[token[t] * C + i] += (double)dx[t * C + i];
            size[token[t] * C + i] += fabs((double)dx[t * C + i]);
        }
    }
    ops o = ops_begin(be);
    const tensor w = ops_strided(&o, table, V, C, C + 3);
    CHECK_OK(
        be->embed_backward(be, w, ops_strided(&o, dx, T, C, C + 2), ops_indices(&o, token, T, 1)));
    ops_get(&o, got, w);
    for (int64_t i = 0; i < V * C; i++) {
        CHECK_NEAR(got[i], want[i], 1.01 * rows[i / C] * EPS * size[i]);
    }
    ops_end(&o);
    free(table);
    free(dx);
    free(got);
    free(want);
    free(size);
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
static void there_and_back(backend *be, tensor x, tensor table, tensor token)
{
    CHECK_OK(be->embed(be, x, table, token));
    CHECK_OK(be->embed_backward(be, table, x, token));
}

static void ends_of_memory(backend *be)
{
    ends_by_index(be, there_and_back);
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
    float got[6];
    (void)faults_of(be);
    for (int i = 0; i < 10; i++) {
        const int32_t token[] = {2, bad[i / 2], 0};
        ops o = ops_begin(be);
        const tensor w = ops_floats(&o, table, 3, 2), x = ops_output(&o, 3, 2), none = {0};
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
        check_fault(be, FAULT_TOKEN);
        CHECK_OK(cuda_embed(x, w, index, none, stream_of(be))); /* no word, no report */
        const scratch s = ops_scratch(&o, cuda_embed_backward_scratch(3));
        CHECK_OK(cuda_embed_backward(w, g, index, s, none, stream_of(be)));
        check_fault(be, 0);
        ops_end(&o);
    }
}
#endif

static const op_case cases[] = {
    {"three_tokens_by_hand", three_tokens_by_hand},
    {"gradient_by_hand", gradient_by_hand},
    {"widths_and_layouts", widths_and_layouts},
    {"lengths_and_runs", lengths_and_runs},
    {"a_large_table", a_large_table},
    {"sums_of_any_numbers", sums_of_any_numbers},
    {"nothing_and_other_strides", nothing_and_other_strides},
    {"ends_of_memory", ends_of_memory},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
#ifdef TEST_CUDA
    {"the_order_of_sums", the_order_of_sums},
    {"bad_tokens_are_faults", bad_tokens_are_faults},
#endif
};
OPS_MAIN(cases)
