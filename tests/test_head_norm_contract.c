/* test_head_norm_contract.c - what the norms of heads refuse, and that they do nothing where there are no tokens. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

enum { T = 3, N = 2, D = 4 };

typedef struct forward_call {
    tensor y, rstd, x, w;
    float epsilon;
} forward_call;

static cudpo_status forward(backend *be, const void *arguments)
{
    const forward_call *c = arguments;
    return be->head_norm(be, c->y, c->rstd, c->x, c->w, c->epsilon);
}

static forward_call forward_good(ops *o)
{
    return (forward_call){.y = ops_output(o, T, N * D),
                          .rstd = ops_output(o, T, N),
                          .x = ops_output(o, T, N * D),
                          .w = ops_output(o, 1, D),
                          .epsilon = 0.1f};
}

static void forward_refusals(backend *be)
{
    static const float bad[] = {-1.0f, -0x1p-149f, INFINITY, NAN};
    ops o = ops_begin(be);
    forward_call c = forward_good(&o);
    const forward_call good = c;
    const operand operands[] = {{"y", &c.y, "is_like(y, x)", OUTPUT},
                                {"rstd", &c.rstd, "is_f32(rstd, ", OUTPUT},
                                {"x", &c.x, "is_matrix(x)", ANY_ROWS | ANY_COLS | ANY_FLOAT},
                                {"w", &c.w, "w.cols >= 1 && ", ANY_COLS}};
    const refusals r = {&o, forward, &c, operands, 4};
    check_refusals(&r);
    for (int i = 0; i < 4; i++) {
        c.epsilon = bad[i];
        refusals_check(&r, "epsilon", "value", "isfinite(epsilon)", "isfinite(epsilon)");
    }
    c = good;
    c.w.cols = c.w.stride = 3; /* heads of 3 in rows of 8; rstd has the two whole ones */
    refusals_check(&r, "w", "width", "x.cols % w.cols", "x.cols % w.cols");
    ops_end(&o);
}

/* y and x that are the same memory, or columns of one matrix. */
static void forward_places(backend *be)
{
    ops o = ops_begin(be);
    forward_call c = forward_good(&o);
    const tensor wide = ops_output(&o, T, 2 * N * D + 1);
    c.y = c.x;
    CHECK_FAILS(forward(be, &c), CUDPO_EINVAL, "tensor_disjoint(y, x)");
    c.x = tensor_cols(wide, 0, N * D), c.y = tensor_cols(wide, N * D - 1, N * D);
    CHECK_FAILS(forward(be, &c), CUDPO_EINVAL, "tensor_disjoint(y, x)");
    c.y = tensor_cols(wide, N * D, N * D);
    CHECK_OK(forward(be, &c));
    ops_check_untouched(&o, tensor_cols(wide, 2 * N * D, 1));
    ops_end(&o);
}

typedef struct backward_call {
    tensor dx, dw, dy, x, rstd, w;
} backward_call;

static cudpo_status backward(backend *be, const void *arguments)
{
    const backward_call *c = arguments;
    return be->head_norm_backward(be, c->dx, c->dw, c->dy, c->x, c->rstd, c->w);
}

static backward_call backward_good(ops *o)
{
    return (backward_call){.dx = ops_output(o, T, N * D),
                           .dw = ops_output(o, 1, D),
                           .dy = ops_output(o, T, N * D),
                           .x = ops_output(o, T, N * D),
                           .rstd = ops_output(o, T, N),
                           .w = ops_output(o, 1, D)};
}

static void backward_refusals(backend *be)
{
    ops o = ops_begin(be);
    backward_call c = backward_good(&o);
    const operand operands[] = {
        {"dx", &c.dx, "is_like(dx, x)", OUTPUT},
        {"dw", &c.dw, "(dw, 1, w.cols)", OUTPUT | (be->on_device ? ANY_FLOAT : 0)},
        {"dy", &c.dy, "is_like(dy, x)", 0},
        {"x", &c.x, "is_matrix(x)", ANY_ROWS | ANY_COLS | ANY_FLOAT},
        {"rstd", &c.rstd, "is_f32(rstd, ", 0},
        {"w", &c.w, "w.cols >= 1 && ", ANY_COLS}};
    const refusals r = {&o, backward, &c, operands, 6};
    check_refusals(&r);
    c.dy = c.dx; /* which is right, but for a dw within both */
    c.dw.data = (char *)c.dx.data + 4;
    refusals_check(&r, "dw", "overlap", "tensor_disjoint(dw, dx)", "?");
    ops_end(&o);
}

static void no_tokens(backend *be)
{
    static const float ones[D] = {1, 1, 1, 1};
    ops o = ops_begin(be);
    const backward_call c = backward_good(&o);
    const tensor dx = tensor_rows(c.dx, 0, 0), x = tensor_rows(c.x, 0, 0);
    const tensor rstd = tensor_rows(c.rstd, 0, 0);
    float got[D];
    CHECK_OK(be->head_norm(be, dx, rstd, x, c.w, 0.1f));
    ops_put(&o, c.dw, ones);
    CHECK_OK(be->head_norm_backward(be, dx, c.dw, dx, x, rstd, c.w));
    ops_get(&o, got, c.dw);
    assert_memory_equal(got, ones, sizeof got);
    ops_check_untouched(&o, c.dx);
    ops_check_untouched(&o, c.rstd);
    ops_end(&o);
}

#ifdef TEST_CUDA
/* More heads, or elements of one, than the kernels can number: the contract comes before any of them is looked at. */
static void too_large(backend *be)
{
    ops o = ops_begin(be);
    const forward_call f = forward_good(&o);
    const backward_call b = backward_good(&o);
    tensor x = f.x, rstd = f.rstd, w = f.w;
    x.rows = rstd.rows = (int64_t)1 << 30; /* of two heads each */
    CHECK_FAILS(be->head_norm(be, f.y, rstd, x, w, 0.1f), CUDPO_EINVAL, "x.rows * rstd.cols <=");
    x.rows = --rstd.rows;
    CHECK_FAILS(be->head_norm(be, f.y, rstd, x, w, 0.1f), CUDPO_EINVAL, "is_like(y, x)");
    x = f.x, rstd = f.rstd;
    w.cols = w.stride = (int64_t)INT32_MAX + 1;
    x.cols = x.stride = w.cols * N;
    CHECK_FAILS(be->head_norm_backward(be, b.dx, b.dw, b.dy, x, rstd, w), CUDPO_EINVAL,
                "w.cols <= INT32_MAX");
    w.cols = --w.stride;
    x.cols = x.stride = w.cols * N;
    CHECK_FAILS(cuda_head_norm_backward(b.dx, b.dw, b.dy, x, rstd, w, (scratch){0}, NULL),
                CUDPO_EINVAL, "(dw, 1, w.cols)");
    ops_check_untouched(&o, f.y);
    ops_check_untouched(&o, b.dx);
    ops_end(&o);
}

/* Too little of it, off its boundary, or over an operand; and how much there must be. */
static void scratch_refusals(backend *be)
{
    ops o = ops_begin(be);
    const backward_call c = backward_good(&o);
    const tensor memory = ops_output(&o, T * N + 1, D);
    const size_t bytes = cuda_head_norm_backward_scratch(T, N, D);
    const scratch bad[] = {
        {NULL, bytes}, {memory.data, bytes - 1}, {(char *)memory.data + 4, bytes}};
    const struct {
        tensor t;
        const char *text;
    } over[] = {{c.dx, "is_apart(s, bytes, dx)"}, {c.dw, "is_apart(s, bytes, dw)"},
                {c.dy, "is_apart(s, bytes, dy)"}, {c.x, "is_apart(s, bytes, x)"},
                {c.w, "is_apart(s, bytes, w)"},   {c.rstd, "is_apart(s, bytes, rstd)"}};
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(cuda_head_norm_backward(c.dx, c.dw, c.dy, c.x, c.rstd, c.w, bad[i], NULL),
                    CUDPO_EINVAL, "is_scratch(s");
    }
    for (int i = 0; i < 6; i++) {
        const scratch s = {over[i].t.data, bytes};
        CHECK_FAILS(cuda_head_norm_backward(c.dx, c.dw, c.dy, c.x, c.rstd, c.w, s, NULL),
                    CUDPO_EINVAL, over[i].text);
    }
    ops_check_untouched(&o, c.dx);
    ops_check_untouched(&o, c.dw);
    ops_check_untouched(&o, memory);
    assert_int_equal(bytes, T * N * D * 4); /* a row a head */
    assert_int_equal(cuda_head_norm_backward_scratch(1 << 20, 8, 128), 396 * 128 * 4);
    assert_int_equal(cuda_head_norm_backward_scratch(0, 2, 8), 0);
    assert_int_equal(cuda_head_norm_backward_scratch(-1, 2, 8), 0);
    assert_int_equal(cuda_head_norm_backward_scratch(8, 0, 8), 0);
    assert_int_equal(cuda_head_norm_backward_scratch(-8, -2, 8), 0);
    assert_int_equal(cuda_head_norm_backward_scratch(INT64_MAX / 2, 4, 8), 0);
    assert_int_equal(cuda_head_norm_backward_scratch(8, 2, 0), 0);
    assert_int_equal(cuda_head_norm_backward_scratch(8, 2, (int64_t)INT32_MAX + 1), 0);
    ops_end(&o);
}
#endif

static const op_case cases[] = {
    {"forward_refusals", forward_refusals},
    {"forward_places", forward_places},
    {"backward_refusals", backward_refusals},
    {"no_tokens", no_tokens},
#ifdef TEST_CUDA
    {"too_large", too_large},
    {"scratch_refusals", scratch_refusals},
#endif
};
OPS_MAIN(cases)
