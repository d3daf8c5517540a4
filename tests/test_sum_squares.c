/* test_sum_squares.c - the squared norm of a gradient. */
/* rooms: backend base */
#include "test_ops.h"

static double run(backend *be, const float *x, int64_t rows, int64_t cols, int64_t stride)
{
    double got = NAN;
    ops o = ops_begin(be);
    CHECK_OK(be->sum_squares(be, &got, ops_strided(&o, x, rows, cols, stride)));
    ops_end(&o);
    return got;
}

static void by_hand(backend *be)
{
    static const float x[] = {1, -2, 3, 0, 0.5f, 1e20f};
    assert_true(run(be, x, 1, 5, 5) == 14.25);
    CHECK_NEAR(run(be, x, 1, 6, 6) * 1e-40, 1.0, 1e-6); /* 1e40 is no float */
}

/* Sums in double of n terms: off by n * 2^-53 of the sum at most. */
static void tails_dense_and_strided(backend *be)
{
    static const int64_t n[] = {1, 31, 32, 33, 255, 256, 257, 65535, 65537, 300001};
    for (int i = 0; i < 10; i++) {
        float *x = random_floats(1, n[i]);
        double want = 0;
        for (int64_t j = 0; j < n[i]; j++) {
            want += (double)x[j] * (double)x[j];
        }
        CHECK_NEAR(run(be, x, 1, n[i], n[i]), want, 1e-10 * want);
        CHECK_NEAR(run(be, x, n[i], 1, 1), want, 1e-10 * want);
        CHECK_NEAR(run(be, x, n[i], 1, 3), want, 1e-10 * want);
        free(x);
    }
    float *x = random_floats(2, 700 * 120);
    CHECK_NEAR(run(be, x, 700, 120, 131), run(be, x, 1, 700 * 120, 700 * 120), 1e-6);
    free(x);
}

static void nan_and_inf_come_through(backend *be)
{
    float *x = random_floats(1, 1000);
    x[777] = NAN;
    assert_true(isnan(run(be, x, 10, 100, 100)));
    x[777] = INFINITY;
    assert_true(run(be, x, 10, 100, 107) == INFINITY);
    free(x);
}

static void same_bits_with_any_threads(backend *be)
{
    enum { N = 200003 };
    float *x = random_floats(1, N);
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    const double first = run(be, x, 1, N, N);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        assert_true(run(be, x, 1, N, N) == first);
    }
    omp_set_num_threads(before);
    free(x);
}

static void broken_contracts(backend *be)
{
    double untouched = 7;
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 4), ints = ops_make(&o, DTYPE_I32, 3, 4, 4);
    CHECK_FAILS(be->sum_squares(be, NULL, x), CUDPO_EINVAL, "host_out");
    CHECK_FAILS(be->sum_squares(be, &untouched, ints), CUDPO_EINVAL, "is_matrix");
    CHECK_FAILS(be->sum_squares(be, &untouched, (tensor){0}), CUDPO_EINVAL, "is_matrix");
    assert_true(untouched == 7);
    ops_end(&o);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"tails_dense_and_strided", tails_dense_and_strided},
    {"nan_and_inf_come_through", nan_and_inf_come_through},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
