/* test_rmsnorm_contract.c - what RMSNorm's ops refuse, and that they do nothing where there are no rows. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

enum { T = 3, C = 4 };

typedef struct forward_call {
    tensor y, rstd, sum, x, branch, w;
    float epsilon;
} forward_call;

static cudpo_status forward(backend *be, const void *arguments)
{
    const forward_call *c = arguments;
    return be->add_rmsnorm(be, c->y, c->rstd, c->sum, c->x, c->branch, c->w, c->epsilon);
}

static void forward_refusals(backend *be)
{
    ops o = ops_begin(be);
    forward_call c = {.y = ops_output(&o, T, C),
                      .rstd = ops_output(&o, T, 1),
                      .sum = ops_output(&o, T, C),
                      .x = ops_output(&o, T, C),
                      .branch = ops_output(&o, T, C),
                      .w = ops_output(&o, 1, C),
                      .epsilon = 0.1f};
    const operand operands[] = {{"y", &c.y, "is_like(y, x)", OUTPUT},
                                {"rstd", &c.rstd, "is_f32(rstd, ", OUTPUT},
                                {"sum", &c.sum, "is_like(sum, x)", OUTPUT},
                                {"x", &c.x, "is_matrix(x)", ANY_ROWS | ANY_COLS | ANY_FLOAT},
                                {"branch", &c.branch, "is_like(branch, x)", OPTIONAL},
                                {"w", &c.w, "(w, ", 0}};
    const refusals r = {&o, forward, &c, operands, 6};
    static const float bad[] = {-1.0f, -0x1p-149f, INFINITY, NAN};
    check_refusals(&r);
    for (int i = 0; i < 4; i++) {
        c.epsilon = bad[i];
        refusals_check(&r, "epsilon", "value", "isfinite(epsilon)", "isfinite(epsilon)");
    }
    c.epsilon = 0.1f;
    c.branch = c.sum = c.x; /* either alone may be x */
    refusals_check(&r, "branch", "is sum", "tensor_disjoint(sum, branch)", "?");
    ops_end(&o);
}

typedef struct backward_call {
    tensor dx, dw, dy, x, rstd, w;
} backward_call;

static cudpo_status backward(backend *be, const void *arguments)
{
    const backward_call *c = arguments;
    return be->rmsnorm_backward(be, c->dx, c->dw, c->dy, c->x, c->rstd, c->w);
}

static backward_call backward_good(ops *o)
{
    return (backward_call){.dx = ops_output(o, T, C),
                           .dw = ops_output(o, 1, C),
                           .dy = ops_output(o, T, C),
                           .x = ops_output(o, T, C),
                           .rstd = ops_output(o, T, 1),
                           .w = ops_output(o, 1, C)};
}

static void backward_refusals(backend *be)
{
    ops o = ops_begin(be);
    backward_call c = backward_good(&o);
    const operand operands[] = {
        {"dx", &c.dx, "is_like(dx, x)", OUTPUT},
        {"dw", &c.dw, "(dw, 1, x.cols)", OUTPUT | (be->on_device ? ANY_FLOAT : 0)},
        {"dy", &c.dy, "is_like(dy, x)", 0},
        {"x", &c.x, "is_matrix(x)", ANY_ROWS | ANY_COLS | ANY_FLOAT},
        {"rstd", &c.rstd, "is_f32(rstd, ", 0},
        {"w", &c.w, "(w, ", 0}};
    const refusals r = {&o, backward, &c, operands, 6};
    check_refusals(&r);
    ops_end(&o);
}

typedef struct again_call {
    tensor y, x, rstd, w;
} again_call;

static cudpo_status again(backend *be, const void *arguments)
{
    const again_call *c = arguments;
    return be->rmsnorm_again(be, c->y, c->x, c->rstd, c->w);
}

static void again_refusals(backend *be)
{
    ops o = ops_begin(be);
    again_call c = {ops_output(&o, T, C), ops_output(&o, T, C), ops_output(&o, T, 1),
                    ops_output(&o, 1, C)};
    const operand operands[] = {{"y", &c.y, "is_like(y, x)", OUTPUT},
                                {"x", &c.x, "is_matrix(x)", ANY_ROWS | ANY_COLS | ANY_FLOAT},
                                {"rstd", &c.rstd, "is_f32(rstd, ", 0},
                                {"w", &c.w, "(w, ", 0}};
    const refusals r = {&o, again, &c, operands, 4};
    check_refusals(&r);
    ops_end(&o);
}

static void no_rows(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 2, 8), w = ops_output(&o, 1, 8), r = ops_output(&o, 2, 1);
    const tensor y = ops_output(&o, 2, 8), none = tensor_rows(x, 0, 0), to = tensor_rows(y, 0, 0);
    const tensor rstd = tensor_rows(r, 0, 0), dw = ops_output(&o, 1, 8);
    const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float got[8];
    CHECK_OK(be->add_rmsnorm(be, to, rstd, none, none, (tensor){0}, w, 0.1f));
    CHECK_OK(be->rmsnorm_again(be, to, none, rstd, w));
    ops_put(&o, dw, ones);
    CHECK_OK(be->rmsnorm_backward(be, to, dw, none, none, rstd, w));
    ops_get(&o, got, dw);
    assert_memory_equal(got, ones, sizeof got);
    ops_check_untouched(&o, y);
    ops_check_untouched(&o, r);
    ops_end(&o);
}

#ifdef TEST_CUDA
/* More rows, columns or elements than the kernels can number: the contract comes before any of them is looked at. */
static void too_large(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, T, C), r = ops_output(&o, T, 1), w = ops_output(&o, 1, C);
    const tensor y = ops_output(&o, T, C), dw = ops_output(&o, 1, C), none = {0};
    tensor tall = x, wide = x, many = x;
    tall.rows = (int64_t)INT32_MAX + 1;
    wide.cols = wide.stride = (int64_t)INT32_MAX + 1;
    many.rows = ((int64_t)1 << 37) - 63; /* 2^39 - 256 elements, and a row more */
    CHECK_FAILS(be->add_rmsnorm(be, y, r, x, tall, none, w, 0.1f), CUDPO_EINVAL, "x.rows <= INT32");
    CHECK_FAILS(be->rmsnorm_backward(be, y, dw, x, wide, r, w), CUDPO_EINVAL, "x.cols <= INT32");
    CHECK_FAILS(be->rmsnorm_again(be, y, many, r, w), CUDPO_EINVAL, "fits_grid(x.rows");
    many.rows--;
    CHECK_FAILS(be->rmsnorm_again(be, y, many, r, w), CUDPO_EINVAL, "is_like(y, x)");
    tall.rows--;
    CHECK_FAILS(be->add_rmsnorm(be, y, r, x, tall, none, w, 0.1f), CUDPO_EINVAL, "is_like(y, x)");
    wide.cols = --wide.stride;
    CHECK_FAILS(cuda_rmsnorm_backward(y, dw, x, wide, r, w, (scratch){0}, NULL), CUDPO_EINVAL,
                "is_like(dx, x)");
    ops_check_untouched(&o, y);
    ops_end(&o);
}

/* Too little of it, off its boundary, or over an operand; and how much there must be. */
static void scratch_refusals(backend *be)
{
    ops o = ops_begin(be);
    const backward_call c = backward_good(&o);
    const tensor memory = ops_output(&o, T + 1, C);
    const size_t bytes = cuda_rmsnorm_backward_scratch(T, C);
    const scratch bad[] = {
        {NULL, bytes}, {memory.data, bytes - 1}, {(char *)memory.data + 4, bytes}};
    const struct {
        tensor t;
        const char *text;
    } over[] = {{c.dx, "is_apart(s, bytes, dx)"}, {c.dw, "is_apart(s, bytes, dw)"},
                {c.dy, "is_apart(s, bytes, dy)"}, {c.x, "is_apart(s, bytes, x)"},
                {c.w, "is_apart(s, bytes, w)"},   {c.rstd, "is_apart(s, bytes, rstd)"}};
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(cuda_rmsnorm_backward(c.dx, c.dw, c.dy, c.x, c.rstd, c.w, bad[i], NULL),
                    CUDPO_EINVAL, "is_scratch(s");
    }
    for (int i = 0; i < 6; i++) {
        const scratch s = {over[i].t.data, bytes};
        CHECK_FAILS(cuda_rmsnorm_backward(c.dx, c.dw, c.dy, c.x, c.rstd, c.w, s, NULL),
                    CUDPO_EINVAL, over[i].text);
    }
    ops_check_untouched(&o, c.dx);
    ops_check_untouched(&o, c.dw);
    ops_check_untouched(&o, memory);
    assert_int_equal(bytes, T * C * 4); /* a row a block */
    assert_int_equal(cuda_rmsnorm_backward_scratch(1 << 20, 512), 396 * 512 * 4);
    assert_int_equal(cuda_rmsnorm_backward_scratch(0, 8), 0);
    assert_int_equal(cuda_rmsnorm_backward_scratch(-1, 8), 0);
    assert_int_equal(cuda_rmsnorm_backward_scratch(8, 0), 0);
    assert_int_equal(cuda_rmsnorm_backward_scratch(8, -8), 0);
    assert_int_equal(cuda_rmsnorm_backward_scratch(8, (int64_t)INT32_MAX + 1), 0);
    ops_end(&o);
}
#endif

static const op_case cases[] = {
    {"forward_refusals", forward_refusals},
    {"backward_refusals", backward_refusals},
    {"again_refusals", again_refusals},
    {"no_rows", no_rows},
#ifdef TEST_CUDA
    {"too_large", too_large},
    {"scratch_refusals", scratch_refusals},
#endif
};
OPS_MAIN(cases)
