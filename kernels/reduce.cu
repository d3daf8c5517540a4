/* reduce.cu - one reducing stage of an expression: what a program does that fuses nothing. */
#include "check.h"
#include "kernels.h"
#include "vector.h"

enum { THREADS = 256, WARPS = THREADS / 32 };

__device__ __forceinline__ float join(bool largest, float a, float b)
{
    return largest ? fmaxf(a, b) : a + b;
}

/* A block a row; thread t takes columns t, t + THREADS, ...  Reads the row once. */
template <typename Real>
static __global__ void __launch_bounds__(THREADS)
    reduce_columns_kernel(float *out, int64_t stride, const Real *a, int64_t a_stride, int64_t cols,
                          bool largest)
{
    SHARED(float, part, [WARPS]);
    const Real *row = a + (int64_t)blockIdx.x * a_stride;
    float x = largest ? -INFINITY : 0.0f;
    for (int64_t c = threadIdx.x; c < cols; c += THREADS) {
        x = join(largest, x, to_float(row[c]));
    }
    x = largest ? warp_max(x) : warp_sum(x);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads(); /* all parts are written */
    if (threadIdx.x > 0) return;
    for (int w = 1; w < WARPS; w++) {
        x = join(largest, x, part[w]);
    }
    out[blockIdx.x * stride] = x;
}

/* A thread a column of a row of out: it takes `each` rows in order.  Reads a once. */
template <typename Real>
static __global__ void __launch_bounds__(THREADS)
    reduce_rows_kernel(float *out, int64_t stride, const Real *a, int64_t a_stride, int64_t rows,
                       int64_t cols, int64_t each, bool largest)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / cols;
    if (row >= rows) return;
    const Real *from = a + row * each * a_stride + (i - row * cols);
    float x = largest ? -INFINITY : 0.0f;
    for (int64_t r = 0; r < each; r++) {
        x = join(largest, x, to_float(from[r * a_stride]));
    }
    out[row * stride + (i - row * cols)] = x;
}

/* Sums or maxima along one side of a matrix.
 *  Out:     out  [R,1] f32, over the columns of each row of a; or [G,C] f32, over rows g R/G .. of a, R a multiple of G and not 0.
 *                In f32, in an order that the shape decides.  A NaN comes through a sum, not through a maximum.
 *  In:      a    [R,C] f32 or bf16; does not overlap out.     largest  false: sums.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, out untouched; CUDPO_EDEVICE.
 *  Bytes: R C of a's type, and out. */
extern "C" cudpo_status cuda_reduce(tensor out, tensor a, bool largest, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(out) && out.type == DTYPE_F32);
    CUDPO_REQUIRE(is_matrix(a));
    CUDPO_REQUIRE(tensor_disjoint(out, a));
    const bool columns = out.rows == a.rows && out.cols == 1;
    CUDPO_REQUIRE(columns || (out.cols == a.cols && out.rows >= 1 && a.rows >= out.rows &&
                              a.rows % out.rows == 0));
    if (a.rows == 0) return CUDPO_OK;
    CUDPO_REQUIRE(columns ? fits_grid(out.rows, 1) : fits_grid(out.rows * out.cols, THREADS));
    FLOAT_TYPE(a.type, Real, {
        if (columns)
            LAUNCH((reduce_columns_kernel<Real>), blocks_for(a.rows, 1), THREADS, 0, stream,
                   (float *)out.data, out.stride, (const Real *)a.data, a.stride, a.cols, largest);
        else
            LAUNCH((reduce_rows_kernel<Real>), blocks_for(out.rows * out.cols, THREADS), THREADS, 0,
                   stream, (float *)out.data, out.stride, (const Real *)a.data, a.stride, out.rows,
                   out.cols, a.rows / out.rows, largest);
    });
    return LAUNCHED();
}
