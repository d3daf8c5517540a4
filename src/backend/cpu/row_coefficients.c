/* row_coefficients.c - each score row gets the slope of the loss in its sequence's score. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

cudpo_status cpu_row_coefficients(backend *be, tensor row, tensor coefficient, tensor sequence,
                                  tensor scale)
{
    (void)be;
    CUDPO_REQUIRE(row.rows >= 0 && is_f32(row, row.rows, 1));
    CUDPO_REQUIRE(coefficient.rows >= 0 && is_f32(coefficient, coefficient.rows, 1));
    CUDPO_REQUIRE(is_index(sequence, row.rows, coefficient.rows));
    CUDPO_REQUIRE(is_f32(scale, row.rows, 1));
    CUDPO_REQUIRE(tensor_disjoint(row, coefficient) && tensor_disjoint(row, sequence) &&
                  tensor_disjoint(row, scale));
    for (int64_t r = 0; r < row.rows; r++) {
        *row_of(row, r) = -*row_of(coefficient, index_of(sequence, r)) * *row_of(scale, r);
    }
    return CUDPO_OK;
}
