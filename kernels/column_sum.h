/* column_sum.h - the second half of a sum over rows: partial sums, one row a block of the first half, into a gradient.
 *
 * Order: warp w adds rows w, w + 32, ..; then the warps are added in order; then the sum to the gradient.  It depends on
 * the number of partial rows alone. */
#ifndef CUDPO_KERNELS_COLUMN_SUM_H
#define CUDPO_KERNELS_COLUMN_SUM_H

#include "check.h"
#include "kernels.h"
#include "vector.h"

enum {
    SUM_WARPS = 32,
    SUM_THREADS = 32 * SUM_WARPS,
    SUM_LOADS = 13, /* of a thread, all in flight at once: the kernel is bound by latency */
    SUM_ROWS = SUM_LOADS * SUM_WARPS /* of partial sums, at most */
};

/* A column per lane, every 32nd row per warp.  rows * cols * 4 bytes read, from L2 where the first half has just left
 * them. */
template <typename Weight>
static __global__ void __launch_bounds__(SUM_THREADS)
    column_sum_kernel(Weight *sum, const float *partial, int rows, int64_t cols)
{
    SHARED(float, part, [SUM_WARPS][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t column = (int64_t)blockIdx.x * 32 + lane;
    float value[SUM_LOADS], x = 0.0f;
#pragma unroll
    for (int k = 0; k < SUM_LOADS; k++) {
        const int row = warp + k * SUM_WARPS;
        const bool present = row < rows && column < cols;
        value[k] = present ? __ldcs(partial + row * cols + column) : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < SUM_LOADS; k++) {
        x += value[k];
    }
    part[warp][lane] = x;
    __syncthreads(); /* all warps' parts are written */
    if (warp > 0 || column >= cols) return;
    x = part[0][lane];
#pragma unroll
    for (int w = 1; w < SUM_WARPS; w++) {
        x += part[w][lane];
    }
    sum[column] = from_float<Weight>(to_float(sum[column]) + x);
}

/* sum [1,cols] f32 or bf16 += the sums of the columns of partial [rows,cols] f32, dense, rows at most SUM_ROWS; rounded
 * once. */
static inline cudpo_status column_sum(tensor sum, const float *partial, int rows,
                                      cudpo_stream stream)
{
    const unsigned blocks = blocks_for(sum.cols, 32);
    FLOAT_TYPE(sum.type, Weight, {
        LAUNCH((column_sum_kernel<Weight>), blocks, SUM_THREADS, 0, stream, (Weight *)sum.data,
               partial, rows, sum.cols);
    });
    return LAUNCHED();
}

#endif /* CUDPO_KERNELS_COLUMN_SUM_H */
