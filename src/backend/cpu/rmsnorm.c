/* rmsnorm.c - RMSNorm with the residual sum before it.
 *
 * With g = dy * w and xhat = x * rstd:   dx += rstd * (g - xhat * mean(g * xhat)),   dw += sum over rows of dy * xhat.
 * Sums over a row and over rows are in double: four orders below what float rounding of the result costs. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

#include <string.h>

enum { BLOCK = 64 }; /* columns of dw that one thread adds up, over all rows in order */

/* sum and x may be the same memory: an element is read before it is written. */
VECTORISED(add_rows, (float *sum, const float *x, const float *restrict branch, int64_t C),
           (sum, x, branch, C))
{
#pragma omp simd
    for (int64_t i = 0; i < C; i++) {
        sum[i] = x[i] + branch[i];
    }
}

VECTORISED_VALUE(double, squares, (const float *x, int64_t C), (x, C))
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < C; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

VECTORISED(normalise,
           (float *restrict y, const float *restrict x, const float *restrict w, float rstd,
            int64_t C),
           (y, x, w, rstd, C))
{
    for (int64_t i = 0; i < C; i++) {
        y[i] = x[i] * rstd * w[i];
    }
}

VECTORISED(backward_row,
           (float *restrict dx, const float *restrict dy, const float *restrict x,
            const float *restrict w, float rstd, int64_t C),
           (dx, dy, x, w, rstd, C))
{
    double dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < C; i++) {
        dot += (double)(dy[i] * w[i]) * (double)x[i];
    }
    const float mean = (float)(dot * (double)rstd / (double)C);
    for (int64_t i = 0; i < C; i++) {
        dx[i] += rstd * (dy[i] * w[i] - x[i] * rstd * mean);
    }
}

VECTORISED(accumulate_weight,
           (double *restrict sum, const float *restrict dy, const float *restrict x, float rstd,
            int64_t n),
           (sum, dy, x, rstd, n))
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += (double)(dy[i] * (x[i] * rstd));
    }
}

cudpo_status cpu_add_rmsnorm(backend *be, tensor y, tensor rstd, tensor sum, tensor x,
                             tensor branch, tensor w, float epsilon)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(is_f32(rstd, x.rows, 1));
    CUDPO_REQUIRE(is_like(sum, x));
    CUDPO_REQUIRE(is_f32(w, 1, x.cols));
    CUDPO_REQUIRE(!tensor_present(branch) || is_like(branch, x));
    CUDPO_REQUIRE(isfinite(epsilon) && epsilon >= 0.0f);
    CUDPO_REQUIRE(is_same(sum, x) || tensor_disjoint(sum, x));
    CUDPO_REQUIRE(tensor_disjoint(sum, branch) && tensor_disjoint(sum, w) &&
                  tensor_disjoint(sum, rstd));
    CUDPO_REQUIRE(tensor_disjoint(y, x) && tensor_disjoint(y, branch) && tensor_disjoint(y, w));
    CUDPO_REQUIRE(tensor_disjoint(y, sum) && tensor_disjoint(y, rstd));
    CUDPO_REQUIRE(tensor_disjoint(rstd, x) && tensor_disjoint(rstd, branch) &&
                  tensor_disjoint(rstd, w));
    const size_t bytes = (size_t)x.cols * sizeof(float);
#pragma omp parallel for if (x.rows * x.cols > 16384)
    for (int64_t t = 0; t < x.rows; t++) {
        float *row = row_of(sum, t);
        if (tensor_present(branch))
            add_rows(row, row_of(x, t), row_of(branch, t), x.cols);
        else if (sum.data != x.data)
            memcpy(row, row_of(x, t), bytes);
        const double mean = squares(row, x.cols) / (double)x.cols;
        const float r = (float)(1.0 / sqrt(mean + (double)epsilon));
        *row_of(rstd, t) = r;
        normalise(row_of(y, t), row, tensor_f32(w), r, x.cols);
    }
    return CUDPO_OK;
}

cudpo_status cpu_rmsnorm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                  tensor rstd, tensor w)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_like(dx, x));
    CUDPO_REQUIRE(is_like(dy, x));
    CUDPO_REQUIRE(is_f32(rstd, x.rows, 1));
    CUDPO_REQUIRE(is_f32(w, 1, x.cols));
    CUDPO_REQUIRE(is_f32(dw, 1, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(dx, dy) && tensor_disjoint(dx, x) && tensor_disjoint(dx, w));
    CUDPO_REQUIRE(tensor_disjoint(dx, rstd) && tensor_disjoint(dx, dw));
    CUDPO_REQUIRE(tensor_disjoint(dw, dy) && tensor_disjoint(dw, x) && tensor_disjoint(dw, w));
    CUDPO_REQUIRE(tensor_disjoint(dw, rstd));
#pragma omp parallel if (x.rows * x.cols > 16384)
    {
#pragma omp for nowait
        for (int64_t t = 0; t < x.rows; t++) {
            backward_row(row_of(dx, t), row_of(dy, t), row_of(x, t), tensor_f32(w),
                         *row_of(rstd, t), x.cols);
        }
#pragma omp for
        for (int64_t begin = 0; begin < x.cols; begin += BLOCK) {
            const int64_t n = min_i64(BLOCK, x.cols - begin);
            double sum[BLOCK] = {0};
            for (int64_t t = 0; t < x.rows; t++) {
                accumulate_weight(sum, row_of(dy, t) + begin, row_of(x, t) + begin,
                                  *row_of(rstd, t), n);
            }
            for (int64_t i = 0; i < n; i++) {
                tensor_f32(dw)[begin + i] += (float)sum[i];
            }
        }
    }
    return CUDPO_OK;
}

cudpo_status cpu_rmsnorm_again(backend *be, tensor y, tensor x, tensor rstd, tensor w)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(is_f32(rstd, x.rows, 1));
    CUDPO_REQUIRE(is_f32(w, 1, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(y, x) && tensor_disjoint(y, rstd) && tensor_disjoint(y, w));
#pragma omp parallel for if (x.rows * x.cols > 16384)
    for (int64_t t = 0; t < x.rows; t++) {
        normalise(row_of(y, t), row_of(x, t), tensor_f32(w), *row_of(rstd, t), x.cols);
    }
    return CUDPO_OK;
}
