/* sum_squares.c - the squared norm of a gradient. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

#include <float.h>

enum { PIECES = 256 }; /* partial sums, whatever the number of threads */

VECTORISED_VALUE(double, squares, (const float *x, int64_t n), (x, n))
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

cudpo_status cpu_sum_squares(backend *be, double *host_out, tensor g)
{
    (void)be;
    CUDPO_REQUIRE(host_out != NULL);
    CUDPO_REQUIRE(is_matrix(g));
    /* A dense matrix is one run of numbers, of which each piece takes a share; otherwise it takes rows. */
    const bool dense = tensor_dense(g);
    const int64_t n = dense ? g.rows * g.cols : g.rows, width = dense ? 1 : g.cols;
    const int64_t stride = dense ? 1 : g.stride, share = (n + PIECES - 1) / PIECES;
    double part[PIECES] = {0};
#pragma omp parallel for if (n * width > 65536)
    for (int64_t piece = 0; piece < PIECES; piece++) {
        const int64_t begin = min_i64(piece * share, n), end = min_i64(begin + share, n);
        if (dense) {
            part[piece] = squares(tensor_f32(g) + begin, end - begin);
            continue;
        }
        for (int64_t r = begin; r < end; r++) {
            part[piece] += squares(tensor_f32(g) + r * stride, width);
        }
    }
    double sum = 0;
    for (int piece = 0; piece < PIECES; piece++) {
        sum += part[piece];
    }
    *host_out = sum;
    return CUDPO_OK;
}

cudpo_status cpu_clip(backend *be, tensor norm, tensor factor, tensor gradient, float max_norm)
{
    double sum = 0.0;
    CUDPO_REQUIRE(is_f32(norm, 1, 1));
    CUDPO_REQUIRE(is_f32(factor, 1, 1));
    CUDPO_REQUIRE(isfinite(max_norm) && max_norm >= 0.0f);
    CUDPO_TRY(cpu_sum_squares(be, &sum, gradient));
    const double root = sqrt(sum), shrink = (double)max_norm / (root + 1e-6);
    *tensor_f32(norm) = (float)root;
    *tensor_f32(factor) = !(root <= (double)FLT_MAX)        ? NAN
                          : max_norm > 0.0f && shrink < 1.0 ? (float)shrink
                                                            : 1.0f;
    return CUDPO_OK;
}
