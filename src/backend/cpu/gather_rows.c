/* gather_rows.c - rows of a matrix by index, and the way back. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

#include <string.h>

enum { BLOCK = 64 }; /* columns that one thread adds up, for all rows in order */

cudpo_status cpu_gather_rows(backend *be, tensor out, tensor x, tensor index)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_matrix(out));
    CUDPO_REQUIRE(out.cols == x.cols);
    CUDPO_REQUIRE(tensor_disjoint(out, x));
    CUDPO_REQUIRE(tensor_disjoint(out, index));
    CUDPO_REQUIRE(is_index(index, out.rows, x.rows));
#pragma omp parallel for if (out.rows * out.cols > 65536)
    for (int64_t r = 0; r < out.rows; r++) {
        memcpy(row_of(out, r), row_of(x, index_of(index, r)), (size_t)x.cols * sizeof(float));
    }
    return CUDPO_OK;
}

cudpo_status cpu_scatter_rows(backend *be, tensor dx, tensor drow, tensor index, tensor scale)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(dx));
    CUDPO_REQUIRE(is_matrix(drow));
    CUDPO_REQUIRE(drow.cols == dx.cols);
    CUDPO_REQUIRE(!tensor_present(scale) || is_f32(scale, drow.rows, 1));
    CUDPO_REQUIRE(tensor_disjoint(dx, drow));
    CUDPO_REQUIRE(tensor_disjoint(dx, index));
    CUDPO_REQUIRE(tensor_disjoint(dx, scale));
    CUDPO_REQUIRE(is_index(index, drow.rows, dx.rows));
#pragma omp parallel for schedule(dynamic) if (dx.rows * dx.cols > 65536)
    for (int64_t begin = 0; begin < dx.cols; begin += BLOCK) {
        const int64_t n = min_i64(BLOCK, dx.cols - begin);
        for (int64_t t = 0; t < dx.rows; t++) {
            memset(row_of(dx, t) + begin, 0, (size_t)n * sizeof(float));
        }
        for (int64_t r = 0; r < drow.rows; r++) {
            float *to = row_of(dx, index_of(index, r)) + begin;
            const float *from = row_of(drow, r) + begin;
            const float factor = tensor_present(scale) ? *row_of(scale, r) : 1.0f;
            for (int64_t i = 0; i < n; i++) {
                to[i] += factor * from[i];
            }
        }
    }
    return CUDPO_OK;
}

cudpo_status cpu_scale_rows(backend *be, tensor x, tensor scale)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_f32(scale, x.rows, 1));
    CUDPO_REQUIRE(tensor_disjoint(x, scale));
#pragma omp parallel for if (x.rows * x.cols > 65536)
    for (int64_t r = 0; r < x.rows; r++) {
        float *row = row_of(x, r);
        const float factor = *row_of(scale, r);
        for (int64_t i = 0; i < x.cols; i++) {
            row[i] *= factor;
        }
    }
    return CUDPO_OK;
}
