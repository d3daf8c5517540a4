/* row_coefficients.cu - each score row gets the slope of the loss in its sequence's score. */
#include "check.h"
#include "kernels.h"

enum { THREADS = 256 };

/* One thread per row.  8 bytes read and 4 written, and a coefficient, which neighbours share. */
static __global__ void __launch_bounds__(THREADS)
    row_coefficients_kernel(tensor row, tensor coefficient, tensor sequence, tensor scale,
                            int *fault)
{
    const int64_t r = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (r >= row.rows) return;
    const int64_t s = ((const int32_t *)sequence.data)[r * sequence.stride];
    const bool valid = 0 <= s && s < coefficient.rows;
    const float slope = valid ? ((const float *)coefficient.data)[s * coefficient.stride] : NAN;
    ((float *)row.data)[r * row.stride] = -slope * ((const float *)scale.data)[r * scale.stride];
    if (!valid && fault != NULL) atomicOr(fault, (int)FAULT_INDEX);
}

/* row[r] = -coefficient[sequence[r]] * scale[r]: what a row of token_logprob's gradient is to be multiplied with.
 *  Out:     row          [R] f32; NaN where the sequence is out of range, which sets FAULT_INDEX.
 *  In:      coefficient  [S] f32, d(loss) / d(sequence score).       sequence  [R] i32 in 0 .. S-1.
 *           scale        [R] f32, as token_logprob left it.  All may be strided.
 *           Nothing overlaps row or fault.  R up to 2^39 - 256.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, row untouched; CUDPO_EDEVICE.
 *  Moves 12 bytes a row. */
extern "C" cudpo_status cuda_row_coefficients(tensor row, tensor coefficient, tensor sequence,
                                              tensor scale, tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_f32(row, row.rows, 1) && row.rows <= (int64_t)INT32_MAX * THREADS);
    CUDPO_REQUIRE(is_f32(coefficient, coefficient.rows, 1));
    CUDPO_REQUIRE(is_i32(sequence, row.rows, 1));
    CUDPO_REQUIRE(is_f32(scale, row.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(row, coefficient) && tensor_disjoint(row, sequence) &&
                  tensor_disjoint(row, scale) && tensor_disjoint(row, fault));
    CUDPO_REQUIRE(tensor_disjoint(fault, coefficient) && tensor_disjoint(fault, sequence) &&
                  tensor_disjoint(fault, scale));
    if (row.rows == 0) return CUDPO_OK;
    LAUNCH(row_coefficients_kernel, blocks_for(row.rows, THREADS), THREADS, 0, stream, row,
           coefficient, sequence, scale, (int *)fault.data);
    return LAUNCHED();
}
