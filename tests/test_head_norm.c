/* test_head_norm.c - RMSNorm of each head alone. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_norm.h"
#ifdef TEST_CUDA
#include "backend/cuda/ops.h"
#endif

/* Heads (3, 4) and (0, 0): with epsilon 3.5 rstd is 1/4 and 3.5^-1/2. */
static void two_heads_by_hand(backend *be)
{
    static const float x[] = {3, 4, 0, 0}, w[] = {1, 2};
    static const double want[] = {0.75, 2, 0, 0};
    for (int half = 0; half <= (int)be->on_device; half++) {
        const dtype type = bf16_or_f32(half);
        float y[4], rstd[2];
        ops o = ops_begin(be);
        const tensor ty = ops_output_as(&o, type, 1, 4), r = ops_output(&o, 1, 2);
        CHECK_OK(be->head_norm(be, ty, r, ops_floats_as(&o, type, x, 1, 4),
                               ops_floats_as(&o, type, w, 1, 2), 3.5f));
        ops_get_floats(&o, y, ty);
        ops_get(&o, rstd, r);
        check_close("y", y, want, 4, 0);
        CHECK_NEAR(rstd[0], 0.25, 0);
        CHECK_NEAR(rstd[1], 0.534522484, 2 * EPS);
        ops_end(&o);
    }
}

typedef struct problem {
    int64_t R, D; /* heads of all tokens, elements of one */
    const float *dy;
} problem;

/* The inner product of y and dy, from v = [x, w]. */
static double objective(const double *v, const void *context)
{
    const problem *p = context;
    const double *w = v + p->R * p->D;
    double total = 0;
    for (int64_t r = 0; r < p->R; r++) {
        double mean = 0;
        for (int64_t i = 0; i < p->D; i++) {
            mean += v[r * p->D + i] * v[r * p->D + i] / (double)p->D;
        }
        for (int64_t i = 0; i < p->D; i++) {
            total += (double)p->dy[r * p->D + i] * v[r * p->D + i] * w[i] /
                     sqrt(mean + (double)norm_epsilon);
        }
    }
    return total;
}

/* Forward and backward; dx in place of dy or not. */
static void run(ops *o, float *y, float *rstd, float *dx, float *dw, const norm_inputs *in,
                bool in_place)
{
    backend *be = o->be;
    const norm_sizes z = in->z;
    const tensor x = norm_matrix(o, in, in->x), w = ops_floats_as(o, in->type, in->w, 1, z.D);
    const tensor ty = norm_matrix(o, in, NULL), r = ops_make(o, DTYPE_F32, z.T, z.n, z.n + 2);
    CHECK_OK(be->head_norm(be, ty, r, x, w, norm_epsilon));
    ops_get_floats(o, y, ty);
    ops_get(o, rstd, r);
    ops_put(o, r, in->rstd);
    const tensor dy = norm_matrix(o, in, in->dy);
    const tensor tdw = ops_floats_as(o, bf16_or_f32(z.dw_bf16), in->dw, 1, z.D);
    const tensor tdx = in_place ? dy : norm_matrix(o, in, NULL);
    CHECK_OK(be->head_norm_backward(be, tdx, tdw, dy, x, r, w));
    ops_get_floats(o, dx, tdx);
    ops_get_floats(o, dw, tdw);
}

static void check_inputs(backend *be, const norm_inputs *in, bool exact, bool in_place)
{
    const int64_t X = in->X, D = in->z.D, R = in->z.T * in->z.n;
    float *y = zeros(X, 4), *rstd = zeros(R, 4), *dx = zeros(X, 4), *dw = zeros(D, 4);
    ops o = ops_begin(be);
    run(&o, y, rstd, dx, dw, in, in_place);
    norm_check_forward(be, in, in->x, y, rstd);
    norm_check_dx(be, in, false, dx);
    norm_check_dw(be, in, exact, dw);
    ops_end(&o);
    free(y);
    free(rstd);
    free(dx);
    free(dw);
}

static void check_size(backend *be, norm_sizes z, bool in_place)
{
    norm_inputs in = norm_inputs_create(z);
    check_inputs(be, &in, false, in_place);
    norm_inputs_free(&in);
}

/* The tolerance of 2e-5 covers D = 2, where a head near zero has rstd up to epsilon^-1/2 = 32 and slopes of that size
 * come with 8 roundings: 8 * 32 * EPS = 1.5e-5. */
static void slopes_by_finite_differences(backend *be)
{
    static const int64_t dims[] = {2, 8, 16, 18};
    for (int k = 0; k < 8; k++) {
        const norm_sizes z = {3, 2, dims[k / 2], .pad = 4 * (k % 2)};
        norm_inputs in = norm_inputs_create(z);
        const problem p = {6, z.D, in.dy};
        float *y = zeros(in.X, 4), rstd[6], *dx = zeros(in.X, 4), *dw = zeros(z.D, 4);
        double *v = zeros(in.X + z.D, 8);
        for (int64_t i = 0; i < in.X + z.D; i++) {
            v[i] = (double)(i < in.X ? in.x[i] : in.w[i - in.X]);
        }
        ops o = ops_begin(be);
        run(&o, y, rstd, dx, dw, &in, k % 2 == 0);
        for (int64_t i = 0; i < in.X; i++) {
            CHECK_NEAR(dx[i], slope(objective, v, i, &p), 2e-5);
        }
        for (int64_t i = 0; i < z.D; i++) {
            CHECK_NEAR(dw[i], (double)in.dw[i] + slope(objective, v, in.X + i, &p), 2e-5);
        }
        ops_end(&o);
        norm_inputs_free(&in);
        free(y);
        free(dx);
        free(dw);
        free(v);
    }
}

/* Heads that no vector fits, or that begin off its boundary. */
static void tails(backend *be)
{
    static const int64_t dims[] = {1, 2, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000};
    for (int i = 0; i < 12; i++) {
        check_size(be, (norm_sizes){2, 1 + i % 3, dims[i], .pad = 1}, i % 2 == 0);
        if (!be->on_device) continue;
        const bool half = i % 2 == 0;
        check_size(be, (norm_sizes){3, 2, dims[i], true, half, .shift = 1}, i % 3 == 0);
    }
}

/* Vectors of a head around those where a team grows, up to beyond the largest; heads of all tokens around what a block
 * takes at once: 128 of 8 lanes, 64 of 16, 32 of 32, 8 where a lane has 4 vectors. */
static void teams(backend *be)
{
    static const struct {
        int64_t vectors, T, n;
    } sizes[] = {{1, 43, 3},  {7, 127, 1}, {8, 64, 2},  {9, 21, 3},  {12, 32, 2}, {16, 65, 1},
                 {17, 31, 1}, {24, 16, 2}, {32, 11, 3}, {33, 7, 1},  {64, 4, 2},  {128, 3, 3},
                 {129, 2, 2}, {8, 1, 1},   {16, 1, 31}, {32, 1, 33}, {96, 1, 5}};
    for (int i = 0; i < 17; i++) {
        const norm_sizes f32 = {sizes[i].T, sizes[i].n, 4 * sizes[i].vectors,
                                .dw_bf16 = i % 2 == 0 && be->on_device, .pad = 4};
        check_size(be, f32, i % 2 == 0);
        if (!be->on_device) continue;
        const norm_sizes bf16 = {sizes[i].T, sizes[i].n, 8 * sizes[i].vectors,
                                 true,       i % 2 == 1, .pad = 8};
        check_size(be, bf16, i % 2 == 1);
    }
}

/* More heads than the blocks of the backward pass take at once: each is added to dw once, exactly. */
static void heads_beyond_the_grid(backend *be)
{
    static const norm_sizes sizes[] = {
        {128 * 132 + 1, 3, 4, .shift = 0},
        {8 * 264 + 1, 1, 132, .shift = 0},
        {199, 2, 3, .shift = 0},
        {128 * 132 + 1, 3, 8, true, true, 0, 0},
    };
    for (int i = 0; i < (be->on_device ? 4 : 1); i++) {
        norm_inputs in = norm_inputs_exact(sizes[i]);
        check_inputs(be, &in, true, i % 2 == 0);
        norm_inputs_free(&in);
    }
}

/* q and k side by side in one matrix, normalised into columns of another; v stays. */
static void columns_of_a_matrix(backend *be)
{
    enum { T = 5, D = 16, Q = 2 * D, W = Q + D + 8 };
    for (int half = 0; half <= (int)be->on_device; half++) {
        const dtype type = bf16_or_f32(half);
        norm_inputs q = norm_inputs_create((norm_sizes){T, 2, D, half, .shift = 0});
        norm_inputs k = norm_inputs_create((norm_sizes){T, 1, D, half, .shift = 0});
        float y[T * Q], rstd[T * 2], v[T * 8];
        ops o = ops_begin(be);
        const tensor from = ops_make(&o, type, T, W, W), to = ops_make(&o, type, T, W, W);
        const tensor w = ops_floats_as(&o, type, q.w, 1, D);
        const tensor r2 = ops_output(&o, T, 2), r1 = ops_output(&o, T, 1);
        for (int i = 0; i < T * 8; i++) {
            v[i] = (float)i;
        }
        ops_put_floats(&o, tensor_cols(from, 0, Q), q.x);
        ops_put_floats(&o, tensor_cols(from, Q, D), k.x);
        ops_put_floats(&o, tensor_cols(to, Q + D, 8), v);
        CHECK_OK(
            be->head_norm(be, tensor_cols(to, 0, Q), r2, tensor_cols(from, 0, Q), w, norm_epsilon));
        CHECK_OK(
            be->head_norm(be, tensor_cols(to, Q, D), r1, tensor_cols(from, Q, D), w, norm_epsilon));
        ops_get_floats(&o, y, tensor_cols(to, 0, Q));
        ops_get(&o, rstd, r2);
        norm_check_forward(be, &q, q.x, y, rstd);
        ops_get_floats(&o, y, tensor_cols(to, Q, D));
        ops_get(&o, rstd, r1);
        norm_check_forward(be, &k, k.x, y, rstd);
        ops_get_floats(&o, y, tensor_cols(to, Q + D, 8));
        assert_memory_equal(y, v, sizeof v);
        ops_end(&o);
        norm_inputs_free(&q);
        norm_inputs_free(&k);
    }
}

/* A head of NaN is its own affair, but for dw. */
static void heads_do_not_mix(backend *be)
{
    enum { T = 3, N = 3, D = 32, BAD = 4 };
    for (int pad = 0; pad < 2; pad++) { /* in registers; in loops */
        norm_inputs in = norm_inputs_create((norm_sizes){T, N, D, .pad = pad});
        float y[T * N * D], rstd[T * N], dx[T * N * D], dw[D];
        for (int i = 0; i < D; i++) {
            in.x[BAD * D + i] = in.dy[BAD * D + i] = NAN;
        }
        ops o = ops_begin(be);
        run(&o, y, rstd, dx, dw, &in, pad == 0);
        for (int i = 0; i < T * N * D; i++) {
            assert_true((i / D == BAD) == (isnan(y[i]) != 0));
            assert_true((i / D == BAD) == (isnan(dx[i]) != 0));
        }
        ops_end(&o);
        norm_inputs_free(&in);
    }
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 8), y = ops_output(&o, 3, 8), r = ops_output(&o, 3, 2);
    const tensor w = ops_output(&o, 1, 4), bad = ops_output(&o, 1, 3);
    CHECK_FAILS(be->head_norm(be, y, r, x, bad, 0.1f), CUDPO_EINVAL, "is_heads");
    CHECK_FAILS(be->head_norm(be, y, tensor_cols(r, 0, 1), x, w, 0.1f), CUDPO_EINVAL, "is_heads");
    CHECK_FAILS(be->head_norm(be, tensor_cols(y, 0, 4), r, x, w, 0.1f), CUDPO_EINVAL, "y, x");
    CHECK_FAILS(be->head_norm(be, y, r, x, w, -0.1f), CUDPO_EINVAL, "epsilon");
    CHECK_FAILS(be->head_norm(be, y, r, x, w, INFINITY), CUDPO_EINVAL, "epsilon");
    CHECK_FAILS(be->head_norm_backward(be, y, bad, y, x, r, w), CUDPO_EINVAL, "dw");
    CHECK_FAILS(be->head_norm_backward(be, y, w, w, x, r, w), CUDPO_EINVAL, "dy");
    ops_check_untouched(&o, y);
    ops_check_untouched(&o, r);
    ops_check_untouched(&o, w);
    ops_end(&o);
}

#ifdef TEST_CUDA
/* What the kernels ask beyond that: one type, nothing that overlaps, scratch; no rows are fine. */
static void broken_contracts_of_kernels(backend *be)
{
    ops o = ops_begin(be);
    const tensor all = ops_output(&o, 4, 8), y = ops_output(&o, 3, 8), r = ops_output(&o, 3, 2);
    const tensor w = ops_output(&o, 1, 4), dw = ops_output(&o, 1, 4), x = tensor_rows(all, 0, 3);
    const tensor half = ops_output_as(&o, DTYPE_BF16, 3, 8), dy = ops_output(&o, 3, 8);
    const tensor narrow = tensor_cols(tensor_rows(half, 0, 1), 0, 4),
                 later = tensor_rows(all, 1, 3);
    const tensor within_y = tensor_cols(tensor_rows(y, 1, 1), 0, 4);
    const tensor within_x = tensor_cols(tensor_rows(x, 1, 1), 0, 4), rx = tensor_cols(x, 1, 2);
    const tensor within_r = tensor_matrix(r.data, DTYPE_F32, 1, 4);
    CHECK_FAILS(be->head_norm(be, half, r, x, w, 0.1f), CUDPO_EINVAL, "is_like(y");
    CHECK_FAILS(be->head_norm(be, y, r, x, narrow, 0.1f), CUDPO_EINVAL, "is_heads");
    CHECK_FAILS(be->head_norm(be, later, r, x, w, 0.1f), CUDPO_EINVAL, "tensor_disjoint(y, x)");
    CHECK_FAILS(be->head_norm(be, x, r, x, w, 0.1f), CUDPO_EINVAL, "tensor_disjoint(y, x)");
    CHECK_FAILS(be->head_norm(be, y, r, x, within_y, 0.1f), CUDPO_EINVAL, "tensor_disjoint(y, w)");
    CHECK_FAILS(be->head_norm(be, y, tensor_cols(y, 1, 2), x, w, 0.1f), CUDPO_EINVAL,
                "tensor_disjoint(y, rstd)");
    CHECK_FAILS(be->head_norm(be, y, rx, x, w, 0.1f), CUDPO_EINVAL, "tensor_disjoint(rstd, x)");
    CHECK_FAILS(be->head_norm(be, y, r, x, within_r, 0.1f), CUDPO_EINVAL,
                "tensor_disjoint(rstd, w)");
    const struct {
        tensor dx, dw, dy, x, rstd, w;
        const char *text;
    } bad[] = {
        {half, dw, dy, x, r, w, "is_like(dx"},
        {y, dw, half, x, r, w, "is_like(dy"},
        {later, dw, x, y, r, w, "tensor_disjoint(dx, dy)"},
        {x, dw, dy, x, r, w, "tensor_disjoint(dx, x)"},
        {y, dw, dy, x, tensor_cols(y, 1, 2), w, "tensor_disjoint(dx, rstd)"},
        {y, dw, dy, x, r, within_y, "tensor_disjoint(dx, w)"},
        {y, within_y, dy, x, r, w, "tensor_disjoint(dw, dx)"},
        {dy, within_y, y, x, r, w, "tensor_disjoint(dw, dy)"},
        {y, within_x, dy, x, r, w, "tensor_disjoint(dw, x)"},
        {y, within_r, dy, x, r, w, "tensor_disjoint(dw, rstd)"},
        {y, w, dy, x, r, w, "tensor_disjoint(dw, w)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_FAILS(be->head_norm_backward(be, bad[i].dx, bad[i].dw, bad[i].dy, bad[i].x,
                                           bad[i].rstd, bad[i].w),
                    CUDPO_EINVAL, bad[i].text);
    }
    const size_t bytes = cuda_head_norm_backward_scratch(3, 2, 4);
    const tensor memory = ops_output(&o, 8, 4);
    const scratch small = {memory.data, bytes - 1}, enough = {memory.data, bytes};
    assert_int_equal(bytes, 6 * 4 * 4); /* a row a head */
    CHECK_FAILS(cuda_head_norm_backward(y, dw, dy, x, r, w, small, NULL), CUDPO_EINVAL, "scratch");
    const tensor none = tensor_rows(x, 0, 0), to = tensor_rows(y, 0, 0), nr = tensor_rows(r, 0, 0);
    CHECK_OK(be->head_norm(be, to, nr, none, w, 0.1f));
    CHECK_OK(cuda_head_norm_backward(to, dw, to, none, nr, w, enough, NULL));
    ops_check_untouched(&o, all);
    ops_check_untouched(&o, y);
    ops_check_untouched(&o, r);
    ops_check_untouched(&o, w);
    ops_check_untouched(&o, dw);
    ops_check_untouched(&o, dy);
    ops_check_untouched(&o, half);
    ops_end(&o);
}
#endif

enum { LT = 400, LN = 3, LD = 40, LX = LT * LN * LD };

static void run_large(ops *o, float *result)
{
    norm_inputs in = norm_inputs_create((norm_sizes){LT, LN, LD, .pad = 4});
    float rstd[LT * LN];
    run(o, result, rstd, result + LX, result + 2 * LX, &in, true);
    norm_inputs_free(&in);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 2 * LX + LD);
}

static const op_case cases[] = {
    {"two_heads_by_hand", two_heads_by_hand},
    {"slopes_by_finite_differences", slopes_by_finite_differences},
    {"tails", tails},
    {"teams", teams},
    {"heads_beyond_the_grid", heads_beyond_the_grid},
    {"columns_of_a_matrix", columns_of_a_matrix},
    {"heads_do_not_mix", heads_do_not_mix},
    {"broken_contracts", broken_contracts},
#ifdef TEST_CUDA
    {"broken_contracts_of_kernels", broken_contracts_of_kernels},
#endif
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
