/* reduce.c - sums and maxima along one side of a matrix. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

enum { BLOCK = 256 }; /* columns of a thread at a time */

static float reduce_row(const float *x, int64_t n, bool largest)
{
    float value = largest ? -INFINITY : 0.0f;
    if (largest) {
        for (int64_t c = 0; c < n; c++)
            value = fmaxf(value, x[c]);
        return value;
    }
    double sum = 0;
    for (int64_t c = 0; c < n; c++)
        sum += (double)x[c];
    return (float)sum;
}

static void reduce_block(float *to, tensor a, int64_t row, int64_t each, int64_t first, int64_t n,
                         bool largest)
{
    for (int64_t c = 0; c < n; c++)
        to[c] = largest ? -INFINITY : 0.0f;
    for (int64_t r = row; r < row + each; r++) {
        const float *from = row_of(a, r) + first;
        for (int64_t c = 0; c < n; c++)
            to[c] = largest ? fmaxf(to[c], from[c]) : to[c] + from[c];
    }
}

cudpo_status cpu_reduce(backend *be, tensor out, tensor a, bool largest)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(out));
    CUDPO_REQUIRE(is_matrix(a));
    CUDPO_REQUIRE(tensor_disjoint(out, a));
    const bool columns = out.rows == a.rows && out.cols == 1;
    CUDPO_REQUIRE(columns || (out.cols == a.cols && out.rows >= 1 && a.rows >= out.rows &&
                              a.rows % out.rows == 0));
    if (columns) {
#pragma omp parallel for if (a.rows * a.cols > 65536)
        for (int64_t r = 0; r < a.rows; r++)
            *row_of(out, r) = reduce_row(row_of(a, r), a.cols, largest);
        return CUDPO_OK;
    }
    const int64_t blocks = (a.cols + BLOCK - 1) / BLOCK, each = a.rows / out.rows;
#pragma omp parallel for if (a.rows * a.cols > 65536)
    for (int64_t i = 0; i < out.rows * blocks; i++) {
        const int64_t row = i / blocks, first = i % blocks * BLOCK;
        reduce_block(row_of(out, row) + first, a, row * each, each, first,
                     min_i64(BLOCK, a.cols - first), largest);
    }
    return CUDPO_OK;
}
