/* segment_sum.cu - sums of runs of rows: from token scores to sequence scores. */
#include "check.h"
#include "kernels.h"
#include "vector.h"

enum { THREADS = 128, WARPS = THREADS / 32 };

/* One block per segment and column; thread t takes rows t, t + THREADS, ...  Reads the column once. */
static __global__ void __launch_bounds__(THREADS)
    segment_sum_kernel(tensor out, tensor x, tensor begin, int *fault)
{
    SHARED(double, part, [WARPS]);
    const int64_t s = blockIdx.x / out.cols, column = blockIdx.x % out.cols;
    const int32_t *edge = (const int32_t *)begin.data + s * begin.stride;
    const int64_t first = edge[0], end = edge[begin.stride];
    const bool valid = 0 <= first && first <= end && end <= x.rows;
    double sum = valid ? 0.0 : NAN;
    for (int64_t r = first + threadIdx.x; valid && r < end; r += THREADS) {
        sum += (double)((const float *)x.data)[r * x.stride + column];
    }
    sum = block_sum<WARPS>(sum, part);
    if (threadIdx.x > 0) return;
    ((float *)out.data)[s * out.stride + column] = (float)sum;
    if (!valid && fault != NULL) atomicOr(fault, (int)FAULT_INDEX);
}

/* out[s] = sum of x[r] over begin[s] <= r < begin[s+1], column by column.
 *  Out:     out    [S,n] f32; rounded once from sums in double, whose order depends on the segment's length alone.
 *                  NaN where begin[s], begin[s+1] is no range of rows: then FAULT_INDEX, and nothing is read.
 *  In:      x      [R,n] f32, may be strided.        begin  [S+1] i32, not decreasing, in 0 .. R.
 *           Nothing overlaps out or fault.  S n up to 2^31 - 1.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, out untouched; CUDPO_EDEVICE.
 *  Reads 4 n bytes a row of a segment, writes 4 n S: bound by latency, for scores are few. */
extern "C" cudpo_status cuda_segment_sum(tensor out, tensor x, tensor begin, tensor fault,
                                         cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x) && x.type == DTYPE_F32);
    CUDPO_REQUIRE(is_f32(out, out.rows, x.cols) && out.rows <= INT32_MAX / out.cols);
    CUDPO_REQUIRE(is_i32(begin, out.rows + 1, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(out, x) && tensor_disjoint(out, begin) &&
                  tensor_disjoint(out, fault));
    CUDPO_REQUIRE(tensor_disjoint(fault, x) && tensor_disjoint(fault, begin));
    if (out.rows == 0) return CUDPO_OK;
    LAUNCH(segment_sum_kernel, (unsigned)(out.rows * out.cols), THREADS, 0, stream, out, x, begin,
           (int *)fault.data);
    return LAUNCHED();
}
