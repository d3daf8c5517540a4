/* test_clip_factor.c - the norm of all gradients on the device, and the factor that clips them. */
/* rooms: backend base */
/* backends: cuda */
#include "test_ops.h"
#include "backend/cuda/ops.h"

static cudpo_stream stream_of(backend *be)
{
    return ((cuda_backend *)be)->stream;
}

static tensor double_of(ops *o, double x)
{
    const tensor t = ops_make(o, DTYPE_F64, 1, 1, 1);
    ops_put(o, t, &x);
    return t;
}

/* Norm and factor of a sum of squares, and the fault bits. */
static uint32_t run(backend *be, float result[2], double sum, float max_norm)
{
    uint32_t bits = 0;
    ops o = ops_begin(be);
    const tensor norm = ops_output(&o, 1, 1), factor = ops_output(&o, 1, 1);
    CHECK_OK(cuda_clip_factor(norm, factor, double_of(&o, sum), max_norm,
                              ((cuda_backend *)be)->fault, stream_of(be)));
    ops_get(&o, &result[0], norm);
    ops_get(&o, &result[1], factor);
    CHECK_OK(be->faults(be, &bits));
    ops_end(&o);
    return bits;
}

/* Double throughout and one rounding to float at the end: half a unit of each result. */
static void by_hand(backend *be)
{
    float r[2];
    assert_int_equal(run(be, r, 9.0, 1.0f), 0);
    assert_true(r[0] == 3.0f);
    CHECK_NEAR(r[1], 1 / 3.000001, EPS / 3);
    assert_int_equal(run(be, r, 2.0, 0.5f), 0);
    CHECK_NEAR(r[0], 1.4142135623730951, 2 * EPS);
    CHECK_NEAR(r[1], 0.5 / 1.4142145623730951, EPS);
    assert_int_equal(run(be, r, 9.0, 3.0f), 0); /* 3 / 3.000001: torch clips here too */
    CHECK_NEAR(r[1], 1 - 1e-6 / 3.000001, EPS);
    assert_true(r[1] < 1.0f);
    assert_int_equal(run(be, r, 9.0, 3.5f), 0);
    assert_true(r[1] == 1.0f);
    assert_int_equal(run(be, r, 9.0, 0.0f), 0); /* 0: nothing is clipped */
    assert_true(r[0] == 3.0f && r[1] == 1.0f);
    assert_int_equal(run(be, r, 0.0, 1.0f), 0);
    assert_true(r[0] == 0.0f && r[1] == 1.0f);
    assert_int_equal(run(be, r, 0.0, 1e-7f), 0); /* 1e-7 / 1e-6: the 1e-6 of torch counts */
    CHECK_NEAR(r[1], 0.1, 2e-8);
    assert_int_equal(run(be, r, 1e76, 1.0f), 0);
    CHECK_NEAR(r[0] * 1e-38, 1, 2 * EPS);
    CHECK_NEAR(r[1] * 1e38, 1, 1e-6);
    const double largest = 0x1.fffffep127; /* its square is a double */
    assert_int_equal(run(be, r, largest * largest, 0.0f), 0);
    assert_true(r[0] == 0x1.fffffep127f && r[1] == 1.0f);
}

static void what_is_no_norm_is_a_fault(backend *be)
{
    static const double sums[] = {NAN, INFINITY, -INFINITY, -1, 1e78};
    float r[2];
    for (int i = 0; i < 10; i++) {
        assert_int_equal(run(be, r, sums[i / 2], i % 2 ? 1.0f : 0.0f), FAULT_NONFINITE);
        assert_true(!isfinite(r[0]) && isnan(r[1]));
    }
    ops o = ops_begin(be); /* no word, no report */
    const tensor norm = ops_output(&o, 1, 1), factor = ops_output(&o, 1, 1);
    uint32_t bits = 0;
    float got = 0;
    CHECK_OK(cuda_clip_factor(norm, factor, double_of(&o, NAN), 1.0f, (tensor){0}, stream_of(be)));
    ops_get(&o, &got, factor);
    assert_true(isnan(got));
    CHECK_OK(be->faults(be, &bits));
    assert_int_equal(bits, 0);
    ops_end(&o);
}

/* Sums of several tensors in one word, in the order of calls. */
static void sums_accumulate(backend *be)
{
    static const float a[] = {1, 2, 3}, b[] = {4, 0.5f};
    double got = 0;
    ops o = ops_begin(be);
    const tensor sum = double_of(&o, 100), x = ops_floats(&o, a, 1, 3);
    const tensor y = ops_floats_as(&o, DTYPE_BF16, b, 2, 1);
    scratch s;
    CHECK_OK(cuda_scratch(&s, (cuda_backend *)be, cuda_sum_squares_scratch()));
    CHECK_OK(cuda_sum_squares(sum, x, s, stream_of(be)));
    CHECK_OK(cuda_sum_squares(sum, y, s, stream_of(be)));
    CHECK_OK(cuda_sum_squares(sum, tensor_rows(x, 0, 0), s, stream_of(be)));
    ops_get(&o, &got, sum);
    assert_true(got == 100 + 14 + 16.25);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    const cudpo_stream stream = stream_of(be);
    ops o = ops_begin(be);
    const tensor norm = ops_output(&o, 1, 1), factor = ops_output(&o, 1, 1), none = {0};
    const tensor sum = ops_make(&o, DTYPE_F64, 1, 1, 1), x = ops_output(&o, 2, 4);
    tensor in_sum = norm, in_x = sum, odd = x;
    in_sum.data = (char *)sum.data + 4;
    in_x.data = (char *)x.data + 8;
    odd.data = (char *)x.data + 2;
    CHECK_FAILS(cuda_clip_factor(none, factor, sum, 1, none, stream), CUDPO_EINVAL, "norm");
    CHECK_FAILS(cuda_clip_factor(norm, none, sum, 1, none, stream), CUDPO_EINVAL, "factor");
    CHECK_FAILS(cuda_clip_factor(norm, factor, x, 1, none, stream), CUDPO_EINVAL, "sum");
    CHECK_FAILS(cuda_clip_factor(norm, factor, sum, -1, none, stream), CUDPO_EINVAL, "max_norm");
    CHECK_FAILS(cuda_clip_factor(norm, factor, sum, NAN, none, stream), CUDPO_EINVAL, "max_norm");
    CHECK_FAILS(cuda_clip_factor(norm, factor, sum, INFINITY, none, stream), CUDPO_EINVAL,
                "max_norm");
    CHECK_FAILS(cuda_clip_factor(norm, factor, sum, 1, x, stream), CUDPO_EINVAL, "fault");
    CHECK_FAILS(cuda_clip_factor(norm, norm, sum, 1, none, stream), CUDPO_EINVAL, "norm, factor");
    CHECK_FAILS(cuda_clip_factor(in_sum, factor, sum, 1, none, stream), CUDPO_EINVAL, "norm, sum");
    CHECK_FAILS(cuda_clip_factor(norm, in_sum, sum, 1, none, stream), CUDPO_EINVAL, "factor, sum");
    scratch s;
    CHECK_OK(cuda_scratch(&s, (cuda_backend *)be, cuda_sum_squares_scratch()));
    const scratch small = {s.data, cuda_sum_squares_scratch() - 1}, absent = {NULL, s.bytes};
    const scratch shifted = {(char *)s.data + 8, s.bytes};
    CHECK_FAILS(cuda_sum_squares(sum, x, small, stream), CUDPO_EINVAL, "s.bytes");
    CHECK_FAILS(cuda_sum_squares(sum, x, absent, stream), CUDPO_EINVAL, "s.data");
    CHECK_FAILS(cuda_sum_squares(sum, x, shifted, stream), CUDPO_EINVAL, "s.data");
    CHECK_FAILS(cuda_sum_squares(norm, x, s, stream), CUDPO_EINVAL, "sum");
    CHECK_FAILS(cuda_sum_squares(sum, odd, s, stream), CUDPO_EINVAL, "is_matrix(g)");
    CHECK_FAILS(cuda_sum_squares(in_x, x, s, stream), CUDPO_EINVAL, "sum, g");
    ops_check_untouched(&o, norm);
    ops_check_untouched(&o, factor);
    ops_check_untouched(&o, sum);
    ops_end(&o);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"what_is_no_norm_is_a_fault", what_is_no_norm_is_a_fault},
    {"sums_accumulate", sums_accumulate},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
