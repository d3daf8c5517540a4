/* bias.cu - the bias of a linear layer: added to rows, and its gradient, the sum over rows. */
#include "column_sum.h"
#include "kernels.h"
#include "piece.h"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    LOADS = 4 /* rows that a thread has in flight */
};

static_assert((int)WARPS == (int)BIAS_WARPS, "scratch is counted for it");
static_assert((int)BIAS_PARTIALS <= (int)SUM_ROWS, "column_sum adds up what all blocks leave");

/* A piece a thread.  2N elements moved a row. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    bias_add_kernel(Real *x, const Real *bias, int64_t T, int64_t pieces, int64_t stride)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= T * pieces) return;
    const place at = place_of<N>(i, pieces);
    float sum[N], b[N];
    load_piece(sum, x + at.row * stride + at.column);
    load_piece(b, bias + at.column);
#pragma unroll
    for (int j = 0; j < N; j++) {
        sum[j] += b[j];
    }
    store_piece(x + at.row * stride + at.column, sum);
}

/* x += bias, to every row.
 *  In/Out:  x     [T,N] f32 or bf16.
 *  In:      bias  [1,N] like x; does not overlap x.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, x untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: 2 T N e, e = 2 or 4 for an element. */
extern "C" cudpo_status cuda_bias_add(tensor x, tensor bias, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_typed(bias, x.type, 1, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(x, bias));
    if (x.rows == 0) return CUDPO_OK;
    const bool vectors = is_vectorisable(x) && is_vectorisable(bias);
    FLOAT_TYPE(x.type, Real, {
        PIECES(vectors, lanes<Real>::COUNT, N, {
            const int64_t pieces = x.cols / N;
            CUDPO_REQUIRE(fits_grid(x.rows * pieces, THREADS));
            LAUNCH((bias_add_kernel<Real, N>), blocks_for(x.rows * pieces, THREADS), THREADS, 0,
                   stream, (Real *)x.data, (const Real *)bias.data, x.rows, pieces, x.stride);
        });
    });
    return LAUNCHED();
}

/* Block (i, k) adds rows of 32 pieces of columns: its warp w rows w + 8 k, w + 8 (k + K), .., K the blocks of a column.
 * Then the warps in order.  T N elements read. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    bias_partial_kernel(float *partial, const Real *dx, int64_t T, int64_t columns, int64_t stride)
{
    SHARED(float, part, [WARPS][N][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t column = ((int64_t)blockIdx.x * 32 + lane) * N;
    const int64_t step = (int64_t)gridDim.y * WARPS;
    float sum[N];
#pragma unroll
    for (int j = 0; j < N; j++) {
        sum[j] = 0.0f;
    }
    for (int64_t first = (int64_t)blockIdx.y * WARPS + warp; column < columns && first < T;
         first += LOADS * step) {
        float x[LOADS][N];
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            const int64_t row = first + k * step;
            if (row < T) {
                load_piece(x[k], dx + row * stride + column);
            } else {
#pragma unroll
                for (int j = 0; j < N; j++) {
                    x[k][j] = 0.0f;
                }
            }
        }
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                sum[j] += x[k][j];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        part[warp][j][lane] = sum[j];
    }
    __syncthreads(); /* all warps' parts are written */
    for (int c = threadIdx.x; c < 32 * N; c += THREADS) {
        const int64_t to = (int64_t)blockIdx.x * 32 * N + c;
        float total = part[0][c % N][c / N];
#pragma unroll
        for (int w = 1; w < WARPS; w++) {
            total += part[w][c % N][c / N];
        }
        if (to < columns) partial[blockIdx.y * columns + to] = total;
    }
}

extern "C" size_t cuda_bias_backward_scratch(int64_t T, int64_t N)
{
    return bias_bytes(T, N);
}

/* dbias += sum over rows of dx.
 *  In/Out:  dbias  [1,N] f32 or bf16: accumulates; rounded once.
 *  In:      dx     [T,N] f32 or bf16, N < 2^36; does not overlap dbias.
 *           s      cuda_bias_backward_scratch(T, N) bytes; overlaps neither.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, dbias untouched; CUDPO_EDEVICE if a launch failed.
 *  Bytes: T N e, e = 2 or 4 for an element, and in L2 8 N min(T / 8, 256, 528 / (N / 32 vectors)) of partial sums.
 *  Bitwise repeatable: rows are added in an order that T, N, the type and the alignment decide. */
extern "C" cudpo_status cuda_bias_backward(tensor dbias, tensor dx, scratch s, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(dx));
    CUDPO_REQUIRE(is_width(dx.cols));
    CUDPO_REQUIRE(is_float(dbias, 1, dx.cols));
    CUDPO_REQUIRE(tensor_disjoint(dbias, dx));
    const size_t bytes = cuda_bias_backward_scratch(dx.rows, dx.cols);
    CUDPO_REQUIRE(is_scratch(s, bytes));
    CUDPO_REQUIRE(is_apart(s, bytes, dbias));
    CUDPO_REQUIRE(is_apart(s, bytes, dx));
    if (dx.rows == 0) return CUDPO_OK;
    unsigned partials = 0;
    FLOAT_TYPE(dx.type, Real, {
        PIECES(is_vectorisable(dx), lanes<Real>::COUNT, N, {
            const unsigned wide = blocks_for(dx.cols, 32 * N);
            partials = (unsigned)bias_partial_rows(dx.rows, wide);
            LAUNCH((bias_partial_kernel<Real, N>), dim3(wide, partials), THREADS, 0, stream,
                   (float *)s.data, (const Real *)dx.data, dx.rows, dx.cols, dx.stride);
        });
    });
    CUDPO_TRY(LAUNCHED());
    return column_sum(dbias, (const float *)s.data, (int)partials, stream);
}
