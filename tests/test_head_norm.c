/* test_head_norm.c - RMSNorm of each head alone. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_norm.h"

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

/* x around 1e4; around 1e20, whose squares are no floats; around 1e-40, whose squares vanish and which are no normal
 * numbers, as y is not.  In registers and in loops. */
static void extremes(backend *be)
{
    static const float size[] = {1e4f, 1e20f, 1e-40f};
    for (int n = 0; n < (be->on_device ? 12 : 6); n++) {
        norm_inputs in =
            norm_inputs_create((norm_sizes){3, 2, 64, .bf16 = n / 6, .shift = n / 3 % 2});
        norm_scale_x(&in, size[n % 3]);
        check_inputs(be, &in, false, n % 2 == 0);
        norm_inputs_free(&in);
    }
}

/* One operand at a time begins an element behind a vector's boundary, and all are read and written as they lie. */
static void any_operand_may_be_unaligned(backend *be)
{
    enum { Y, X, W, DX, DY, OPERANDS, T = 3, N = 2, D = 16, ALL = T * N * D };
    for (int n = 0; n < (be->on_device ? 2 : 1) * OPERANDS; n++) {
        norm_inputs in = norm_inputs_create((norm_sizes){T, N, D, .bf16 = n / OPERANDS});
        float y[ALL], rstd[T * N], dx[ALL], dw[D];
        ops o = ops_begin(be);
        tensor t[OPERANDS];
        for (int k = 0; k < OPERANDS; k++) {
            const int64_t width = k == W ? D : N * D;
            t[k] = ops_make_at(&o, in.type, k == W ? 1 : T, width, width, k == n % OPERANDS);
        }
        const tensor r = ops_output(&o, T, N), tdw = ops_floats(&o, in.dw, 1, D);
        ops_put_floats(&o, t[X], in.x);
        ops_put_floats(&o, t[W], in.w);
        ops_put_floats(&o, t[DY], in.dy);
        CHECK_OK(be->head_norm(be, t[Y], r, t[X], t[W], norm_epsilon));
        ops_get(&o, rstd, r);
        ops_put(&o, r, in.rstd);
        CHECK_OK(be->head_norm_backward(be, t[DX], tdw, t[DY], t[X], r, t[W]));
        ops_get_floats(&o, y, t[Y]);
        ops_get_floats(&o, dx, t[DX]);
        ops_get_floats(&o, dw, tdw);
        norm_check_forward(be, &in, in.x, y, rstd);
        norm_check_dx(be, &in, false, dx);
        norm_check_dw(be, &in, false, dw);
        ops_end(&o);
        norm_inputs_free(&in);
    }
}

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
    {"extremes", extremes},
    {"any_operand_may_be_unaligned", any_operand_may_be_unaligned},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
