/* add.cu - the sum of two matrices, in place. */
#include "kernels.h"
#include "piece.h"

enum { THREADS = 256 };

/* A piece a thread.  3C elements moved a row. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    add_kernel(Real *x, const Real *y, int64_t T, int64_t pieces, int64_t stride, int64_t y_stride)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= T * pieces) return;
    const place at = place_of<N>(i, pieces);
    float sum[N], other[N];
    load_piece(sum, x + at.row * stride + at.column);
    load_piece_once(other, y + at.row * y_stride + at.column);
#pragma unroll
    for (int j = 0; j < N; j++) {
        sum[j] += other[j];
    }
    store_piece(x + at.row * stride + at.column, sum);
}

/* x += y.
 *  In/Out:  x  [T,C] f32 or bf16.
 *  In:      y  [T,C] like x; does not overlap x.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, x untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: 3 T C e, e = 2 or 4 for an element.  Whole vectors of 16 bytes, in rows or in dense tensors, are the fast
 *  layout. */
extern "C" cudpo_status cuda_add(tensor x, tensor y, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(tensor_disjoint(x, y));
    if (x.rows == 0) return CUDPO_OK;
    flatten(&x, &y);
    FLOAT_TYPE(x.type, Real, {
        PIECES(is_vectorisable(x) && is_vectorisable(y), lanes<Real>::COUNT, N, {
            const int64_t pieces = x.cols / N;
            CUDPO_REQUIRE(fits_grid(x.rows * pieces, THREADS));
            LAUNCH((add_kernel<Real, N>), blocks_for(x.rows * pieces, THREADS), THREADS, 0, stream,
                   (Real *)x.data, (const Real *)y.data, x.rows, pieces, x.stride, y.stride);
        });
    });
    return LAUNCHED();
}
