/* test_norm.h - what the tests of both norms share: inputs, and the answers in double with the bounds of their errors.
 * A token has n rows of D elements; RMSNorm of a whole row is n = 1. */
#ifndef CUDPO_TEST_NORM_H
#define CUDPO_TEST_NORM_H

#include "test_ops.h"

#include <float.h>

static const float norm_epsilon = 1e-3f;

/* Sizes and types of a case, and how its matrices lie: rows `pad` elements apart, the first one `shift` elements behind a
 * vector's boundary. */
typedef struct norm_sizes {
    int64_t T, n, D;
    bool bf16, dw_bf16;
    int pad, shift;
} norm_sizes;

typedef struct norm_inputs {
    norm_sizes z;
    int64_t X; /* elements of a matrix */
    dtype type;
    float *x, *dy, *dx, *w, *dw, *rstd; /* rounded to their types; rstd is the norm's, as float */
} norm_inputs;

static inline double norm_mean_square(const float *x, int64_t D)
{
    double mean = 0;
    for (int64_t i = 0; i < D; i++) {
        mean += (double)x[i] * (double)x[i] / (double)D;
    }
    return mean;
}

/* x times a factor, and rstd of it. */
static inline void norm_scale_x(norm_inputs *in, float factor)
{
    const int64_t D = in->z.D;
    for (int64_t i = 0; i < in->X; i++) {
        in->x[i] *= factor;
    }
    round_to(in->type, in->x, in->X);
    for (int64_t r = 0; r < in->z.T * in->z.n; r++) {
        const double mean = norm_mean_square(in->x + r * D, D);
        in->rstd[r] = (float)(1 / sqrt(mean + (double)norm_epsilon));
    }
}

static inline float *norm_random(uint64_t seed, dtype type, int64_t n)
{
    float *x = random_floats(seed, n);
    round_to(type, x, n);
    return x;
}

static inline norm_inputs norm_inputs_create(norm_sizes z)
{
    const dtype type = bf16_or_f32(z.bf16);
    const int64_t X = z.T * z.n * z.D, R = z.T * z.n;
    norm_inputs in = {z,
                      X,
                      type,
                      norm_random(1, type, X),
                      norm_random(4, type, X),
                      norm_random(5, type, X),
                      norm_random(3, type, z.D),
                      norm_random(6, bf16_or_f32(z.dw_bf16), z.D),
                      zeros(R, sizeof(float))};
    norm_scale_x(&in, 1);
    return in;
}

/* Small numbers, of which every product and every sum for dw is exact: rstd is 1/2, 1 or 2. */
static inline norm_inputs norm_inputs_exact(norm_sizes z)
{
    const int64_t X = z.T * z.n * z.D, R = z.T * z.n;
    norm_inputs in = {z,
                      X,
                      bf16_or_f32(z.bf16),
                      zeros(X, sizeof(float)),
                      zeros(X, sizeof(float)),
                      zeros(X, sizeof(float)),
                      zeros(z.D, sizeof(float)),
                      zeros(z.D, sizeof(float)),
                      zeros(R, sizeof(float))};
    for (int64_t i = 0; i < X; i++) {
        const uint64_t bits = rng_bits(7, 0, (uint64_t)i);
        in.x[i] = (float)(int)(bits % 5) - 2.0f;
        in.dy[i] = (float)(int)(bits / 8 % 5) - 2.0f;
        in.dx[i] = (float)(int)(bits / 64 % 5) - 2.0f;
    }
    for (int64_t i = 0; i < z.D; i++) {
        in.w[i] = (float)(i % 3) - 0.5f;
        in.dw[i] = (float)(i % 7);
    }
    for (int64_t r = 0; r < R; r++) {
        in.rstd[r] = 0.5f * (float)(1 << r % 3);
    }
    return in;
}

static inline void norm_inputs_free(norm_inputs *in)
{
    free(in->x);
    free(in->dy);
    free(in->dx);
    free(in->w);
    free(in->dw);
    free(in->rstd);
}

/* A matrix [T, n*D] of the case with that content, or an output (NULL). */
static inline tensor norm_matrix(ops *o, const norm_inputs *in, const float *host)
{
    const int64_t W = in->z.n * in->z.D;
    const tensor t = ops_make_at(o, in->type, in->z.T, W, W + in->z.pad, in->z.shift);
    if (host != NULL) ops_put_floats(o, t, host);
    return t;
}

/* |got - want| <= bound, which is never NaN. */
static inline void norm_near(const char *what, int64_t i, float got, double want, double bound)
{
    if (!(fabs((double)got - want) <= bound))
        fail_msg("%s[%lld] = %.9g, want %.9g within %g", what, (long long)i, (double)got, want,
                 bound);
}

/* Relative error of a result's rounding beside that to float, and 1 % for the products of errors that the bounds below
 * leave out. */
static inline double norm_rounding(dtype type)
{
    return type == DTYPE_BF16 ? EPS_BF16 : 0.0;
}
#define NORM_REST 1.01

/* Additions one after the other of which a term of a sum over a row passes through at most: 32 in a thread (or one for
 * 256 elements), 5 in a warp, 8 over warps.  The CPU adds in double. */
static inline double norm_additions(const backend *be, int64_t D)
{
    return be->on_device ? 45 + (double)D / 256 : 0;
}

/* rstd = (s / D + epsilon)^-1/2: terms of s are positive, so its relative error is at most (additions + 1) EPS; division
 * and epsilon add 2; the root halves that and adds 1, the reciprocal 1.  The device's s is a float: beyond its largest,
 * rstd is 0.
 * y = (x rstd) w, given rstd: 2 roundings and that to the type; each is at most half a step of subnormal numbers off. */
static inline void norm_check_forward(const backend *be, const norm_inputs *in, const float *x,
                                      const float *y, const float *rstd)
{
    const int64_t D = in->z.D;
    for (int64_t r = 0; r < in->z.T * in->z.n; r++) {
        const double mean = norm_mean_square(x + r * D, D);
        const bool beyond = be->on_device && mean * (double)D > (double)FLT_MAX;
        const double exact = beyond ? 0 : 1 / sqrt(mean + (double)norm_epsilon);
        norm_near("rstd", r, rstd[r], exact,
                  exact * EPS * ((norm_additions(be, D) + 3) / 2 + 2) * NORM_REST);
        for (int64_t i = 0; i < D; i++) {
            const int64_t at = r * D + i;
            const double want = (double)x[at] * (double)rstd[r] * (double)in->w[i];
            const double step =
                0x1p-150 * (1 + fabs((double)in->w[i])) + (in->type == DTYPE_BF16 ? 0x1p-134 : 0);
            norm_near("y", at, y[at], want,
                      fabs(want) * (2 * EPS + norm_rounding(in->type)) * NORM_REST + step);
        }
    }
}

/* dx: with c the mean of g xhat, whose terms have 3 roundings and the additions of a row, and which is divided once,
 * the error of rstd (g - xhat c) is at most rstd (|xhat| error(c) + 4 EPS (|g| + |xhat c|)); then the sum with dx, where
 * it accumulates, and the rounding to the type. */
static inline void norm_check_dx(const backend *be, const norm_inputs *in, bool accumulates,
                                 const float *dx)
{
    const int64_t D = in->z.D;
    for (int64_t r = 0; r < in->z.T * in->z.n; r++) {
        const double rstd = (double)in->rstd[r];
        double c = 0, size = 0;
        for (int64_t i = 0; i < D; i++) {
            const double g = (double)in->dy[r * D + i] * (double)in->w[i];
            c += g * (double)in->x[r * D + i] * rstd / (double)D;
            size += fabs(g * (double)in->x[r * D + i] * rstd) / (double)D;
        }
        const double error = (norm_additions(be, D) + 4) * EPS * size;
        for (int64_t i = 0; i < D; i++) {
            const int64_t at = r * D + i;
            const double g = (double)in->dy[at] * (double)in->w[i];
            const double xhat = (double)in->x[at] * rstd;
            const double want = (accumulates ? (double)in->dx[at] : 0.0) + rstd * (g - xhat * c);
            const double bound =
                rstd * (fabs(xhat) * error + 4 * EPS * (fabs(g) + fabs(xhat * c))) +
                fabs(want) * (EPS + norm_rounding(in->type));
            norm_near("dx", at, dx[at], want, bound * NORM_REST);
        }
    }
}

/* dw: terms have 2 roundings; a thread adds a 264th of the rows or a batch of 4 at most; then 2 of a warp, 8 of a block, 13
 * blocks, 32 warps, and dw.  The CPU adds in double, but for dw. */
static inline void norm_check_dw(const backend *be, const norm_inputs *in, bool exact,
                                 const float *dw)
{
    const int64_t D = in->z.D, R = in->z.T * in->z.n;
    const dtype type = bf16_or_f32(in->z.dw_bf16);
    const double additions = be->on_device ? (double)R / 264 + 4 + 56 : 1;
    double *want = zeros(D, 8), *size = zeros(D, 8);
    for (int64_t r = 0; r < R; r++) {
        for (int64_t i = 0; i < D; i++) {
            const double term =
                (double)in->dy[r * D + i] * (double)in->x[r * D + i] * (double)in->rstd[r];
            want[i] += term;
            size[i] += fabs(term);
        }
    }
    for (int64_t i = 0; i < D; i++) {
        const double sum = want[i] + (double)in->dw[i];
        float rounded = (float)sum;
        round_to(type, &rounded, 1);
        if (exact)
            norm_near("dw", i, dw[i], (double)rounded, 0);
        else
            norm_near("dw", i, dw[i], sum,
                      ((additions + 2) * EPS * size[i] + fabs(sum) * (EPS + norm_rounding(type))) *
                          NORM_REST);
    }
    free(want);
    free(size);
}

#endif /* CUDPO_TEST_NORM_H */
