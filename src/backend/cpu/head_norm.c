/* head_norm.c - RMSNorm of each head alone: Qwen3's q and k norms.  The slopes are those of rmsnorm.c. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

enum { BLOCK = 16 }; /* columns of dw that one thread adds up, over all tokens and heads in order */

VECTORISED_VALUE(float, normalise_head,
                 (float *restrict y, const float *restrict x, const float *restrict w,
                  float epsilon, int64_t D),
                 (y, x, w, epsilon, D))
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < D; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    const float rstd = (float)(1.0 / sqrt(sum / (double)D + (double)epsilon));
    for (int64_t i = 0; i < D; i++) {
        y[i] = x[i] * rstd * w[i];
    }
    return rstd;
}

/* dx and dy may be the same memory: an element is read before it is written. */
VECTORISED(backward_head,
           (float *dx, const float *dy, const float *x, const float *w, float rstd, int64_t D),
           (dx, dy, x, w, rstd, D))
{
    double dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < D; i++) {
        dot += (double)(dy[i] * w[i]) * (double)x[i];
    }
    const float mean = (float)(dot * (double)rstd / (double)D);
#pragma omp simd
    for (int64_t i = 0; i < D; i++) {
        dx[i] = rstd * (dy[i] * w[i] - x[i] * rstd * mean);
    }
}

/* x [T, n*D] and rstd [T,n] are of heads whose weight is w [1,D]. */
static cudpo_status check_heads(tensor x, tensor rstd, tensor w)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(w.cols >= 1 && is_f32(w, 1, w.cols));
    CUDPO_REQUIRE(x.cols % w.cols == 0);
    CUDPO_REQUIRE(is_f32(rstd, x.rows, x.cols / w.cols));
    return CUDPO_OK;
}

cudpo_status cpu_head_norm(backend *be, tensor y, tensor rstd, tensor x, tensor w, float epsilon)
{
    (void)be;
    CUDPO_TRY(check_heads(x, rstd, w));
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(isfinite(epsilon) && epsilon >= 0.0f);
    CUDPO_REQUIRE(tensor_disjoint(y, x) && tensor_disjoint(y, w) && tensor_disjoint(y, rstd));
    CUDPO_REQUIRE(tensor_disjoint(rstd, x) && tensor_disjoint(rstd, w));
    const int64_t D = w.cols;
#pragma omp parallel for if (x.rows * x.cols > 16384)
    for (int64_t t = 0; t < x.rows; t++) {
        for (int64_t h = 0; h < rstd.cols; h++) {
            row_of(rstd, t)[h] = normalise_head(row_of(y, t) + h * D, row_of(x, t) + h * D,
                                                tensor_f32(w), epsilon, D);
        }
    }
    return CUDPO_OK;
}

cudpo_status cpu_head_norm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                    tensor rstd, tensor w)
{
    (void)be;
    CUDPO_TRY(check_heads(x, rstd, w));
    CUDPO_REQUIRE(is_f32(dw, 1, w.cols));
    CUDPO_REQUIRE(is_like(dx, x));
    CUDPO_REQUIRE(is_like(dy, x));
    CUDPO_REQUIRE(is_same(dx, dy) || tensor_disjoint(dx, dy));
    CUDPO_REQUIRE(tensor_disjoint(dx, x) && tensor_disjoint(dx, rstd) && tensor_disjoint(dx, w));
    CUDPO_REQUIRE(tensor_disjoint(dw, dx) && tensor_disjoint(dw, dy) && tensor_disjoint(dw, x));
    CUDPO_REQUIRE(tensor_disjoint(dw, rstd) && tensor_disjoint(dw, w));
    const int64_t D = w.cols;
#pragma omp parallel if (x.rows * x.cols > 16384)
    {
        /* dw first, and a barrier behind it: dx may overwrite dy. */
#pragma omp for
        for (int64_t begin = 0; begin < D; begin += BLOCK) {
            const int64_t n = min_i64(BLOCK, D - begin);
            double sum[BLOCK] = {0};
            for (int64_t t = 0; t < x.rows; t++) {
                for (int64_t h = 0; h < rstd.cols; h++) {
                    const float *dy_head = row_of(dy, t) + h * D + begin;
                    const float *x_head = row_of(x, t) + h * D + begin;
                    for (int64_t i = 0; i < n; i++) {
                        sum[i] += (double)(dy_head[i] * (x_head[i] * row_of(rstd, t)[h]));
                    }
                }
            }
            for (int64_t i = 0; i < n; i++) {
                tensor_f32(dw)[begin + i] += (float)sum[i];
            }
        }
#pragma omp for
        for (int64_t t = 0; t < x.rows; t++) {
            for (int64_t h = 0; h < rstd.cols; h++) {
                backward_head(row_of(dx, t) + h * D, row_of(dy, t) + h * D, row_of(x, t) + h * D,
                              tensor_f32(w), row_of(rstd, t)[h], D);
            }
        }
    }
    return CUDPO_OK;
}
