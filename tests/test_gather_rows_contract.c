/* test_gather_rows_contract.c - what gathering, scattering and scaling of rows refuse. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"

static const int32_t two[] = {0, 2};

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 3}, {-1, 0}, {0, INT32_MAX}, {INT32_MIN, 1}};
    const int float_alone = be->on_device ? 0 : ARG_TYPE;
    ops o = ops_begin(be);
    tensor x = ops_output(&o, 3, 4), row = ops_output(&o, 2, 4), scale = ops_output(&o, 2, 1);
    tensor index = ops_indices(&o, two, 2, 1);
    const tensor half = ops_output_as(&o, DTYPE_BF16, 2, 4), narrow = tensor_cols(row, 0, 3);
#define CALL be->gather_rows(be, row, x, index)
    CHECK_BROKEN(be, x, float_alone, CALL, "is_matrix(x)");
    CHECK_BROKEN(be, row, float_alone, CALL, "is_matrix(out)");
    CHECK_CHANGED(tensor, row, half, CALL, be->on_device ? "out.type == x.type" : "is_matrix(out)");
    CHECK_CHANGED(tensor, row, narrow, CALL, "out.cols == x.cols");
    CHECK_BROKEN(be, index, ARG_SHAPE, CALL, "(index, out.rows, ");
    CHECK_OVERLAP(row, x, CALL, "tensor_disjoint(out, x)");
    CHECK_OVERLAP(row, index, CALL, "tensor_disjoint(out, index)");
#undef CALL
#define CALL be->scatter_rows(be, x, row, index, scale)
    CHECK_BROKEN(be, x, float_alone, CALL, "is_matrix(dx)");
    CHECK_BROKEN(be, row, float_alone, CALL, "is_matrix(drow)");
    CHECK_CHANGED(tensor, row, half, CALL,
                  be->on_device ? "drow.type == dx.type" : "is_matrix(drow)");
    CHECK_CHANGED(tensor, row, narrow, CALL, "drow.cols == dx.cols");
    CHECK_BROKEN(be, index, ARG_SHAPE, CALL, "(index, drow.rows, ");
    CHECK_BROKEN(be, scale, ARG_SHAPE | ARG_TYPE | ARG_OPTIONAL, CALL,
                 "is_f32(scale, drow.rows, 1)");
    CHECK_OVERLAP(x, row, CALL, "tensor_disjoint(dx, drow)");
    CHECK_OVERLAP(x, index, CALL, "tensor_disjoint(dx, index)");
    CHECK_OVERLAP(x, scale, CALL, "tensor_disjoint(dx, scale)");
#undef CALL
#define CALL be->scale_rows(be, row, scale)
    CHECK_BROKEN(be, row, float_alone, CALL, "is_matrix(x)");
    CHECK_BROKEN(be, scale, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(scale, x.rows, 1)");
    CHECK_OVERLAP(row, scale, CALL, "tensor_disjoint(x, scale)");
#undef CALL
    for (int i = 0; i < 4 && !be->on_device; i++) {
        index = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->gather_rows(be, row, x, index), CUDPO_EINVAL, "is_index(index");
        CHECK_FAILS(be->scatter_rows(be, x, row, index, scale), CUDPO_EINVAL, "is_index(index");
    }
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, row);
    ops_check_untouched(&o, scale);
    ops_end(&o);
}

/* No rows, of a view inside of another operand: nothing is written, and nothing overlaps; but scattering none sets all of dx
 * to zeros. */
static void empty_views(backend *be)
{
    float got[12];
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 4), no_scale = {0};
    const tensor index = tensor_rows(ops_indices(&o, two, 2, 1), 1, 0);
    for (int r = 0; r <= 3; r++) {
        const tensor none = tensor_rows(x, r, 0);
        CHECK_OK(be->gather_rows(be, none, x, index));
        CHECK_OK(be->scatter_rows(be, none, none, index, no_scale));
        CHECK_OK(be->scale_rows(be, none, tensor_cols(none, 1, 1)));
    }
    ops_check_untouched(&o, x);
    CHECK_OK(be->scatter_rows(be, x, tensor_rows(x, 1, 0), index, no_scale));
    ops_get(&o, got, x);
    for (int i = 0; i < 12; i++) {
        assert_true(got[i] == 0);
    }
    ops_end(&o);
}

#ifdef TEST_CUDA
static void broken_contracts_of_launchers(backend *be)
{
    const size_t bytes = cuda_scatter_rows_scratch(2);
    ops o = ops_begin(be);
    tensor x = ops_roomy(&o, DTYPE_F32, 3, 4, bytes), row = ops_roomy(&o, DTYPE_F32, 2, 4, bytes);
    tensor index = ops_roomy(&o, DTYPE_I32, 2, 1, bytes);
    tensor scale = ops_roomy(&o, DTYPE_F32, 2, 1, bytes);
    tensor fault = ops_roomy(&o, DTYPE_I32, 1, 1, bytes);
    scratch s = ops_scratch(&o, bytes);
#define CALL cuda_gather_rows(row, x, index, fault, stream_of(be))
    CHECK_BROKEN(be, fault, ARG_SHAPE | ARG_OPTIONAL, CALL, "is_fault(fault)");
    CHECK_OVERLAP(row, fault, CALL, "tensor_disjoint(out, fault)");
    CHECK_OVERLAP(x, fault, CALL, "tensor_disjoint(x, fault)");
    CHECK_OVERLAP(index, fault, CALL, "tensor_disjoint(index, fault)");
#undef CALL
#define CALL cuda_scatter_rows(x, row, index, scale, s, fault, stream_of(be))
    CHECK_BROKEN(be, fault, ARG_SHAPE | ARG_OPTIONAL, CALL, "is_fault(fault)");
    CHECK_OVERLAP(x, fault, CALL, "tensor_disjoint(dx, fault)");
    CHECK_OVERLAP(row, fault, CALL, "tensor_disjoint(drow, fault)");
    CHECK_OVERLAP(index, fault, CALL, "tensor_disjoint(index, fault)");
    CHECK_OVERLAP(scale, fault, CALL, "tensor_disjoint(scale, fault)");
    CHECK_SCRATCH(s, bytes, CALL);
    CHECK_OVERLAP(x, s, CALL, "is_apart(s, bytes, dx)");
    CHECK_OVERLAP(row, s, CALL, "is_apart(s, bytes, drow)");
    CHECK_OVERLAP(index, s, CALL, "is_apart(s, bytes, index)");
    CHECK_OVERLAP(scale, s, CALL, "is_apart(s, bytes, scale)");
    CHECK_OVERLAP(fault, s, CALL, "is_apart(s, bytes, fault)");
#undef CALL
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, row);
    ops_check_untouched(&o, scale);
    ops_check_untouched(&o, fault);
    ops_end(&o);
}

/* Rows and columns that one grid does not cover, or that indices do not count. */
static void more_than_there_can_be(backend *be)
{
    const int64_t warps = (int64_t)INT32_MAX * 8, beyond = (int64_t)INT32_MAX + 1;
    const struct {
        int64_t R,
            C; /* a warp copies 128 elements or vectors of a row, and scales 128 elements or quads */
        ptrdiff_t shift;
    } wide[] = {{warps + 1, 1, 0},        {warps / 2 + 1, 129, 0}, {warps / 2 + 1, 516, 0},
                {1, warps * 128 + 1, 4},  {1, warps * 512 + 4, 0}, {warps + 1, 512, 0},
                {1, (int64_t)1 << 45, 4}, {1, (int64_t)1 << 45, 0}};
    for (int i = 0; i < 8; i++) {
        const tensor x = imagined(1, DTYPE_F32, 1, wide[i].C);
        const tensor out = moved(imagined(2, DTYPE_F32, wide[i].R, wide[i].C), wide[i].shift);
        CHECK_FAILS(be->gather_rows(be, out, x, imagined(3, DTYPE_I32, wide[i].R, 1)), CUDPO_EINVAL,
                    "gather_fits(out, x)");
        CHECK_FAILS(be->scale_rows(be, out, imagined(3, DTYPE_F32, wide[i].R, 1)), CUDPO_EINVAL,
                    "fits_grid(x.rows");
    }
    tensor dx = imagined(1, DTYPE_F32, 3, 4), drow = imagined(2, DTYPE_F32, beyond, 4);
    tensor index = imagined(3, DTYPE_I32, beyond, 1);
    CHECK_FAILS(be->scatter_rows(be, dx, drow, index, (tensor){0}), CUDPO_EINVAL,
                "drow.rows <= INT32_MAX");
    dx.rows = beyond;
    drow.rows = index.rows = 2;
    CHECK_FAILS(be->scatter_rows(be, dx, drow, index, (tensor){0}), CUDPO_EINVAL,
                "dx.rows <= INT32_MAX");
    assert_int_equal(cuda_scatter_rows_scratch(beyond), 0);
    assert_int_equal(cuda_scatter_rows_scratch(INT64_MAX), 0);
    assert_int_equal(cuda_scatter_rows_scratch(0), 0);
    assert_int_equal(cuda_scatter_rows_scratch(-1), 0);
    assert_int_equal(cuda_scatter_rows_scratch(INT64_MIN), 0);
}
#endif

static const op_case cases[] = {
    {"broken_contracts", broken_contracts},
    {"empty_views", empty_views},
#ifdef TEST_CUDA
    {"broken_contracts_of_launchers", broken_contracts_of_launchers},
    {"more_than_there_can_be", more_than_there_can_be},
#endif
};
OPS_MAIN(cases)
