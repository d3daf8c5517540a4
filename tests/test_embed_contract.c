/* test_embed_contract.c - what embed and its gradient refuse. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 3}, {-1, 0}, {0, INT32_MAX}, {INT32_MIN, 1}};
    static const int32_t good[] = {0, 1};
    const int float_alone = be->on_device ? 0 : ARG_TYPE;
    ops o = ops_begin(be);
    tensor table = ops_output(&o, 3, 4), x = ops_output(&o, 2, 4);
    tensor token = ops_indices(&o, good, 2, 1);
    const tensor half = ops_output_as(&o, DTYPE_BF16, 2, 4), narrow = tensor_cols(x, 0, 3);
#define CALL be->embed(be, x, table, token)
    CHECK_BROKEN(be, table, float_alone, CALL, "is_matrix(table)");
    CHECK_BROKEN(be, x, float_alone, CALL, "is_matrix(x)");
    CHECK_CHANGED(tensor, x, half, CALL, be->on_device ? "x.type == table.type" : "is_matrix(x)");
    CHECK_CHANGED(tensor, x, narrow, CALL, "x.cols == table.cols");
    CHECK_BROKEN(be, token, ARG_SHAPE, CALL, "(token, x.rows, ");
    CHECK_OVERLAP(x, table, CALL, "tensor_disjoint(x, table)");
    CHECK_OVERLAP(x, token, CALL, "tensor_disjoint(x, token)");
#undef CALL
#define CALL be->embed_backward(be, table, x, token)
    CHECK_BROKEN(be, table, float_alone, CALL, "is_matrix(dtable)");
    CHECK_BROKEN(be, x, float_alone, CALL, "is_matrix(dx)");
    CHECK_CHANGED(tensor, x, narrow, CALL, "dx.cols == dtable.cols");
    CHECK_BROKEN(be, token, ARG_SHAPE, CALL, "(token, dx.rows, ");
    CHECK_OVERLAP(table, x, CALL, "tensor_disjoint(dtable, dx)");
    CHECK_OVERLAP(table, token, CALL, "tensor_disjoint(dtable, token)");
#undef CALL
    for (int i = 0; i < 4 && !be->on_device; i++) {
        token = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->embed(be, x, table, token), CUDPO_EINVAL, "is_index(token");
        CHECK_FAILS(be->embed_backward(be, table, x, token), CUDPO_EINVAL, "is_index(token");
    }
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, table);
    ops_end(&o);
}

/* No tokens of a view inside of the table: nothing is written, and nothing overlaps. */
static void empty_views(backend *be)
{
    static const int32_t good[] = {0, 1};
    ops o = ops_begin(be);
    const tensor table = ops_output(&o, 3, 4), none = tensor_rows(table, 1, 0);
    const tensor token = tensor_rows(ops_indices(&o, good, 2, 1), 0, 0);
    CHECK_OK(be->embed(be, none, table, token));
    CHECK_OK(be->embed(be, tensor_rows(table, 3, 0), table, token));
    CHECK_OK(be->embed_backward(be, table, none, token));
    ops_check_untouched(&o, table);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void broken_contracts_of_launchers(backend *be)
{
    const size_t bytes = cuda_embed_backward_scratch(2);
    ops o = ops_begin(be);
    tensor table = ops_roomy(&o, DTYPE_F32, 3, 4, bytes), x = ops_roomy(&o, DTYPE_F32, 2, 4, bytes);
    tensor token = ops_roomy(&o, DTYPE_I32, 2, 1, bytes);
    tensor fault = ops_roomy(&o, DTYPE_I32, 1, 1, bytes);
    scratch s = ops_scratch(&o, bytes);
#define CALL cuda_embed(x, table, token, fault, stream_of(be))
    CHECK_BROKEN(be, fault, ARG_SHAPE | ARG_OPTIONAL, CALL, "is_fault(fault)");
    CHECK_OVERLAP(x, fault, CALL, "tensor_disjoint(x, fault)");
    CHECK_OVERLAP(table, fault, CALL, "tensor_disjoint(table, fault)");
    CHECK_OVERLAP(token, fault, CALL, "tensor_disjoint(token, fault)");
#undef CALL
#define CALL cuda_embed_backward(table, x, token, s, fault, stream_of(be))
    CHECK_BROKEN(be, fault, ARG_SHAPE | ARG_OPTIONAL, CALL, "is_fault(fault)");
    CHECK_OVERLAP(table, fault, CALL, "tensor_disjoint(dtable, fault)");
    CHECK_OVERLAP(x, fault, CALL, "tensor_disjoint(dx, fault)");
    CHECK_OVERLAP(token, fault, CALL, "tensor_disjoint(token, fault)");
    CHECK_SCRATCH(s, bytes, CALL);
    CHECK_OVERLAP(table, s, CALL, "is_apart(s, bytes, dtable)");
    CHECK_OVERLAP(x, s, CALL, "is_apart(s, bytes, dx)");
    CHECK_OVERLAP(token, s, CALL, "is_apart(s, bytes, token)");
    CHECK_OVERLAP(fault, s, CALL, "is_apart(s, bytes, fault)");
    CHECK_CHANGED(tensor, fault, tensor_vector((char *)s.data + bytes - 4, DTYPE_I32, 1), CALL,
                  "is_apart(s, bytes, fault)"); /* its last word */
#undef CALL
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, table);
    ops_check_untouched(&o, fault);
    ops_end(&o);
}

/* Rows and columns that one grid does not cover, or that indices do not count. */
static void more_than_there_can_be(backend *be)
{
    const int64_t warps = (int64_t)INT32_MAX * 8, beyond = (int64_t)INT32_MAX + 1;
    const struct {
        int64_t T, C; /* a warp copies 128 elements or vectors of a row */
        ptrdiff_t shift;
    } wide[] = {{warps + 1, 1, 0},        {warps / 2 + 1, 129, 0}, {warps / 2 + 1, 516, 0},
                {1, warps * 128 + 1, 4},  {1, warps * 512 + 4, 0}, {warps + 1, 512, 0},
                {1, (int64_t)1 << 45, 4}, {1, (int64_t)1 << 45, 0}};
    for (int i = 0; i < 8; i++) {
        const tensor table = imagined(1, DTYPE_F32, 1, wide[i].C);
        const tensor x = moved(imagined(2, DTYPE_F32, wide[i].T, wide[i].C), wide[i].shift);
        CHECK_FAILS(be->embed(be, x, table, imagined(3, DTYPE_I32, wide[i].T, 1)), CUDPO_EINVAL,
                    "gather_fits(x, table)");
    }
    tensor dtable = imagined(1, DTYPE_F32, 3, 4), dx = imagined(2, DTYPE_F32, beyond, 4);
    tensor token = imagined(3, DTYPE_I32, beyond, 1);
    const scratch none = {0};
#define CALL be->embed_backward(be, dtable, dx, token)
    CHECK_FAILS(CALL, CUDPO_EINVAL, "dx.rows <= INT32_MAX");
    dx.rows = token.rows = 2;
    dtable.rows = beyond;
    CHECK_FAILS(CALL, CUDPO_EINVAL, "dtable.rows <= INT32_MAX");
    static const int64_t blocks[][2] = {{1, (int64_t)INT32_MAX * 256 + 1},
                                        {64, (int64_t)INT32_MAX * 256 + 1},
                                        {65, (int64_t)INT32_MAX * 128 + 1},
                                        {INT32_MAX, 64 * 256 + 1},
                                        {1, (int64_t)1 << 44}};
    for (int i = 0; i < 5; i++) {
        dtable = imagined(1, DTYPE_BF16, 3, blocks[i][1]);
        dx = imagined(2, DTYPE_BF16, blocks[i][0], blocks[i][1]);
        token = imagined(3, DTYPE_I32, blocks[i][0], 1);
        CHECK_FAILS(cuda_embed_backward(dtable, dx, token, none, (tensor){0}, stream_of(be)),
                    CUDPO_EINVAL, "blocks_of(dx) <= INT32_MAX");
    }
#undef CALL
    assert_int_equal(cuda_embed_backward_scratch(beyond), 0);
    assert_int_equal(cuda_embed_backward_scratch(beyond - 1), (size_t)(2 * beyond - 1) * 8);
    assert_int_equal(cuda_embed_backward_scratch(INT64_MAX), 0);
    assert_int_equal(cuda_embed_backward_scratch(0), 0);
    assert_int_equal(cuda_embed_backward_scratch(-1), 0);
    assert_int_equal(cuda_embed_backward_scratch(INT64_MIN), 0);
    assert_int_equal(cuda_embed_backward_scratch(1), (1024 + 1) * 8);
    assert_int_equal(cuda_embed_backward_scratch(1025), (2048 + 1025) * 8); /* tiles, and all */
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
