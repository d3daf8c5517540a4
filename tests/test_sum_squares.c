/* test_sum_squares.c - the squared norm of a gradient. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"
#include "test_ends.h"

static double run_as(backend *be, dtype type, const float *x, int64_t rows, int64_t cols,
                     int64_t stride, int shift)
{
    double got = NAN;
    ops o = ops_begin(be);
    const tensor t = ops_make_at(&o, type, rows, cols, stride, shift);
    ops_put_floats(&o, t, x);
    CHECK_OK(be->sum_squares(be, &got, t));
    ops_end(&o);
    return got;
}

static double run(backend *be, const float *x, int64_t rows, int64_t cols, int64_t stride)
{
    return run_as(be, DTYPE_F32, x, rows, cols, stride, 0);
}

static double sum_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

/* Relative error of a sum of n squares, which are all positive.  CPU: products are exact in double, and n sums are off by
 * 2^-53 each.  CUDA: 5 roundings to float on the way of a product to the sum of its batch, (1 + EPS)^5 - 1, below
 * 5.001 EPS, and n sums in double at most.  The same n sums make the expected value. */
static double tolerance(backend *be, int64_t n)
{
    return (be->on_device ? 5.001 * EPS : 0) + 2.001 * 0x1p-53 * (double)n;
}

static void by_hand(backend *be)
{
    static const float x[] = {1, -2, 3, 0, 0.5f, 0x1p70f};
    assert_true(run(be, x, 1, 5, 5) == 14.25);
    assert_true(run(be, x, 1, 6, 6) == 0x1p140); /* is no float; 14.25 is nothing beside it */
    assert_true(run(be, x, 0, 5, 5) == 0);
}

/* Every element counts once: powers of two have sums that are exact. */
static void each_element_once(backend *be)
{
    static const int64_t n[] = {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33};
    for (int i = 0; i < 12; i++) {
        for (int64_t at = 0; at < n[i]; at++) {
            float *x = zeros(n[i], sizeof *x);
            x[at] = -16;
            assert_true(run(be, x, 1, n[i], n[i]) == 256);
            if (be->on_device) assert_true(run_as(be, DTYPE_BF16, x, 1, n[i], n[i], 0) == 256);
            free(x);
        }
    }
    for (int i = 0; i < 24;
         i++) { /* around 512 threads of 4 units of 1, 4 or 8 elements, and twice that */
        const int64_t around = 2048 << (i / 6 % 4), count = around + (i % 6 - 1) * (i % 2 ? 1 : 5);
        float *x = zeros(count, sizeof *x);
        for (int64_t j = 0; j < count; j++) {
            x[j] = j % 7 == 0 ? 2 : 1;
        }
        const double want = (double)count + 3.0 * (double)((count + 6) / 7);
        assert_true(run(be, x, 1, count, count) == want);
        assert_true(run_as(be, DTYPE_F32, x, 1, count, count, 1) == want);
        assert_true(run(be, x, count, 1, 1) == want);
        if (be->on_device) {
            assert_true(run_as(be, DTYPE_BF16, x, 1, count, count, 0) == want);
            assert_true(run_as(be, DTYPE_BF16, x, 1, count, count, 4) == want);
        }
        free(x);
    }
}

static void tails_dense_and_strided(backend *be)
{
    static const int64_t n[] = {1,   31,  32,  33,   127,   128,   129,
                                255, 256, 257, 1000, 65535, 65537, 300001};
    for (int i = 0; i < 14; i++) {
        float *x = random_floats(1, n[i]);
        double want = sum_of(x, n[i]);
        CHECK_NEAR(run(be, x, 1, n[i], n[i]), want, tolerance(be, n[i]) * want);
        CHECK_NEAR(run(be, x, n[i], 1, 1), want, tolerance(be, n[i]) * want);
        CHECK_NEAR(run(be, x, n[i], 1, 3), want, tolerance(be, n[i]) * want);
        if (be->on_device) {
            round_to(DTYPE_BF16, x, n[i]);
            want = sum_of(x, n[i]);
            for (int shift = 0; shift < 9; shift += 4) {
                CHECK_NEAR(run_as(be, DTYPE_BF16, x, 1, n[i], n[i], shift), want,
                           tolerance(be, n[i]) * want);
            }
        }
        free(x);
    }
    static const int64_t strides[] = {120, 124, 128, 131}; /* rows of vectors and of elements */
    float *x = random_floats(2, 700 * 120);
    for (int i = 0; i < 4; i++) {
        for (int bf16 = 0; bf16 <= (be->on_device ? 1 : 0); bf16++) {
            round_to(bf16_or_f32(bf16), x, 700 * 120);
            const double want = sum_of(x, 700 * 120);
            CHECK_NEAR(run_as(be, bf16_or_f32(bf16), x, 700, 120, strides[i], 0), want,
                       tolerance(be, 700 * 120) * want);
        }
    }
    free(x);
}

/* More than a grid of 528 blocks reads at once. */
static void a_grid_and_more(backend *be)
{
    enum { R = 1200, C = 1001 };
    float *x = zeros(R * C, sizeof *x);
    for (int64_t i = 0; i < R * C; i++) {
        x[i] = (float)(i % 5);
    }
    const double want = sum_of(x, R * C); /* an integer: exact */
    assert_true(run(be, x, R, C, C + 1) == want);
    assert_true(run_as(be, DTYPE_F32, x, 1, R * C, R * C, 1) == want);
    free(x);
}

/* Squares beyond what a float holds: too large, too small, barely normal. */
static void extremes(backend *be)
{
    static const float sizes[] = {3e38f,  2e19f,  1.6e19f, 1e15f,  1e-12f, 1e-15f, 1.3e-17f, 1e-18f,
                                  1e-19f, 1e-20f, 1e-22f,  1e-23f, 1e-30f, 1e-38f, 1e-42f};
    enum { N = 3000 };
    for (int i = 0; i < 15; i++) {
        for (int bf16 = 0; bf16 <= (be->on_device ? 1 : 0); bf16++) {
            float *x = random_floats(7, N);
            for (int j = 0; j < N; j++) {
                const float part = x[j] / 8 + (x[j] < 0 ? -0.25f : 0.25f);
                x[j] = sizes[i] * (part > 1 ? 1.0f : part < -1 ? -1.0f : part);
            }
            round_to(bf16_or_f32(bf16), x, N);
            const double want = sum_of(x, N);
            CHECK_NEAR(run_as(be, bf16_or_f32(bf16), x, 1, N, N, 0), want, tolerance(be, N) * want);
            x[N / 2] = 1e-3f; /* one that the others are nothing beside */
            round_to(bf16_or_f32(bf16), x, N);
            const double more = sum_of(x, N);
            CHECK_NEAR(run_as(be, bf16_or_f32(bf16), x, 1, N, N, 0), more, tolerance(be, N) * more);
            free(x);
        }
    }
    /* (1 + 2^-12)^2 rounds down by 2^-24: all errors of products have one sign. */
    float x[4096];
    for (int i = 0; i < 4096; i++) {
        x[i] = 1 + 0x1p-12f;
    }
    CHECK_NEAR(run(be, x, 1, 4096, 4096), sum_of(x, 4096), tolerance(be, 4096) * 4098);
}

static void nan_and_inf_come_through(backend *be)
{
    static const int at[] = {0, 1, 511, 512, 777, 995, 998, 999};
    for (int i = 0; i < 8; i++) {
        float *x = random_floats(1, 1000);
        x[at[i]] = NAN;
        assert_true(isnan(run(be, x, 10, 100, 100)));
        assert_true(isnan(run(be, x, 1, 999, 999)) == (at[i] < 999));
        x[at[i]] = -INFINITY;
        assert_true(run(be, x, 10, 100, 107) == INFINITY);
        assert_true(run(be, x, 10, 100, 100) == INFINITY);
        if (be->on_device) {
            assert_true(run_as(be, DTYPE_BF16, x, 10, 100, 100, 0) == INFINITY);
            x[at[i]] = NAN;
            assert_true(isnan(run_as(be, DTYPE_BF16, x, 10, 100, 100, 0)));
        }
        free(x);
    }
}

/* In vectors, and in elements. */
static void run_large(ops *o, float *result)
{
    enum { N = 200003 };
    float *x = random_floats(1, N);
    const double sums[] = {run(o->be, x, 1, N, N), run_as(o->be, DTYPE_F32, x, 1, N, N, 1)};
    memcpy(result, sums, sizeof sums);
    free(x);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 2 * sizeof(double) / sizeof(float));
}

/* Nothing beyond the tensor is read. */
static void ends_of_memory(backend *be)
{
    float *x = random_floats(1, 2049);
    for (int64_t n = 1; n <= 2049; n = n < 40 ? n + 1 : 2 * n - 31) {
        for (int bf16 = 0; bf16 <= (be->on_device ? 1 : 0); bf16++) {
            double got = 0;
            const tensor t = ends_make(be, bf16_or_f32(bf16), 1, n, x);
            CHECK_OK(be->sum_squares(be, &got, t));
            assert_true(got > 0);
            be->free(be, t.data);
        }
    }
    free(x);
}

static void broken_contracts(backend *be)
{
    double untouched = 7;
    ops o = ops_begin(be);
    tensor g = ops_output(&o, 3, 4);
    const int float_alone = be->on_device ? 0 : ARG_TYPE;
    CHECK_FAILS(be->sum_squares(be, NULL, g), CUDPO_EINVAL, "host_out");
    CHECK_BROKEN(be, g, float_alone, be->sum_squares(be, &untouched, g), "is_matrix(g)");
    assert_true(untouched == 7);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void broken_contracts_of_the_launcher(backend *be)
{
    const size_t bytes = cuda_sum_squares_scratch();
    ops o = ops_begin(be);
    tensor g = ops_roomy(&o, DTYPE_F32, 3, 4, bytes), sum = ops_roomy(&o, DTYPE_F64, 1, 1, bytes);
    scratch s = ops_scratch(&o, bytes);
#define CALL cuda_sum_squares(sum, g, s, stream_of(be))
    CHECK_BROKEN(be, sum, ARG_SHAPE, CALL, "is_typed(sum, DTYPE_F64, 1, 1)");
    CHECK_BROKEN(be, g, 0, CALL, "is_matrix(g)");
    CHECK_OVERLAP(sum, g, CALL, "tensor_disjoint(sum, g)");
    CHECK_SCRATCH(s, bytes, CALL);
    CHECK_OVERLAP(sum, s, CALL, "is_apart(s, bytes, sum)");
    CHECK_OVERLAP(g, s, CALL, "is_apart(s, bytes, g)");
    ops_check_untouched(&o, sum);
    const tensor behind = tensor_vector((char *)s.data + bytes - 8, DTYPE_F64, 1);
    CHECK_FAILS(cuda_sum_squares(behind, g, s, stream_of(be)), CUDPO_EINVAL, "bytes, sum");
    CHECK_OK(cuda_sum_squares(moved(behind, 8), g, s, stream_of(be))); /* as the backend does */
    CHECK_OK(cuda_sum_squares(sum, tensor_rows(g, 0, 0), s, stream_of(be)));
    ops_check_untouched(&o, sum);
    ops_check_untouched(&o, g);
    ops_end(&o);
#undef CALL
}
#endif

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"each_element_once", each_element_once},
    {"tails_dense_and_strided", tails_dense_and_strided},
    {"a_grid_and_more", a_grid_and_more},
    {"extremes", extremes},
    {"nan_and_inf_come_through", nan_and_inf_come_through},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
    {"ends_of_memory", ends_of_memory},
    {"broken_contracts", broken_contracts},
#ifdef TEST_CUDA
    {"broken_contracts_of_the_launcher", broken_contracts_of_the_launcher},
#endif
};
OPS_MAIN(cases)
