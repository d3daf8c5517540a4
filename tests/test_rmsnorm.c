/* test_rmsnorm.c - RMSNorm behind a residual sum. */
/* rooms: backend base */
#include "test_ops.h"

/* x + branch = (3, 4): mean of squares 12.5, with epsilon 3.5 it is 16, rstd 1/4; w (1, 2): y = (3/4, 2). */
static void one_row_by_hand(backend *be)
{
    static const float x[] = {1, 5}, branch[] = {2, -1}, w[] = {1, 2};
    static const double want[] = {0.75, 2};
    float got[2], sum[2], rstd;
    ops o = ops_begin(be);
    const tensor y = ops_output(&o, 1, 2), r = ops_output(&o, 1, 1), s = ops_output(&o, 1, 2);
    const tensor tw = ops_floats(&o, w, 1, 2), tx = ops_floats(&o, x, 1, 2);
    CHECK_OK(be->add_rmsnorm(be, y, r, s, tx, ops_floats(&o, branch, 1, 2), tw, 3.5f));
    ops_get(&o, got, y);
    ops_get(&o, &rstd, r);
    ops_get(&o, sum, s);
    check_close("y", got, want, 2, 0);
    assert_true(rstd == 0.25f && sum[0] == 3.0f && sum[1] == 4.0f);
    ops_get(&o, got, tx);
    assert_true(got[0] == 1.0f && got[1] == 5.0f); /* x stays */
    ops_end(&o);
}

typedef struct problem {
    int64_t T, C;
    float *x, *branch, *w, *dy, *dx, *dw;
} problem;

static problem problem_create(int64_t T, int64_t C)
{
    return (problem){T,
                     C,
                     random_floats(1, T * C),
                     random_floats(2, T * C),
                     random_floats(3, C),
                     random_floats(4, T * C),
                     random_floats(5, T * C),
                     random_floats(6, C)};
}

static void problem_free(problem *p)
{
    free(p->x);
    free(p->branch);
    free(p->w);
    free(p->dy);
    free(p->dx);
    free(p->dw);
}

static const float epsilon = 1e-3f;

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
            total += (double)p->dy[t * p->C + i] * x[i] * w[i] / sqrt(mean + (double)epsilon);
        }
    }
    return total;
}

static void slopes_by_finite_differences(backend *be)
{
    problem p = problem_create(3, 5);
    double v[20];
    float dx[15], dw[5];
    for (int i = 0; i < 20; i++) {
        v[i] = (double)(i < 15 ? p.x[i] : p.w[i - 15]);
    }
    ops o = ops_begin(be);
    const tensor x = ops_floats(&o, p.x, 3, 5), w = ops_floats(&o, p.w, 1, 5);
    const tensor y = ops_output(&o, 3, 5), rstd = ops_output(&o, 3, 1);
    const tensor tdx = ops_floats(&o, p.dx, 3, 5), tdw = ops_floats(&o, p.dw, 1, 5);
    CHECK_OK(be->add_rmsnorm(be, y, rstd, x, x, (tensor){0}, w, epsilon));
    CHECK_OK(be->rmsnorm_backward(be, tdx, tdw, ops_floats(&o, p.dy, 3, 5), x, rstd, w));
    ops_get(&o, dx, tdx);
    ops_get(&o, dw, tdw);
    for (int i = 0; i < 15; i++) {
        CHECK_NEAR(dx[i], (double)p.dx[i] + slope(objective, v, i, &p), 64 * EPS);
    }
    for (int i = 0; i < 5; i++) {
        CHECK_NEAR(dw[i], (double)p.dw[i] + slope(objective, v, 15 + i, &p), 64 * EPS);
    }
    ops_end(&o);
    problem_free(&p);
}

/* The formulas of the backward pass in double, on what the forward pass left. */
static void plain_backward(double *dx, double *dw, const problem *p, const float *sum,
                           const float *rstd)
{
    for (int64_t i = 0; i < p->C; i++) {
        dw[i] = (double)p->dw[i];
    }
    for (int64_t t = 0; t < p->T; t++) {
        const double r = (double)rstd[t];
        double dot = 0;
        for (int64_t i = 0; i < p->C; i++) {
            const int64_t at = t * p->C + i;
            dot += (double)p->dy[at] * (double)p->w[i] * (double)sum[at];
            dw[i] += (double)p->dy[at] * (double)sum[at] * r;
        }
        for (int64_t i = 0; i < p->C; i++) {
            const int64_t at = t * p->C + i;
            dx[at] = (double)p->dx[at] + r * (double)p->dy[at] * (double)p->w[i] -
                     (double)sum[at] * r * r * r * dot / (double)p->C;
        }
    }
}

/* Elements are below 30 and go through about 4 roundings. */
static void check_size(backend *be, int64_t T, int64_t C, bool with_branch)
{
    problem p = problem_create(T, C);
    float *sum = zeros(T * C, 4), *y = zeros(T * C, 4), *rstd = zeros(T, 4), *dx = zeros(T * C, 4),
          *dw = zeros(C, 4), *again = zeros(T * C, 4);
    double *want = zeros(T * C, 8), *want_dw = zeros(C, 8);
    ops o = ops_begin(be);
    const tensor x = ops_strided(&o, p.x, T, C, C + 1), s = ops_strided(&o, NULL, T, C, C + 2);
    const tensor w = ops_floats(&o, p.w, 1, C), r = ops_output(&o, T, 1);
    const tensor ty = ops_strided(&o, NULL, T, C, C + 3), ta = ops_output(&o, T, C);
    const tensor branch = with_branch ? ops_strided(&o, p.branch, T, C, C + 5) : (tensor){0};
    CHECK_OK(be->add_rmsnorm(be, ty, r, s, x, branch, w, epsilon));
    ops_get(&o, sum, s);
    ops_get(&o, y, ty);
    ops_get(&o, rstd, r);
    for (int64_t t = 0; t < T; t++) {
        double mean = 0;
        for (int64_t i = 0; i < C; i++) {
            const int64_t at = t * C + i;
            assert_true(sum[at] == (with_branch ? p.x[at] + p.branch[at] : p.x[at]));
            mean += (double)sum[at] * (double)sum[at] / (double)C;
        }
        const double exact = 1 / sqrt(mean + (double)epsilon);
        CHECK_NEAR(rstd[t], exact, 2 * exact * EPS);
        for (int64_t i = 0; i < C; i++) {
            want[t * C + i] = (double)sum[t * C + i] * exact * (double)p.w[i];
        }
    }
    check_close("y", y, want, T * C, 4 * 30 * EPS);
    CHECK_OK(be->rmsnorm_again(be, ta, s, r, w));
    ops_get(&o, again, ta);
    assert_memory_equal(again, y, (size_t)(T * C) * 4);

    const tensor tdx = ops_strided(&o, p.dx, T, C, C + 7), tdw = ops_floats(&o, p.dw, 1, C);
    CHECK_OK(be->rmsnorm_backward(be, tdx, tdw, ops_floats(&o, p.dy, T, C), s, r, w));
    ops_get(&o, dx, tdx);
    ops_get(&o, dw, tdw);
    plain_backward(want, want_dw, &p, sum, rstd);
    check_close("dx", dx, want, T * C, 8 * 30 * EPS);
    check_close("dw", dw, want_dw, C, 4 * (30 + sqrt((double)T) * 4) * EPS);
    ops_end(&o);
    problem_free(&p);
    free(sum);
    free(y);
    free(rstd);
    free(dx);
    free(dw);
    free(again);
    free(want);
    free(want_dw);
}

static void tails(backend *be)
{
    static const int64_t width[] = {1, 31, 32, 33, 63, 64, 65, 255, 256, 257};
    for (int i = 0; i < 10; i++) {
        check_size(be, 3, width[i], i % 2 == 0);
        check_size(be, 150, width[i], i % 2 == 1);
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
    problem p = problem_create(T, C);
    float got[T * C], rstd[T];
    for (int t = 1; t < T; t++) {
        memcpy(p.x + t * C, p.x, C * sizeof(float));
        memcpy(p.dy + t * C, p.dy, C * sizeof(float));
        memcpy(p.dx + t * C, p.dx, C * sizeof(float));
    }
    ops o = ops_begin(be);
    const tensor x = ops_floats(&o, p.x, T, C), y = ops_output(&o, T, C), r = ops_output(&o, T, 1);
    const tensor w = ops_floats(&o, p.w, 1, C), dw = ops_floats(&o, p.dw, 1, C);
    const tensor dx = ops_floats(&o, p.dx, T, C);
    CHECK_OK(be->add_rmsnorm(be, y, r, x, x, (tensor){0}, w, epsilon));
    CHECK_OK(be->rmsnorm_backward(be, dx, dw, ops_floats(&o, p.dy, T, C), x, r, w));
    ops_get(&o, got, dx);
    ops_get(&o, rstd, r);
    for (int t = 1; t < T; t++) {
        assert_memory_equal(got + t * C, got, C * sizeof(float));
        assert_true(rstd[t] == rstd[0]);
    }
    ops_end(&o);
    problem_free(&p);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 4), y = ops_output(&o, 3, 4), r = ops_output(&o, 3, 1);
    const tensor w = ops_output(&o, 1, 4), none = {0};
    CHECK_FAILS(be->add_rmsnorm(be, y, r, x, x, none, w, -1.0f), CUDPO_EINVAL, "epsilon");
    CHECK_FAILS(be->add_rmsnorm(be, y, r, x, x, none, w, NAN), CUDPO_EINVAL, "epsilon");
    CHECK_FAILS(be->add_rmsnorm(be, y, r, x, x, w, w, 0.0f), CUDPO_EINVAL, "branch");
    CHECK_FAILS(be->add_rmsnorm(be, y, r, none, x, none, w, 0.0f), CUDPO_EINVAL, "sum");
    CHECK_FAILS(be->add_rmsnorm(be, y, r, x, x, none, x, 0.0f), CUDPO_EINVAL, "w");
    CHECK_FAILS(be->add_rmsnorm(be, y, w, x, x, none, w, 0.0f), CUDPO_EINVAL, "rstd");
    CHECK_FAILS(be->rmsnorm_backward(be, x, r, y, x, r, w), CUDPO_EINVAL, "dw");
    CHECK_FAILS(be->rmsnorm_backward(be, x, w, w, x, r, w), CUDPO_EINVAL, "dy");
    CHECK_FAILS(be->rmsnorm_again(be, y, x, w, w), CUDPO_EINVAL, "rstd");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, y);
    ops_check_untouched(&o, r);
    ops_check_untouched(&o, w);
    ops_end(&o);
}

enum { LT = 300, LC = 200 };

static void run_large(ops *o, float *result)
{
    problem p = problem_create(LT, LC);
    const tensor x = ops_floats(o, p.x, LT, LC), y = ops_output(o, LT, LC);
    const tensor r = ops_output(o, LT, 1), w = ops_floats(o, p.w, 1, LC);
    const tensor dx = ops_floats(o, p.dx, LT, LC), dw = ops_floats(o, p.dw, 1, LC);
    CHECK_OK(o->be->add_rmsnorm(o->be, y, r, x, x, ops_floats(o, p.branch, LT, LC), w, epsilon));
    CHECK_OK(o->be->rmsnorm_backward(o->be, dx, dw, ops_floats(o, p.dy, LT, LC), x, r, w));
    ops_get(o, result, y);
    ops_get(o, result + LT * LC, dx);
    ops_get(o, result + 2 * LT * LC, dw);
    problem_free(&p);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 2 * LT * LC + LC);
}

static const op_case cases[] = {
    {"one_row_by_hand", one_row_by_hand},
    {"slopes_by_finite_differences", slopes_by_finite_differences},
    {"tails", tails},
    {"zeros_in_place", zeros_in_place},
    {"a_row_may_stand_anywhere", a_row_may_stand_anywhere},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
