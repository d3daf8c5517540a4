/* add.c - the sum of two matrices, in place. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

cudpo_status cpu_add(backend *be, tensor x, tensor y)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_f32(y, x.rows, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(x, y));
#pragma omp parallel for if (x.rows * x.cols > 65536)
    for (int64_t t = 0; t < x.rows; t++) {
        float *restrict to = row_of(x, t);
        const float *restrict from = row_of(y, t);
        for (int64_t i = 0; i < x.cols; i++) {
            to[i] += from[i];
        }
    }
    return CUDPO_OK;
}
