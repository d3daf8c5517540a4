/* embed.c - rows of the embedding table for tokens, and their gradient. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

#include <string.h>

enum { BLOCK = 64 }; /* columns that one thread adds up, for all tokens in order */

cudpo_status cpu_embed(backend *be, tensor x, tensor table, tensor token)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(table));
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(x.cols == table.cols);
    CUDPO_REQUIRE(tensor_disjoint(x, table));
    CUDPO_REQUIRE(tensor_disjoint(x, token));
    CUDPO_REQUIRE(is_index(token, x.rows, table.rows));
#pragma omp parallel for if (x.rows * x.cols > 65536)
    for (int64_t t = 0; t < x.rows; t++) {
        memcpy(row_of(x, t), row_of(table, index_of(token, t)), (size_t)x.cols * sizeof(float));
    }
    return CUDPO_OK;
}

cudpo_status cpu_embed_backward(backend *be, tensor dtable, tensor dx, tensor token)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(dtable));
    CUDPO_REQUIRE(is_matrix(dx));
    CUDPO_REQUIRE(dx.cols == dtable.cols);
    CUDPO_REQUIRE(tensor_disjoint(dtable, dx));
    CUDPO_REQUIRE(tensor_disjoint(dtable, token));
    CUDPO_REQUIRE(is_index(token, dx.rows, dtable.rows));
#pragma omp parallel for schedule(dynamic) if (dx.rows * dx.cols > 65536)
    for (int64_t begin = 0; begin < dx.cols; begin += BLOCK) {
        const int64_t n = min_i64(BLOCK, dx.cols - begin);
        for (int64_t t = 0; t < dx.rows; t++) {
            float *to = row_of(dtable, index_of(token, t)) + begin;
            const float *from = row_of(dx, t) + begin;
            for (int64_t i = 0; i < n; i++) {
                to[i] += from[i];
            }
        }
    }
    return CUDPO_OK;
}
