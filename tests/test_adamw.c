/* test_adamw.c - steps of AdamW. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"

static adamw_step step_of(int t)
{
    return (adamw_step){.learning_rate = 0.125,
                        .beta1 = 0.9,
                        .beta2 = 0.999,
                        .epsilon = 1e-8,
                        .weight_decay = 0.5,
                        .bias_correction1 = 1 - pow(0.9, t),
                        .bias_correction2 = 1 - pow(0.999, t)};
}

/* The first step moves by the learning rate against the sign of the gradient: m / (1 - beta1) = g and
 * sqrt(v / (1 - beta2)) = |g|.  Decay first: 2 (1 - 0.125 * 0.5) = 1.875. */
static void first_step_by_hand(backend *be)
{
    static const float w[] = {2, 2, 2}, zero[3] = {0}, g[] = {3, -0.5f, 0};
    static const double want[] = {1.75, 2, 1.875}, want_m[] = {0.15, -0.025, 0},
                        want_v[] = {0.00225, 0.0000625, 0};
    float got[3];
    ops o = ops_begin(be);
    const tensor tw = ops_floats(&o, w, 1, 3), tm = ops_floats(&o, zero, 1, 3);
    const tensor tv = ops_floats(&o, zero, 1, 3);
    CHECK_OK(plain_adamw(be, tw, tm, tv, ops_floats(&o, g, 1, 3), 0.5f, step_of(1)));
    ops_get(&o, got, tw);
    check_close("w", got, want, 3, 4 * EPS);
    ops_get(&o, got, tm);
    check_close("m", got, want_m, 3, 2 * 0.15 * EPS);
    ops_get(&o, got, tv);
    check_close("v", got, want_v, 3, 3 * 0.00225 * EPS);
    ops_end(&o);
}

/* Three steps against the formulas in double, from moments of a run; each step rounds w a few times, and an update is
 * off by a few roundings of its size, below 0.4. */
static void check_size(backend *be, int64_t rows, int64_t cols, int64_t stride, int shift)
{
    const int64_t n = rows * cols;
    float *w = random_floats(1, n), *m = random_floats(2, n), *v = random_floats(3, n);
    float *g = random_floats(4, n), *got = zeros(n, 4);
    double *dw = zeros(n, 8), *dm = zeros(n, 8), *dv = zeros(n, 8);
    for (int64_t i = 0; i < n; i++) {
        v[i] = 0.5f + v[i] * v[i];
        dw[i] = (double)w[i];
        dm[i] = (double)m[i];
        dv[i] = (double)v[i];
    }
    ops o = ops_begin(be);
    const tensor tw = ops_strided(&o, w, rows, cols, stride), tg = ops_floats(&o, g, rows, cols);
    const tensor tv = ops_strided(&o, v, rows, cols, 2 * stride - cols);
    const tensor tm = ops_make_at(&o, DTYPE_F32, rows, cols, cols, shift);
    ops_put(&o, tm, m);
    for (int t = 5; t < 8; t++) {
        const adamw_step s = step_of(t);
        CHECK_OK(plain_adamw(be, tw, tm, tv, tg, 0.25f, s));
        for (int64_t i = 0; i < n; i++) {
            const double gradient = 0.25 * (double)g[i];
            dm[i] = s.beta1 * dm[i] + (1 - s.beta1) * gradient;
            dv[i] = s.beta2 * dv[i] + (1 - s.beta2) * gradient * gradient;
            dw[i] -= s.learning_rate * s.weight_decay * dw[i];
            dw[i] -= s.learning_rate * dm[i] / s.bias_correction1 /
                     (sqrt(dv[i]) / sqrt(s.bias_correction2) + s.epsilon);
        }
    }
    ops_get(&o, got, tw);
    check_close("w", got, dw, n, 3 * 8 * EPS);
    ops_get(&o, got, tm);
    check_close("m", got, dm, n, 3 * 8 * EPS);
    ops_get(&o, got, tv);
    check_close("v", got, dv, n, 3 * 20 * EPS);
    ops_end(&o);
    free(w);
    free(m);
    free(v);
    free(g);
    free(got);
    free(dw);
    free(dm);
    free(dv);
}

static void tails_dense_and_strided(backend *be)
{
    static const int64_t n[] = {1,   31,  32,  33,   127,  128,  129,  255,   256,   257,
                                511, 512, 513, 1000, 2047, 2048, 2049, 16383, 16385, 50001};
    for (int i = 0; i < 20; i++) {
        check_size(be, 1, n[i], n[i], 0);
        check_size(be, 3, n[i], n[i] + 2, 0);
        check_size(be, 4, n[i], n[i], 0);
        check_size(be, 5, n[i], n[i], 1);
    }
    check_size(be, 37, 36, 40, 0); /* rows of whole vectors, with gaps of whole vectors */
    check_size(be, 37, 36, 40, 2);
    check_size(be, 3, 2048, 2052, 4);
}

enum { LARGE = 40003 };

static void run_large(ops *o, float *result)
{
    float *host = random_floats(1, LARGE);
    const tensor w = ops_floats(o, host, 1, LARGE), m = ops_floats(o, host, 1, LARGE);
    const tensor g = ops_floats(o, host, 1, LARGE);
    for (int i = 0; i < LARGE; i++) {
        host[i] *= host[i];
    }
    const tensor v = ops_floats(o, host, 1, LARGE);
    CHECK_OK(plain_adamw(o->be, w, m, v, g, 0.25f, step_of(3)));
    ops_get(o, result, w);
    ops_get(o, result + LARGE, m);
    ops_get(o, result + 2 * LARGE, v);
    free(host);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 3 * LARGE);
}

static const op_case cases[] = {
    {"first_step_by_hand", first_step_by_hand},
    {"tails_dense_and_strided", tails_dense_and_strided},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
