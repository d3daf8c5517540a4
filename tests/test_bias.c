/* test_bias.c - the bias of a linear layer, and the sum of two matrices. */
/* rooms: backend base */
#include "test_ops.h"

static void by_hand(backend *be)
{
    static const float x[] = {1, 2, 3, 4}, bias[] = {10, 20};
    static const double want[] = {11, 22, 13, 24}, want_bias[] = {10 + 24, 20 + 46};
    float got[4];
    ops o = ops_begin(be);
    const tensor tx = ops_floats(&o, x, 2, 2), tb = ops_floats(&o, bias, 1, 2);
    CHECK_OK(be->bias_add(be, tx, tb));
    ops_get(&o, got, tx);
    check_close("x", got, want, 4, 0);
    CHECK_OK(be->bias_backward(be, tb, tx));
    ops_get(&o, got, tb);
    check_close("dbias", got, want_bias, 2, 0);
    ops_end(&o);
}

/* The slope of sum(dx * (x + bias)) in bias[i] is the sum of column i of dx. */
static void check_size(backend *be, int64_t T, int64_t N)
{
    float *x = random_floats(1, T * N), *bias = random_floats(2, N), *y = random_floats(3, T * N);
    float *got = zeros(T * N, 4), *dbias = zeros(N, 4);
    double *want = zeros(T * N, 8), *want_bias = zeros(N, 8);
    for (int64_t i = 0; i < T * N; i++) {
        want[i] = (double)x[i] + (double)bias[i % N];
    }
    for (int64_t i = 0; i < T * N; i++) {
        want_bias[i % N] += (double)y[i] + (i < N ? (double)bias[i] : 0.0);
    }
    ops o = ops_begin(be);
    const tensor tx = ops_strided(&o, x, T, N, N + 3), tb = ops_floats(&o, bias, 1, N);
    const tensor ty = ops_strided(&o, y, T, N, N + 1);
    CHECK_OK(be->bias_add(be, tx, tb));
    ops_get(&o, got, tx);
    check_close("x", got, want, T * N, 8 * EPS);
    CHECK_OK(be->bias_backward(be, tb, ty));
    ops_get(&o, dbias, tb);
    check_close("dbias", dbias, want_bias, N, (8 + 5 * sqrt((double)T)) * EPS);
    CHECK_OK(be->add(be, ty, tx));
    for (int64_t i = 0; i < T * N; i++) {
        want[i] = (double)y[i] + (double)got[i];
    }
    ops_get(&o, got, ty);
    check_close("sum", got, want, T * N, 16 * EPS);
    ops_end(&o);
    free(x);
    free(bias);
    free(y);
    free(got);
    free(dbias);
    free(want);
    free(want_bias);
}

static void tails(backend *be)
{
    static const int64_t tail[] = {1, 31, 32, 33, 255, 256, 257};
    for (int i = 0; i < 7; i++) {
        check_size(be, tail[i], tail[6 - i]);
        check_size(be, 300, tail[i]);
    }
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 4), b = ops_output(&o, 1, 4), c = ops_output(&o, 1, 3);
    CHECK_FAILS(be->bias_add(be, x, c), CUDPO_EINVAL, "bias");
    CHECK_FAILS(be->bias_add(be, x, x), CUDPO_EINVAL, "bias");
    CHECK_FAILS(be->bias_backward(be, c, x), CUDPO_EINVAL, "dbias");
    CHECK_FAILS(be->add(be, x, b), CUDPO_EINVAL, "is_f32");
    CHECK_FAILS(be->add(be, (tensor){0}, b), CUDPO_EINVAL, "is_matrix");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, c);
    ops_end(&o);
}

enum { LT = 500, LN = 200 };

static void run_large(ops *o, float *result)
{
    float *dx = random_floats(1, LT * LN), *dbias = random_floats(2, LN);
    const tensor b = ops_floats(o, dbias, 1, LN);
    CHECK_OK(o->be->bias_backward(o->be, b, ops_floats(o, dx, LT, LN)));
    ops_get(o, result, b);
    free(dx);
    free(dbias);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, LN);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"tails", tails},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
