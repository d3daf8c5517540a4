/* test_rmsnorm.c - RMSNorm behind a residual sum. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_norm.h"

/* x + branch = (3, 4): mean of squares 12.5, with epsilon 3.5 it is 16, rstd 1/4; w (1, 2): y = (3/4, 2). */
static void one_row_by_hand(backend *be)
{
    static const float x[] = {1, 5}, branch[] = {2, -1}, w[] = {1, 2};
    static const double want[] = {0.75, 2};
    for (int half = 0; half <= (int)be->on_device; half++) {
        const dtype type = bf16_or_f32(half);
        float got[2], sum[2], rstd;
        ops o = ops_begin(be);
        const tensor y = ops_output_as(&o, type, 1, 2), r = ops_output(&o, 1, 1);
        const tensor s = ops_output_as(&o, type, 1, 2), tw = ops_floats_as(&o, type, w, 1, 2);
        const tensor tx = ops_floats_as(&o, type, x, 1, 2);
        const tensor tb = ops_floats_as(&o, type, branch, 1, 2);
        CHECK_OK(be->add_rmsnorm(be, y, r, s, tx, tb, tw, 3.5f));
        ops_get_floats(&o, got, y);
        ops_get(&o, &rstd, r);
        ops_get_floats(&o, sum, s);
        check_close("y", got, want, 2, 0);
        assert_true(rstd == 0.25f && sum[0] == 3.0f && sum[1] == 4.0f);
        ops_get_floats(&o, got, tx);
        assert_true(got[0] == 1.0f && got[1] == 5.0f); /* x stays */
        ops_end(&o);
    }
}

#ifdef TEST_CUDA
/* The norm is of the sum as bf16 holds it: 256 + 1 = 257 is a tie between 256 and 258, and goes to 256, whose significand
 * is even.  Alone in its row, rstd is 1/256 to the bit; of 257 it would not be. */
static void norm_of_the_rounded_sum(backend *be)
{
    enum { C = 8 };
    float x[C], branch[C], w[C], got[C], rstd;
    for (int i = 0; i < C; i++) {
        x[i] = 256;
        branch[i] = 1;
        w[i] = 1;
    }
    for (int loops = 0; loops < 2; loops++) {
        ops o = ops_begin(be);
        const tensor y = ops_output_as(&o, DTYPE_BF16, 1, C), r = ops_output(&o, 1, 1);
        const tensor s = ops_make_at(&o, DTYPE_BF16, 1, C, C, loops);
        CHECK_OK(be->add_rmsnorm(be, y, r, s, ops_floats_as(&o, DTYPE_BF16, x, 1, C),
                                 ops_floats_as(&o, DTYPE_BF16, branch, 1, C),
                                 ops_floats_as(&o, DTYPE_BF16, w, 1, C), 0.0f));
        ops_get(&o, &rstd, r);
        ops_get_floats(&o, got, s);
        assert_true(rstd == 1.0f / 256 && got[0] == 256.0f && got[C - 1] == 256.0f);
        ops_get_floats(&o, got, y);
        assert_true(got[0] == 1.0f && got[C - 1] == 1.0f);
        ops_end(&o);
    }
}
#endif

typedef struct problem {
    int64_t T, C;
    float *dy;
} problem;

/* y in double from v = [x (T,C), w (C)]; the objective is sum(dy * y). */
static double objective(const double *v, const void *context)
{
    const problem *p = context;
    const double *w = v + p->T * p->C;
    double total = 0;
    for (int64_t t = 0; t < p->T; t++) {
        const double *x = v + t * p->C;
        double mean = 0;
        for (int64_t i = 0; i < p->C; i++) {
            mean += x[i] * x[i] / (double)p->C;
        }
        for (int64_t i = 0; i < p->C; i++) {
            total += (double)p->dy[t * p->C + i] * x[i] * w[i] / sqrt(mean + (double)norm_epsilon);
        }
    }
    return total;
}

/* Values are below 4 and pass through about 16 roundings. */
static void slopes_of(backend *be, int64_t C)
{
    enum { T = 3 };
    norm_inputs in = norm_inputs_create((norm_sizes){.T = T, .n = 1, .D = C});
    const problem p = {T, C, in.dy};
    double *v = zeros((T + 1) * C, 8);
    float *dx = zeros(T * C, 4), *dw = zeros(C, 4);
    for (int64_t i = 0; i < (T + 1) * C; i++) {
        v[i] = (double)(i < T * C ? in.x[i] : in.w[i - T * C]);
    }
    ops o = ops_begin(be);
    const tensor x = ops_floats(&o, in.x, T, C), w = ops_floats(&o, in.w, 1, C);
    const tensor y = ops_output(&o, T, C), rstd = ops_output(&o, T, 1);
    const tensor tdx = ops_floats(&o, in.dx, T, C), tdw = ops_floats(&o, in.dw, 1, C);
    CHECK_OK(be->add_rmsnorm(be, y, rstd, x, x, (tensor){0}, w, norm_epsilon));
    CHECK_OK(be->rmsnorm_backward(be, tdx, tdw, ops_floats(&o, in.dy, T, C), x, rstd, w));
    ops_get(&o, dx, tdx);
    ops_get(&o, dw, tdw);
    for (int64_t i = 0; i < T * C; i++) {
        CHECK_NEAR(dx[i], (double)in.dx[i] + slope(objective, v, i, &p), 64 * EPS);
    }
    for (int64_t i = 0; i < C; i++) {
        CHECK_NEAR(dw[i], (double)in.dw[i] + slope(objective, v, T * C + i, &p), 64 * EPS);
    }
    ops_end(&o);
    norm_inputs_free(&in);
    free(v);
    free(dx);
    free(dw);
}

static void slopes_by_finite_differences(backend *be)
{
    slopes_of(be, 5); /* in loops */
    slopes_of(be, 8); /* in registers */
}

/* What becomes of the sum. */
enum residual { OWN_SUM, ADDED, ADDED_IN_PLACE, IN_PLACE, RESIDUALS };

static void check_forward(backend *be, const norm_inputs *in, enum residual how)
{
    const int64_t X = in->X, T = in->z.T, C = in->z.D;
    const bool adds = how == ADDED || how == ADDED_IN_PLACE;
    float *branch = norm_random(2, in->type, X), *want = zeros(X, 4), *sum = zeros(X, 4);
    float *y = zeros(X, 4), *again = zeros(X, 4), *rstd = zeros(T, 4);
    for (int64_t i = 0; i < X; i++) {
        want[i] = adds ? in->x[i] + branch[i] : in->x[i];
    }
    round_to(in->type, want, X);
    ops o = ops_begin(be);
    const tensor x = norm_matrix(&o, in, in->x), w = ops_floats_as(&o, in->type, in->w, 1, C);
    const tensor s = how == OWN_SUM || how == ADDED ? norm_matrix(&o, in, NULL) : x;
    const tensor ty = norm_matrix(&o, in, NULL), r = ops_make(&o, DTYPE_F32, T, 1, 2);
    const tensor tb = adds ? norm_matrix(&o, in, branch) : (tensor){0};
    CHECK_OK(be->add_rmsnorm(be, ty, r, s, x, tb, w, norm_epsilon));
    ops_get_floats(&o, sum, s);
    ops_get_floats(&o, y, ty);
    ops_get(&o, rstd, r);
    assert_memory_equal(sum, want, (size_t)X * 4);
    norm_check_forward(be, in, sum, y, rstd);
    if (s.data != x.data) {
        ops_get_floats(&o, sum, x);
        assert_memory_equal(sum, in->x, (size_t)X * 4);
    }
    const tensor ta = norm_matrix(&o, in, NULL);
    CHECK_OK(be->rmsnorm_again(be, ta, s, r, w));
    ops_get_floats(&o, again, ta);
    assert_memory_equal(again, y, (size_t)X * 4);
    ops_end(&o);
    free(branch);
    free(want);
    free(sum);
    free(y);
    free(again);
    free(rstd);
}

static void check_backward(backend *be, const norm_inputs *in, bool exact)
{
    const int64_t T = in->z.T, C = in->z.D;
    float *dx = zeros(in->X, 4), *dw = zeros(C, 4);
    ops o = ops_begin(be);
    const tensor r = ops_make(&o, DTYPE_F32, T, 1, 3), w = ops_floats_as(&o, in->type, in->w, 1, C);
    const tensor tdx = norm_matrix(&o, in, in->dx), x = norm_matrix(&o, in, in->x);
    const tensor tdw = ops_floats_as(&o, bf16_or_f32(in->z.dw_bf16), in->dw, 1, C);
    ops_put(&o, r, in->rstd);
    CHECK_OK(be->rmsnorm_backward(be, tdx, tdw, norm_matrix(&o, in, in->dy), x, r, w));
    ops_get_floats(&o, dx, tdx);
    ops_get_floats(&o, dw, tdw);
    norm_check_dx(be, in, true, dx);
    norm_check_dw(be, in, exact, dw);
    ops_end(&o);
    free(dx);
    free(dw);
}

static void check_size(backend *be, norm_sizes z, enum residual how)
{
    norm_inputs in = norm_inputs_create(z);
    check_forward(be, &in, how);
    check_backward(be, &in, false);
    norm_inputs_free(&in);
}

static void tails(backend *be)
{
    static const int64_t width[] = {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000};
    for (int i = 0; i < 14; i++) {
        const norm_sizes few = {3, 1, width[i], .pad = i % 3},
                         many = {be->on_device ? 6 : 150, 1, width[i], .shift = 1};
        check_size(be, few, (enum residual)(i % RESIDUALS));
        check_size(be, many, (enum residual)((i + 1) % RESIDUALS));
    }
}

/* Widths around those where a kernel's team grows, rows around its teams of a block; rows far apart and on vectors'
 * boundaries; the width beyond the largest team. */
static void teams(backend *be)
{
    static const int64_t vectors[] = {1, 64, 65, 127, 128, 129, 256, 257, 512, 513, 1024, 1025};
    for (int i = 0; i < 12; i++) {
        const int64_t rows = 1024 / vectors[i] < 8 ? 1024 / vectors[i] + 1 : 9;
        const norm_sizes f32 = {rows, 1, 4 * vectors[i], .dw_bf16 = i % 2 == 0 && be->on_device,
                                .pad = 8};
        check_size(be, f32, (enum residual)(i % RESIDUALS));
        if (!be->on_device) continue;
        const norm_sizes bf16 = {rows, 1, 8 * vectors[i], .bf16 = true, .dw_bf16 = i % 2 == 1};
        check_size(be, bf16, (enum residual)((i + 2) % RESIDUALS));
    }
}

#ifdef TEST_CUDA
/* bf16 that no vector fits: an odd width, rows or a first row off the boundary. */
static void loops_of_bf16(backend *be)
{
    for (int i = 0; i < 4; i++) {
        const norm_sizes odd = {5, 1, 257, .bf16 = true},
                         apart = {5, 1, 256, .bf16 = true, .pad = 4},
                         shifted = {5, 1, 256, .bf16 = true, .dw_bf16 = true, .shift = 1};
        check_size(be, odd, (enum residual)i);
        check_size(be, apart, (enum residual)i);
        check_size(be, shifted, (enum residual)i);
    }
}
#endif

/* x around 1e4; around 1e20, whose squares are no floats; around 1e-40, whose squares vanish and which are no normal
 * numbers, as y is not.  In registers and in loops. */
static void extremes(backend *be)
{
    static const float size[] = {1e4f, 1e20f, 1e-40f};
    for (int n = 0; n < (be->on_device ? 12 : 6); n++) {
        norm_inputs in =
            norm_inputs_create((norm_sizes){3, 1, 264, .bf16 = n / 6, .shift = n / 3 % 2});
        norm_scale_x(&in, size[n % 3]);
        check_forward(be, &in, n % 2 == 0 ? OWN_SUM : IN_PLACE);
        check_backward(be, &in, false);
        norm_inputs_free(&in);
    }
}

/* One operand at a time begins an element behind a vector's boundary, and all are read and written as they lie. */
static void any_operand_may_be_unaligned(backend *be)
{
    enum { Y, SUM, X, BRANCH, W, DX, DY, AGAIN, OPERANDS, T = 3, C = 16 };
    for (int n = 0; n < (be->on_device ? 2 : 1) * OPERANDS; n++) {
        norm_inputs in = norm_inputs_create((norm_sizes){T, 1, C, .bf16 = n / OPERANDS});
        float zero[T * C] = {0}, sum[T * C], y[T * C], again[T * C], dx[T * C], rstd[T], dw[C];
        ops o = ops_begin(be);
        tensor t[OPERANDS];
        for (int k = 0; k < OPERANDS; k++) {
            t[k] = ops_make_at(&o, in.type, k == W ? 1 : T, C, C, k == n % OPERANDS);
        }
        const tensor r = ops_output(&o, T, 1), tdw = ops_floats(&o, in.dw, 1, C);
        ops_put_floats(&o, t[X], in.x);
        ops_put_floats(&o, t[BRANCH], zero);
        ops_put_floats(&o, t[W], in.w);
        ops_put_floats(&o, t[DX], in.dx);
        ops_put_floats(&o, t[DY], in.dy);
        CHECK_OK(be->add_rmsnorm(be, t[Y], r, t[SUM], t[X], t[BRANCH], t[W], norm_epsilon));
        CHECK_OK(be->rmsnorm_again(be, t[AGAIN], t[X], r, t[W]));
        ops_get(&o, rstd, r);
        ops_put(&o, r, in.rstd);
        CHECK_OK(be->rmsnorm_backward(be, t[DX], tdw, t[DY], t[X], r, t[W]));
        ops_get_floats(&o, sum, t[SUM]);
        ops_get_floats(&o, y, t[Y]);
        ops_get_floats(&o, again, t[AGAIN]);
        ops_get_floats(&o, dx, t[DX]);
        ops_get_floats(&o, dw, tdw);
        assert_memory_equal(sum, in.x, sizeof sum);
        norm_check_forward(be, &in, in.x, y, rstd);
        assert_memory_equal(again, y, sizeof y);
        norm_check_dx(be, &in, true, dx);
        norm_check_dw(be, &in, false, dw);
        ops_end(&o);
        norm_inputs_free(&in);
    }
}

/* More rows than the blocks of the backward pass take at once: each is added to dw once, exactly. */
static void rows_beyond_the_grid(backend *be)
{
    static const norm_sizes sizes[] = {
        {16 * 264 + 5, 1, 8, .shift = 0},        {2 * 264 + 1, 1, 7, .shift = 1},
        {16 * 264 + 1, 1, 16, true, true, 0, 0}, {4 * 396 + 1, 1, 260, .shift = 0},
        {2 * 396 + 1, 1, 516, .shift = 0},       {396 + 1, 1, 1028, .shift = 0},
        {264 + 1, 1, 2052, .shift = 0},
    };
    for (int i = 0; i < (be->on_device ? 7 : 2); i++) {
        norm_inputs in = norm_inputs_exact(sizes[i]);
        check_backward(be, &in, true);
        norm_inputs_free(&in);
    }
}

/* A row of NaN is its own affair, but for dw. */
static void rows_do_not_mix(backend *be)
{
    enum { T = 9, C = 256, BAD = 4 };
    for (int shift = 0; shift < 2; shift++) {
        norm_inputs in = norm_inputs_create((norm_sizes){T, 1, C, .shift = shift});
        float y[T * C], dx[T * C];
        for (int i = 0; i < C; i++) {
            in.x[BAD * C + i] = in.dy[BAD * C + i] = NAN;
        }
        ops o = ops_begin(be);
        const tensor x = norm_matrix(&o, &in, in.x), w = ops_floats(&o, in.w, 1, C);
        const tensor ty = norm_matrix(&o, &in, NULL), r = ops_output(&o, T, 1);
        const tensor tdx = norm_matrix(&o, &in, in.dx), dw = ops_floats(&o, in.dw, 1, C);
        CHECK_OK(be->add_rmsnorm(be, ty, r, x, x, (tensor){0}, w, norm_epsilon));
        CHECK_OK(be->rmsnorm_backward(be, tdx, dw, norm_matrix(&o, &in, in.dy), x, r, w));
        ops_get(&o, y, ty);
        ops_get(&o, dx, tdx);
        for (int i = 0; i < T * C; i++) {
            assert_true((i / C == BAD) == (isnan(y[i]) != 0));
            assert_true((i / C == BAD) == (isnan(dx[i]) != 0));
        }
        ops_end(&o);
        norm_inputs_free(&in);
    }
}

/* In place, with no branch, and of a row of zeros: rstd is epsilon^-1/2 and y is 0. */
static void zeros_in_place(backend *be)
{
    static const float x[4] = {0}, w[4] = {1, 2, 3, 4};
    float y[4], rstd;
    ops o = ops_begin(be);
    const tensor tx = ops_floats(&o, x, 1, 4), ty = ops_output(&o, 1, 4), r = ops_output(&o, 1, 1);
    CHECK_OK(be->add_rmsnorm(be, ty, r, tx, tx, (tensor){0}, ops_floats(&o, w, 1, 4), 1e-6f));
    ops_get(&o, y, ty);
    ops_get(&o, &rstd, r);
    CHECK_NEAR(rstd, 1000.0, 1e-3);
    assert_true(y[0] == 0.0f && y[3] == 0.0f);
    ops_end(&o);
}

/* The same row eight times, each at another distance from a vector's boundary: the same bits. */
static void a_row_may_stand_anywhere(backend *be)
{
    enum { T = 8, C = 101 };
    norm_inputs in = norm_inputs_create((norm_sizes){T, 1, C, .shift = 0});
    float got[T * C], rstd[T];
    for (int t = 1; t < T; t++) {
        memcpy(in.x + t * C, in.x, C * sizeof(float));
        memcpy(in.dy + t * C, in.dy, C * sizeof(float));
        memcpy(in.dx + t * C, in.dx, C * sizeof(float));
    }
    ops o = ops_begin(be);
    const tensor x = ops_floats(&o, in.x, T, C), y = ops_output(&o, T, C), r = ops_output(&o, T, 1);
    const tensor w = ops_floats(&o, in.w, 1, C), dw = ops_floats(&o, in.dw, 1, C);
    const tensor dx = ops_floats(&o, in.dx, T, C);
    CHECK_OK(be->add_rmsnorm(be, y, r, x, x, (tensor){0}, w, norm_epsilon));
    CHECK_OK(be->rmsnorm_backward(be, dx, dw, ops_floats(&o, in.dy, T, C), x, r, w));
    ops_get(&o, got, dx);
    ops_get(&o, rstd, r);
    for (int t = 1; t < T; t++) {
        assert_memory_equal(got + t * C, got, C * sizeof(float));
        assert_true(rstd[t] == rstd[0]);
    }
    ops_end(&o);
    norm_inputs_free(&in);
}

enum { LT = 300, LC = 200 };

static void run_large(ops *o, float *result)
{
    norm_inputs in = norm_inputs_create((norm_sizes){LT, 1, LC, .shift = 0});
    float *branch = random_floats(2, LT * LC);
    const tensor x = ops_floats(o, in.x, LT, LC), y = ops_output(o, LT, LC);
    const tensor r = ops_output(o, LT, 1), w = ops_floats(o, in.w, 1, LC);
    const tensor dx = ops_floats(o, in.dx, LT, LC), dw = ops_floats(o, in.dw, 1, LC);
    CHECK_OK(o->be->add_rmsnorm(o->be, y, r, x, x, ops_floats(o, branch, LT, LC), w, norm_epsilon));
    CHECK_OK(o->be->rmsnorm_backward(o->be, dx, dw, ops_floats(o, in.dy, LT, LC), x, r, w));
    ops_get(o, result, y);
    ops_get(o, result + LT * LC, dx);
    ops_get(o, result + 2 * LT * LC, dw);
    norm_inputs_free(&in);
    free(branch);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 2 * LT * LC + LC);
}

static const op_case cases[] = {
    {"one_row_by_hand", one_row_by_hand},
    {"slopes_by_finite_differences", slopes_by_finite_differences},
    {"tails", tails},
    {"teams", teams},
#ifdef TEST_CUDA
    {"norm_of_the_rounded_sum", norm_of_the_rounded_sum},
    {"loops_of_bf16", loops_of_bf16},
#endif
    {"extremes", extremes},
    {"any_operand_may_be_unaligned", any_operand_may_be_unaligned},
    {"rows_beyond_the_grid", rows_beyond_the_grid},
    {"rows_do_not_mix", rows_do_not_mix},
    {"zeros_in_place", zeros_in_place},
    {"a_row_may_stand_anywhere", a_row_may_stand_anywhere},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
