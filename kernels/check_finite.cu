/* check_finite.cu - is there a NaN or an Inf in a matrix? */
#include "kernels.h"
#include "piece.h"

#include <cfloat>

enum { THREADS = 256, LOADS = 4 /* pieces that a thread has in flight */ };

/* Every thread looks at LOADS pieces; a block reports once.  The bytes of x are read. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    check_finite_kernel(int *fault, const Real *x, int64_t rows, int64_t pieces, int64_t stride)
{
    const int64_t first = (int64_t)blockIdx.x * (THREADS * LOADS) + threadIdx.x;
    float value[LOADS][N];
#pragma unroll
    for (int k = 0; k < LOADS; k++) {
        const int64_t i = first + k * THREADS;
        const place at = place_of<N>(i < rows * pieces ? i : 0, pieces);
        load_piece(value[k], x + at.row * stride + at.column);
    }
    bool finite = true;
#pragma unroll
    for (int k = 0; k < LOADS; k++) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            finite = finite && fabsf(value[k][j]) <= FLT_MAX; /* false for NaN */
        }
    }
    if (__syncthreads_or(!finite) && threadIdx.x == 0) atomicOr(fault, FAULT_NONFINITE);
}

/* A NaN or an Inf anywhere in x sets FAULT_NONFINITE.
 *  In/Out:  fault  [1] i32; its other bits stay.
 *  In:      x      [rows,cols] f32 or bf16; does not overlap fault.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, fault untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: rows cols e, e = 2 or 4 for an element.  Whole vectors of 16 bytes, in rows or in a dense x, are the fast
 *  layout. */
extern "C" cudpo_status cuda_check_finite(tensor x, tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_i32(fault, 1, 1));
    CUDPO_REQUIRE(tensor_disjoint(x, fault));
    if (x.rows == 0) return CUDPO_OK;
    if (tensor_dense(x)) x = flat(x);
    FLOAT_TYPE(x.type, Real, {
        PIECES(is_vectorisable(x), lanes<Real>::COUNT, N, {
            const int64_t pieces = x.cols / N;
            CUDPO_REQUIRE(fits_grid(x.rows * pieces, THREADS * LOADS));
            LAUNCH((check_finite_kernel<Real, N>), blocks_for(x.rows * pieces, THREADS * LOADS),
                   THREADS, 0, stream, (int *)fault.data, (const Real *)x.data, x.rows, pieces,
                   x.stride);
        });
    });
    return LAUNCHED();
}
