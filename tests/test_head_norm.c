/* test_head_norm.c - RMSNorm of each head alone. */
/* rooms: backend base */
#include "test_ops.h"

static const float epsilon = 1e-3f;

/* Heads (3, 4) and (0, 0): with epsilon 3.5 rstd is 1/4 and 3.5^-1/2. */
static void two_heads_by_hand(backend *be)
{
    static const float x[] = {3, 4, 0, 0}, w[] = {1, 2};
    static const double want[] = {0.75, 2, 0, 0};
    float y[4], rstd[2];
    ops o = ops_begin(be);
    const tensor ty = ops_output(&o, 1, 4), r = ops_output(&o, 1, 2);
    CHECK_OK(be->head_norm(be, ty, r, ops_floats(&o, x, 1, 4), ops_floats(&o, w, 1, 2), 3.5f));
    ops_get(&o, y, ty);
    ops_get(&o, rstd, r);
    check_close("y", y, want, 4, 0);
    CHECK_NEAR(rstd[0], 0.25, 0);
    CHECK_NEAR(rstd[1], 0.534522484, EPS);
    ops_end(&o);
}

typedef struct problem {
    int64_t T, n, D;
    float *x, *w, *dy, *dw;
} problem;

static problem problem_create(int64_t T, int64_t n, int64_t D)
{
    return (problem){T,
                     n,
                     D,
                     random_floats(1, T * n * D),
                     random_floats(2, D),
                     random_floats(3, T * n * D),
                     random_floats(4, D)};
}

static void problem_free(problem *p)
{
    free(p->x);
    free(p->w);
    free(p->dy);
    free(p->dw);
}

/* y [T*n,D], and its inner product with dy, from v = [x, w]. */
static double forward(double *y, const double *v, const problem *p)
{
    const double *w = v + p->T * p->n * p->D;
    double total = 0;
    for (int64_t h = 0; h < p->T * p->n; h++) {
        double mean = 0;
        for (int64_t i = 0; i < p->D; i++) {
            mean += v[h * p->D + i] * v[h * p->D + i] / (double)p->D;
        }
        for (int64_t i = 0; i < p->D; i++) {
            const double out = v[h * p->D + i] * w[i] / sqrt(mean + (double)epsilon);
            if (y != NULL) y[h * p->D + i] = out;
            total += (double)p->dy[h * p->D + i] * out;
        }
    }
    return total;
}

static double objective(const double *v, const void *context)
{
    return forward(NULL, v, context);
}

/* Forward and backward through views of a wider matrix, as q and k stand in qkv; dx in place of dy or not. */
static void run(ops *o, float *y, float *dx, float *dw, const problem *p, bool in_place)
{
    backend *be = o->be;
    const int64_t W = p->n * p->D;
    const tensor x = ops_strided(o, p->x, p->T, W, W + 6), w = ops_floats(o, p->w, 1, p->D);
    const tensor ty = ops_strided(o, NULL, p->T, W, W + 2), r = ops_output(o, p->T, p->n);
    CHECK_OK(be->head_norm(be, ty, r, x, w, epsilon));
    ops_get(o, y, ty);
    const tensor dy = ops_strided(o, p->dy, p->T, W, W + 4), tdw = ops_floats(o, p->dw, 1, p->D);
    const tensor tdx = in_place ? dy : ops_strided(o, NULL, p->T, W, W + 3);
    CHECK_OK(be->head_norm_backward(be, tdx, tdw, dy, x, r, w));
    ops_get(o, dx, tdx);
    ops_get(o, dw, tdw);
}

static void check_size(backend *be, int64_t T, int64_t n, int64_t D, bool in_place)
{
    problem p = problem_create(T, n, D);
    const int64_t X = T * n * D;
    float *y = zeros(X, 4), *dx = zeros(X, 4), *dw = zeros(D, 4);
    double *v = zeros(X + D, 8), *want = zeros(X, 8);
    for (int64_t i = 0; i < X + D; i++) {
        v[i] = (double)(i < X ? p.x[i] : p.w[i - X]);
    }
    ops o = ops_begin(be);
    run(&o, y, dx, dw, &p, in_place);
    (void)forward(want, v, &p);
    check_close("y", y, want, X, 4 * 16 * EPS);
    for (int64_t i = 0; i < X; i += 1 + X / 40) {
        CHECK_NEAR(dx[i], slope(objective, v, i, &p), 2e-5);
    }
    for (int64_t i = 0; i < D; i += 1 + D / 20) {
        CHECK_NEAR(dw[i], (double)p.dw[i] + slope(objective, v, X + i, &p), 2e-5);
    }
    ops_end(&o);
    problem_free(&p);
    free(y);
    free(dx);
    free(dw);
    free(v);
    free(want);
}

/* The tolerance of 2e-5 covers D = 2, where a head near zero has rstd up to epsilon^-1/2 = 32 and slopes of that size
 * come with 8 roundings: 8 * 32 * EPS = 1.5e-5. */
static void slopes_by_finite_differences(backend *be)
{
    static const int64_t dims[] = {2, 8, 16, 18, 64, 96, 128, 256};
    for (int i = 0; i < 8; i++) {
        check_size(be, 3, 2, dims[i], i % 2 == 0);
        check_size(be, 5, 1, dims[i], i % 2 == 1);
    }
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 8), y = ops_output(&o, 3, 8), r = ops_output(&o, 3, 2);
    const tensor w = ops_output(&o, 1, 4), bad = ops_output(&o, 1, 3);
    CHECK_FAILS(be->head_norm(be, y, r, x, bad, 0.1f), CUDPO_EINVAL, "is_heads");
    CHECK_FAILS(be->head_norm(be, y, tensor_cols(r, 0, 1), x, w, 0.1f), CUDPO_EINVAL, "is_heads");
    CHECK_FAILS(be->head_norm(be, tensor_cols(y, 0, 4), r, x, w, 0.1f), CUDPO_EINVAL, "is_f32");
    CHECK_FAILS(be->head_norm(be, y, r, x, w, -0.1f), CUDPO_EINVAL, "epsilon");
    CHECK_FAILS(be->head_norm_backward(be, y, bad, y, x, r, w), CUDPO_EINVAL, "dw");
    CHECK_FAILS(be->head_norm_backward(be, y, w, w, x, r, w), CUDPO_EINVAL, "dy");
    ops_check_untouched(&o, y);
    ops_check_untouched(&o, r);
    ops_check_untouched(&o, w);
    ops_end(&o);
}

enum { LT = 400, LN = 3, LD = 40, LX = LT * LN * LD };

static void run_large(ops *o, float *result)
{
    problem p = problem_create(LT, LN, LD);
    run(o, result, result + LX, result + 2 * LX, &p, true);
    problem_free(&p);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 2 * LX + LD);
}

static const op_case cases[] = {
    {"two_heads_by_hand", two_heads_by_hand},
    {"slopes_by_finite_differences", slopes_by_finite_differences},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
