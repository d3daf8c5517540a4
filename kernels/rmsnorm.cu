/* rmsnorm.cu - the residual sum and RMSNorm of the rows of a matrix; forward, backward, and y once more. */
#include "kernels.h"
#include "norm.h"
#include "piece.h"

enum { THREADS = 256 };

template <typename Real>
static cudpo_status add_rmsnorm(const norm_arguments<Real> &a, bool vectors, cudpo_stream stream)
{
    const int64_t count = a.D / lanes<Real>::COUNT;
    if (!vectors || count > 1024) return norm_launch_loop(a, stream);
    if (count <= 128) return norm_launch<Real, 32, 4>(a, stream);
    if (count <= 256) return norm_launch<Real, 64, 4>(a, stream);
    if (count <= 512) return norm_launch<Real, 128, 4>(a, stream);
    return norm_launch<Real, 256, 4>(a, stream);
}

/* sum = x + branch, rounded to its type; rstd = (mean over a row of sum^2 + epsilon)^-1/2; y = sum rstd w.
 * The norm is of the rounded sum, which is what the backward pass reads.
 * Source: Zhang and Sennrich 2019, arXiv:1910.07467.
 *  Out:     y       [T,C] f32 or bf16.      rstd  [T] f32.
 *           sum     [T,C] like y; may be x itself, and then is not written where there is no branch.
 *  In:      x       [T,C] like y.           branch  [T,C] like y, or absent: 0.
 *           w       [1,C] like y.           epsilon  finite, >= 0.
 *           Nothing else overlaps.  T up to 2^31 - 1.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: T (k C e + 4), e = 2 or 4 for an element, k = 4 with a branch, else 3, or 2 where sum is x.
 *  Sums are in float32, so a row whose sum of squares passes 3.4e38 has rstd 0; no row is read from memory twice where C
 *  is a multiple of 16 bytes, at most 16 KB, and all rows stand on 16-byte boundaries.  Bitwise repeatable. */
extern "C" cudpo_status cuda_add_rmsnorm(tensor y, tensor rstd, tensor sum, tensor x, tensor branch,
                                         tensor w, float epsilon, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x) && x.rows <= INT32_MAX);
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(is_f32(rstd, x.rows, 1));
    CUDPO_REQUIRE(is_like(sum, x));
    CUDPO_REQUIRE(is_typed(w, x.type, 1, x.cols));
    CUDPO_REQUIRE(!tensor_present(branch) || is_like(branch, x));
    CUDPO_REQUIRE(std::isfinite(epsilon) && epsilon >= 0.0f);
    CUDPO_REQUIRE(is_same(sum, x) || tensor_disjoint(sum, x));
    CUDPO_REQUIRE(tensor_disjoint(sum, branch) && tensor_disjoint(sum, w) &&
                  tensor_disjoint(sum, rstd));
    CUDPO_REQUIRE(tensor_disjoint(y, x) && tensor_disjoint(y, branch) && tensor_disjoint(y, w));
    CUDPO_REQUIRE(tensor_disjoint(y, sum) && tensor_disjoint(y, rstd));
    CUDPO_REQUIRE(tensor_disjoint(rstd, x) && tensor_disjoint(rstd, branch) &&
                  tensor_disjoint(rstd, w));
    if (x.rows == 0) return CUDPO_OK;
    const bool vectors = is_vectorisable(y) && is_vectorisable(sum) && is_vectorisable(x) &&
                         is_vectorisable(w) && (!tensor_present(branch) || is_vectorisable(branch));
    const bool writes_sum = tensor_present(branch) || !is_same(sum, x);
    FLOAT_TYPE(x.type, Real, {
        norm_arguments<Real> a = {};
        a.y = {(Real *)y.data, y.stride};
        a.sum = {writes_sum ? (Real *)sum.data : NULL, sum.stride};
        a.rstd = {(float *)rstd.data, rstd.stride};
        a.x = {(const Real *)x.data, x.stride};
        a.branch = {(const Real *)branch.data, branch.stride};
        a.w = (const Real *)w.data;
        a.count = x.rows;
        a.n = 1;
        a.D = x.cols;
        a.epsilon = epsilon;
        return add_rmsnorm(a, vectors, stream);
    });
}

template <typename Real>
static cudpo_status rmsnorm_backward(const norm_backward_arguments<Real> &a, tensor dw,
                                     bool vectors, cudpo_stream stream)
{
    const int64_t count = a.D / lanes<Real>::COUNT;
    if (!vectors || count > 1024) return norm_backward_launch_loop<Real, true>(a, dw, stream);
    if (count <= 64) return norm_backward_launch<Real, 32, 2, true>(a, dw, stream);
    if (count <= 128) return norm_backward_launch<Real, 64, 2, true>(a, dw, stream);
    if (count <= 256) return norm_backward_launch<Real, 128, 2, true>(a, dw, stream);
    if (count <= 512) return norm_backward_launch<Real, 256, 2, true>(a, dw, stream);
    return norm_backward_launch<Real, 256, 4, true>(a, dw, stream);
}

extern "C" size_t cuda_rmsnorm_backward_scratch(int64_t T, int64_t C)
{
    return norm_bytes(T, C);
}

/* dx += rstd (g - xhat mean over C of (g xhat)),  dw += sum over T of dy xhat,  with xhat = x rstd and g = dy w.
 *  In/Out:  dx      [T,C] f32 or bf16: accumulates, because it is the gradient of the residual stream.
 *           dw      [1,C] f32 or bf16: accumulates; rounded once.
 *  In:      dy, x   [T,C] like dx; x is what the forward pass called sum.
 *           rstd    [T] f32, of the forward pass.       w  [1,C] like dx.
 *           s       cuda_rmsnorm_backward_scratch(T, C) bytes.
 *           Nothing overlaps.  C up to 2^31 - 1.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if a launch failed.
 *  Bytes: T (4 C e + 4) and, in L2, 8 C min(T, 396) of partial sums; e = 2 or 4 for an element.  Rows beyond 16 KB, or not on
 *  16-byte boundaries, are read twice.  Bitwise repeatable: rows are added in an order that T, C, the type and the
 *  alignment decide. */
extern "C" cudpo_status cuda_rmsnorm_backward(tensor dx, tensor dw, tensor dy, tensor x,
                                              tensor rstd, tensor w, scratch s, cudpo_stream stream)
{
    const size_t bytes = cuda_rmsnorm_backward_scratch(x.rows, x.cols);
    CUDPO_REQUIRE(is_matrix(x) && x.cols <= INT32_MAX);
    CUDPO_REQUIRE(is_like(dx, x));
    CUDPO_REQUIRE(is_like(dy, x));
    CUDPO_REQUIRE(is_f32(rstd, x.rows, 1));
    CUDPO_REQUIRE(is_typed(w, x.type, 1, x.cols));
    CUDPO_REQUIRE(is_float(dw, 1, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(dx, dy) && tensor_disjoint(dx, x) && tensor_disjoint(dx, w));
    CUDPO_REQUIRE(tensor_disjoint(dx, rstd) && tensor_disjoint(dx, dw));
    CUDPO_REQUIRE(tensor_disjoint(dw, dy) && tensor_disjoint(dw, x) && tensor_disjoint(dw, w));
    CUDPO_REQUIRE(tensor_disjoint(dw, rstd));
    CUDPO_REQUIRE(is_scratch(s, bytes));
    CUDPO_REQUIRE(is_apart(s, bytes, dx) && is_apart(s, bytes, dw) && is_apart(s, bytes, dy));
    CUDPO_REQUIRE(is_apart(s, bytes, x) && is_apart(s, bytes, rstd) && is_apart(s, bytes, w));
    if (x.rows == 0) return CUDPO_OK;
    const bool vectors =
        is_vectorisable(dx) && is_vectorisable(dy) && is_vectorisable(x) && is_vectorisable(w);
    FLOAT_TYPE(x.type, Real, {
        norm_backward_arguments<Real> a;
        a.dx = {(Real *)dx.data, dx.stride};
        a.partial = (float *)s.data;
        a.dy = {(const Real *)dy.data, dy.stride};
        a.x = {(const Real *)x.data, x.stride};
        a.rstd = {(const float *)rstd.data, rstd.stride};
        a.w = (const Real *)w.data;
        a.count = x.rows;
        a.n = 1;
        a.D = x.cols;
        return rmsnorm_backward(a, dw, vectors, stream);
    });
}

/* A piece a thread.  T (2 C e + 4) bytes moved. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    rmsnorm_again_kernel(rows<Real> y, rows<const Real> x, rows<const float> rstd, const Real *w,
                         int64_t T, int64_t pieces)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= T * pieces) return;
    const place at = place_of<N>(i, pieces);
    float value[N], weight[N];
    load_piece(value, x.data + at.row * x.stride + at.column);
    load_piece(weight, w + at.column);
    const float r = rstd.data[at.row * rstd.stride];
#pragma unroll
    for (int j = 0; j < N; j++) {
        value[j] = value[j] * r * weight[j];
    }
    store_piece(y.data + at.row * y.stride + at.column, value);
}

/* y = x rstd w, to the bit what cuda_add_rmsnorm gave for sum = x.
 *  Out:     y       [T,C] f32 or bf16.
 *  In:      x       [T,C] like y.     rstd  [T] f32.     w  [1,C] like y.
 *           Nothing overlaps y.  T C up to 2^39 - 256.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: T (2 C e + 4), e = 2 or 4 for an element. */
extern "C" cudpo_status cuda_rmsnorm_again(tensor y, tensor x, tensor rstd, tensor w,
                                           cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x) && fits_grid(x.rows * x.cols, THREADS));
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(is_f32(rstd, x.rows, 1));
    CUDPO_REQUIRE(is_typed(w, x.type, 1, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(y, x) && tensor_disjoint(y, rstd) && tensor_disjoint(y, w));
    if (x.rows == 0) return CUDPO_OK;
    const bool vectors = is_vectorisable(y) && is_vectorisable(x) && is_vectorisable(w);
    FLOAT_TYPE(x.type, Real, {
        PIECES(vectors, lanes<Real>::COUNT, N, {
            const int64_t pieces = x.cols / N;
            LAUNCH((rmsnorm_again_kernel<Real, N>), blocks_for(x.rows * pieces, THREADS), THREADS,
                   0, stream, rows<Real>{(Real *)y.data, y.stride},
                   rows<const Real>{(const Real *)x.data, x.stride},
                   rows<const float>{(const float *)rstd.data, rstd.stride}, (const Real *)w.data,
                   x.rows, pieces);
        });
    });
    return LAUNCHED();
}
