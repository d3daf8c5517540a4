/* segment_sum.c - sums of runs of rows: from token scores to sequence scores. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

/* begin [S+1] does not decrease and stays within R rows. */
static bool is_partition(tensor begin, int64_t S, int64_t R)
{
    if (!is_i32(begin, S + 1, 1) || index_of(begin, 0) < 0 || index_of(begin, S) > R) return false;
    for (int64_t s = 0; s < S; s++) {
        if (index_of(begin, s) > index_of(begin, s + 1)) return false;
    }
    return true;
}

cudpo_status cpu_segment_sum(backend *be, tensor out, tensor x, tensor begin)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(out.rows >= 0 && is_f32(out, out.rows, x.cols));
    CUDPO_REQUIRE(is_partition(begin, out.rows, x.rows));
    CUDPO_REQUIRE(tensor_disjoint(out, x) && tensor_disjoint(out, begin));
    for (int64_t s = 0; s < out.rows; s++) {
        for (int64_t i = 0; i < x.cols; i++) {
            double sum = 0;
            for (int64_t r = index_of(begin, s); r < index_of(begin, s + 1); r++) {
                sum += (double)row_of(x, r)[i];
            }
            row_of(out, s)[i] = (float)sum;
        }
    }
    return CUDPO_OK;
}
