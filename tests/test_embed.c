/* test_embed.c - rows of a table by token. */
/* rooms: backend base */
#include "test_ops.h"

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

enum { V = 50, T = 700 };

/* Sums of up to 30 floats in order: every one of them rounds the sum, of size below 32, once. */
static void check_width(backend *be, int64_t C)
{
    float *table = random_floats(1, V * C), *dx = random_floats(2, T * C);
    float *got = zeros(T * C, 4), *dgot = zeros(V * C, 4);
    double *want = zeros(T * C, 8), *dwant = zeros(V * C, 8);
    int32_t token[T];
    for (int64_t i = 0; i < V * C; i++) {
        dwant[i] = (double)table[i];
    }
    for (int64_t t = 0; t < T; t++) {
        token[t] = (int32_t)rng_below(3, 0, (uint64_t)t, V);
        for (int64_t i = 0; i < C; i++) {
            want[t * C + i] = (double)table[token[t] * C + i];
            dwant[token[t] * C + i] += (double)dx[t * C + i];
        }
    }
    ops o = ops_begin(be);
    const tensor w = ops_strided(&o, table, V, C, C + 3), x = ops_strided(&o, NULL, T, C, C + 1);
    const tensor index = ops_indices(&o, token, T, 1);
    CHECK_OK(be->embed(be, x, w, index));
    CHECK_OK(be->embed_backward(be, w, ops_strided(&o, dx, T, C, C + 2), index));
    ops_get(&o, got, x);
    ops_get(&o, dgot, w);
    check_close("x", got, want, T * C, 0);
    check_close("dtable", dgot, dwant, V * C, 30 * 32 * EPS);
    ops_end(&o);
    free(table);
    free(dx);
    free(got);
    free(dgot);
    free(want);
    free(dwant);
}

static void tails(backend *be)
{
    static const int64_t widths[] = {1, 31, 32, 33, 63, 64, 65, 255, 256, 257};
    for (int i = 0; i < 10; i++) {
        check_width(be, widths[i]);
    }
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 3}, {-1, 0}, {0, INT32_MAX}, {INT32_MIN, 1}};
    ops o = ops_begin(be);
    const tensor table = ops_output(&o, 3, 4), x = ops_output(&o, 2, 4);
    for (int i = 0; i < 4; i++) {
        const tensor token = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->embed(be, x, table, token), CUDPO_EINVAL, "is_index");
        CHECK_FAILS(be->embed_backward(be, table, x, token), CUDPO_EINVAL, "is_index");
    }
    const int32_t good[3] = {0, 1, 2};
    const tensor token = ops_indices(&o, good, 3, 1), narrow = tensor_cols(x, 0, 3);
    CHECK_FAILS(be->embed(be, x, table, token), CUDPO_EINVAL, "is_index");
    CHECK_FAILS(be->embed(be, narrow, table, tensor_rows(token, 0, 2)), CUDPO_EINVAL, "is_f32");
    CHECK_FAILS(be->embed(be, x, table, x), CUDPO_EINVAL, "is_index");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, table);
    ops_end(&o);
}

static void run_large(ops *o, float *result)
{
    enum { C = 200 };
    float *table = random_floats(1, V * C), *dx = random_floats(2, T * C);
    int32_t token[T];
    for (int t = 0; t < T; t++) {
        token[t] = (int32_t)rng_below(3, 0, (uint64_t)t, V);
    }
    const tensor w = ops_floats(o, table, V, C);
    CHECK_OK(o->be->embed_backward(o->be, w, ops_floats(o, dx, T, C), ops_indices(o, token, T, 1)));
    ops_get(o, result, w);
    free(table);
    free(dx);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, V * 200);
}

static const op_case cases[] = {
    {"three_tokens_by_hand", three_tokens_by_hand},
    {"gradient_by_hand", gradient_by_hand},
    {"tails", tails},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
