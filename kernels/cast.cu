/* cast.cu - a matrix in the other float type. */
#include "kernels.h"
#include "piece.h"

enum { THREADS = 256 };

/* A piece of N elements a thread: 16 bytes of bf16, 32 of f32.  6 bytes moved an element. */
template <typename To, typename From, int N>
static __global__ void __launch_bounds__(THREADS)
    cast_kernel(To *out, const From *x, int64_t rows, int64_t pieces, int64_t out_stride,
                int64_t stride)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= rows * pieces) return;
    const place at = place_of<N>(i, pieces);
    float value[N];
    load_elements(value, x + at.row * stride + at.column);
    store_elements(out + at.row * out_stride + at.column, value);
}

template <typename To, typename From>
static cudpo_status cast(tensor out, tensor x, cudpo_stream stream)
{
    const bool vectors = is_vectorisable(out) && is_vectorisable(x);
    PIECES(vectors, lanes<bf16>::COUNT, N, {
        const int64_t pieces = x.cols / N;
        CUDPO_REQUIRE(fits_grid(x.rows * pieces, THREADS));
        LAUNCH((cast_kernel<To, From, N>), blocks_for(x.rows * pieces, THREADS), THREADS, 0, stream,
               (To *)out.data, (const From *)x.data, x.rows, pieces, out.stride, x.stride);
    });
    return LAUNCHED();
}

/* Rows of a copy are at most so many bytes apart (cudaDeviceProp.memPitch). */
static bool is_pitch(tensor t)
{
    return t.stride <= INT32_MAX / (int64_t)dtype_size(t.type);
}

/* Of one type. */
static cudpo_status copy(tensor out, tensor x, cudpo_stream stream)
{
    const size_t size = dtype_size(x.type), row = (size_t)x.cols * size;
    if (x.rows == 1) {
        (void)cudaMemcpyAsync(out.data, x.data, row, cudaMemcpyDeviceToDevice, stream);
        return LAUNCHED(); /* which has the error of the copy too */
    }
    CUDPO_REQUIRE(is_pitch(out));
    CUDPO_REQUIRE(is_pitch(x));
    (void)cudaMemcpy2DAsync(out.data, (size_t)out.stride * size, x.data, (size_t)x.stride * size,
                            row, (size_t)x.rows, cudaMemcpyDeviceToDevice, stream);
    return LAUNCHED();
}

/* out = x in out's type: to the nearest bf16, ties to even, beyond the largest Inf; NaN stays NaN.  bf16 to f32 is exact.
 * Of one type: a copy of the bits.
 *  Out:     out  [rows,cols] f32 or bf16.
 *  In:      x    [rows,cols] f32 or bf16; does not overlap out.  Rows of one type are less than 2^31 bytes apart, unless
 *           out and x are both dense.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, out untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: rows cols (e + f), the bytes of an element of each.  Whole vectors of 16 bytes, in rows or in dense tensors,
 *  are the fast layout. */
extern "C" cudpo_status cuda_cast(tensor out, tensor x, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_float(out, x.rows, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(out, x));
    if (x.rows == 0) return CUDPO_OK;
    flatten(&out, &x);
    if (out.type == x.type) return copy(out, x, stream);
    return x.type == DTYPE_F32 ? cast<bf16, float>(out, x, stream)
                               : cast<float, bf16>(out, x, stream);
}
