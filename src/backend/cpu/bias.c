/* bias.c - the bias of a linear layer. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

enum { BLOCK = 64 }; /* columns that one thread adds up, over all rows in order */

cudpo_status cpu_bias_add(backend *be, tensor x, tensor bias)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_f32(bias, 1, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(x, bias));
    const float *b = tensor_f32(bias);
#pragma omp parallel for if (x.rows * x.cols > 65536)
    for (int64_t t = 0; t < x.rows; t++) {
        float *row = row_of(x, t);
        for (int64_t i = 0; i < x.cols; i++) {
            row[i] += b[i];
        }
    }
    return CUDPO_OK;
}

cudpo_status cpu_bias_backward(backend *be, tensor dbias, tensor dx)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(dx));
    CUDPO_REQUIRE(is_f32(dbias, 1, dx.cols));
    CUDPO_REQUIRE(tensor_disjoint(dbias, dx));
#pragma omp parallel for if (dx.rows * dx.cols > 65536)
    for (int64_t begin = 0; begin < dx.cols; begin += BLOCK) {
        const int64_t n = min_i64(BLOCK, dx.cols - begin);
        double sum[BLOCK] = {0};
        for (int64_t t = 0; t < dx.rows; t++) {
            const float *row = row_of(dx, t) + begin;
            for (int64_t i = 0; i < n; i++) {
                sum[i] += (double)row[i];
            }
        }
        for (int64_t i = 0; i < n; i++) {
            tensor_f32(dbias)[begin + i] += (float)sum[i];
        }
    }
    return CUDPO_OK;
}
