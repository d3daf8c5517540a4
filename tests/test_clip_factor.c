/* test_clip_factor.c - the norm of all gradients on the device, and the factor that clips them. */
/* rooms: backend base */
/* backends: cuda */
#include "test_contract.h"

static tensor double_of(ops *o, double x)
{
    const tensor t = ops_make(o, DTYPE_F64, 1, 1, 1);
    ops_put(o, t, &x);
    return t;
}

/* Norm and factor of a sum of squares, and the fault bits. */
static uint32_t run(backend *be, float result[2], double sum, float max_norm)
{
    ops o = ops_begin(be);
    const tensor norm = ops_output(&o, 1, 1), factor = ops_output(&o, 1, 1);
    CHECK_OK(cuda_clip_factor(norm, factor, double_of(&o, sum), max_norm,
                              ((cuda_backend *)be)->fault, stream_of(be)));
    ops_get(&o, &result[0], norm);
    ops_get(&o, &result[1], factor);
    ops_end(&o);
    return faults_of(be);
}

/* Double throughout and one rounding to float at the end, by EPS of the result; the few roundings in double, on either side,
 * are less than a thousandth of that. */
#define ROUNDED(got, want) CHECK_NEAR(got, want, 1.001 * EPS * (want))

static void by_hand(backend *be)
{
    float r[2];
    assert_int_equal(run(be, r, 9.0, 1.0f), 0);
    assert_true(r[0] == 3.0f);
    ROUNDED(r[1], 1 / 3.000001);
    assert_int_equal(run(be, r, 2.0, 0.5f), 0);
    ROUNDED(r[0], 1.4142135623730951);
    ROUNDED(r[1], 0.5 / 1.4142145623730951);
    assert_int_equal(run(be, r, 9.0, 3.0f), 0); /* 3 / 3.000001: torch clips here too */
    ROUNDED(r[1], 1 - 1e-6 / 3.000001);
    assert_true(r[1] < 1.0f);
    assert_int_equal(run(be, r, 9.0, 3.5f), 0);
    assert_true(r[1] == 1.0f);
    assert_int_equal(run(be, r, 9.0, 0.0f), 0); /* 0: nothing is clipped */
    assert_true(r[0] == 3.0f && r[1] == 1.0f);
    assert_int_equal(run(be, r, 0.0, 1.0f), 0);
    assert_true(r[0] == 0.0f && r[1] == 1.0f);
    assert_int_equal(run(be, r, 0.0, 0x1p-23f), 0); /* 2^-23 / 1e-6: the 1e-6 of torch counts */
    ROUNDED(r[1], 0.11920928955078125);
    assert_int_equal(run(be, r, 1e76, 1.0f), 0);
    ROUNDED(r[0], 1e38);
    CHECK_NEAR(r[1], 1e-38, 1.001 * 0x1p-150); /* subnormal: floats are 2^-149 apart */
    const double largest = 0x1.fffffep127;     /* its square is a double */
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
    float got = 0;
    CHECK_OK(cuda_clip_factor(norm, factor, double_of(&o, NAN), 1.0f, (tensor){0}, stream_of(be)));
    ops_get(&o, &got, factor);
    assert_true(isnan(got));
    check_fault(be, 0);
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
    float max_norm = 1;
    ops o = ops_begin(be);
    tensor norm = ops_output(&o, 1, 1), factor = ops_output(&o, 1, 1);
    tensor sum = ops_make(&o, DTYPE_F64, 1, 1, 1), fault = ops_make(&o, DTYPE_I32, 1, 1, 1);
#define CALL cuda_clip_factor(norm, factor, sum, max_norm, fault, stream_of(be))
    CHECK_BROKEN(be, norm, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(norm, 1, 1)");
    CHECK_BROKEN(be, factor, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(factor, 1, 1)");
    CHECK_BROKEN(be, sum, ARG_SHAPE, CALL, "is_typed(sum, DTYPE_F64, 1, 1)");
    CHECK_BROKEN(be, fault, ARG_SHAPE | ARG_OPTIONAL, CALL, "is_fault(fault)");
    CHECK_CHANGED(float, max_norm, -1, CALL, "max_norm >= 0");
    CHECK_CHANGED(float, max_norm, NAN, CALL, "isfinite(max_norm)");
    CHECK_CHANGED(float, max_norm, INFINITY, CALL, "isfinite(max_norm)");
    CHECK_OVERLAP(norm, factor, CALL, "tensor_disjoint(norm, factor)");
    CHECK_OVERLAP(norm, sum, CALL, "tensor_disjoint(norm, sum)");
    CHECK_OVERLAP(norm, fault, CALL, "tensor_disjoint(norm, fault)");
    CHECK_OVERLAP(factor, sum, CALL, "tensor_disjoint(factor, sum)");
    CHECK_OVERLAP(factor, fault, CALL, "tensor_disjoint(factor, fault)");
    CHECK_OVERLAP(sum, fault, CALL, "tensor_disjoint(sum, fault)");
    const tensor second_half = tensor_vector((char *)sum.data + 4, DTYPE_F32, 1);
    CHECK_CHANGED(tensor, norm, second_half, CALL, "tensor_disjoint(norm, sum)");
    CHECK_CHANGED(tensor, factor, second_half, CALL, "tensor_disjoint(factor, sum)");
#undef CALL
    ops_check_untouched(&o, norm);
    ops_check_untouched(&o, factor);
    ops_check_untouched(&o, sum);
    ops_check_untouched(&o, fault);
    ops_end(&o);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"what_is_no_norm_is_a_fault", what_is_no_norm_is_a_fault},
    {"sums_accumulate", sums_accumulate},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
