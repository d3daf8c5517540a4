/* head_norm.cu - RMSNorm of each head alone (Qwen3's q and k norms), forward and backward. */
#include "kernels.h"
#include "norm.h"

/* x [T, n*D] and rstd [T,n] are of heads whose weight is w [1,D]. */
static cudpo_status check_heads(tensor x, tensor rstd, tensor w)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(w.cols >= 1 && is_typed(w, x.type, 1, w.cols));
    CUDPO_REQUIRE(x.cols % w.cols == 0);
    CUDPO_REQUIRE(is_f32(rstd, x.rows, x.cols / w.cols));
    return CUDPO_OK;
}

/* Vectors of 16 bytes in a row of D elements; 0 where a head does not begin on a vector's boundary. */
template <typename Real> static inline int64_t vectors_of(int64_t D, bool vectorisable)
{
    return vectorisable && D % lanes<Real>::COUNT == 0 ? D / lanes<Real>::COUNT : 0;
}

template <typename Real>
static cudpo_status head_norm(const norm_arguments<Real> &a, bool vectorisable, cudpo_stream stream)
{
    const int64_t vectors = vectors_of<Real>(a.D, vectorisable);
    if (vectors == 0 || vectors > 128) return norm_launch_loop(a, stream);
    if (vectors <= 8) return norm_launch<Real, 8, 1>(a, stream);
    if (vectors <= 16) return norm_launch<Real, 16, 1>(a, stream);
    if (vectors <= 32) return norm_launch<Real, 32, 1>(a, stream);
    return norm_launch<Real, 32, 4>(a, stream);
}

/* For each of the n heads h of a token, of D elements: rstd[h] = (mean over D of x^2 + epsilon)^-1/2; y = x rstd[h] w.
 * Source: Zhang and Sennrich 2019, arXiv:1910.07467; on heads: Qwen3 (transformers' modeling_qwen3.py).
 *  Out:     y        [T, n*D] f32 or bf16.      rstd  [T,n] f32.
 *  In:      x        [T, n*D] like y.           w     [1,D] like y.
 *           epsilon  finite, >= 0.
 *           Nothing overlaps; y and x may be columns of one matrix.  T n up to 2^31 - 1.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: T n (2 D e + 4), e = 2 or 4 for an element.  Heads that are no whole 16-byte vectors, are longer than 2 KB, or
 *  in rows that do not stand on 16-byte boundaries, are read twice.  Sums are in float32, so a head whose sum of squares
 *  passes 3.4e38 has rstd 0.  Bitwise repeatable. */
extern "C" cudpo_status cuda_head_norm(tensor y, tensor rstd, tensor x, tensor w, float epsilon,
                                       cudpo_stream stream)
{
    CUDPO_TRY(check_heads(x, rstd, w));
    CUDPO_REQUIRE(x.rows * rstd.cols <= INT32_MAX);
    CUDPO_REQUIRE(is_like(y, x));
    CUDPO_REQUIRE(std::isfinite(epsilon) && epsilon >= 0.0f);
    CUDPO_REQUIRE(tensor_disjoint(y, x) && tensor_disjoint(y, w) && tensor_disjoint(y, rstd));
    CUDPO_REQUIRE(tensor_disjoint(rstd, x) && tensor_disjoint(rstd, w));
    if (x.rows == 0) return CUDPO_OK;
    const bool vectorisable = is_vectorisable(y) && is_vectorisable(x) && is_vectorisable(w);
    FLOAT_TYPE(x.type, Real, {
        norm_arguments<Real> a = {};
        a.y = {(Real *)y.data, y.stride};
        a.rstd = {(float *)rstd.data, rstd.stride};
        a.x = {(const Real *)x.data, x.stride};
        a.w = (const Real *)w.data;
        a.count = x.rows * rstd.cols;
        a.n = rstd.cols;
        a.D = w.cols;
        a.epsilon = epsilon;
        return head_norm(a, vectorisable, stream);
    });
}

template <typename Real>
static cudpo_status head_norm_backward(const norm_backward_arguments<Real> &a, tensor dw,
                                       bool vectorisable, cudpo_stream stream)
{
    const int64_t vectors = vectors_of<Real>(a.D, vectorisable);
    if (vectors == 0 || vectors > 128) return norm_backward_launch_loop<Real, false>(a, dw, stream);
    if (vectors <= 8) return norm_backward_launch<Real, 8, 1, false>(a, dw, stream);
    if (vectors <= 16) return norm_backward_launch<Real, 16, 1, false>(a, dw, stream);
    if (vectors <= 32) return norm_backward_launch<Real, 32, 1, false>(a, dw, stream);
    return norm_backward_launch<Real, 32, 4, false>(a, dw, stream);
}

extern "C" size_t cuda_head_norm_backward_scratch(int64_t T, int64_t heads, int64_t D)
{
    return head_norm_bytes(T, heads, D);
}

/* For each head: dx = rstd (g - xhat mean over D of (g xhat)),  dw += sum over tokens and heads of dy xhat,
 * with xhat = x rstd and g = dy w.
 *  Out:     dx      [T, n*D] f32 or bf16; may be dy itself.
 *  In/Out:  dw      [1,D] f32 or bf16: accumulates; rounded once.
 *  In:      dy, x   [T, n*D] like dx.     rstd  [T,n] f32, of the forward pass.      w  [1,D] like dx.
 *           s       cuda_head_norm_backward_scratch(T, n, D) bytes.
 *           Nothing else overlaps; dx, dy and x may be columns of one matrix.  D up to 2^31 - 1.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if a launch failed.
 *  Bytes: T n (3 D e + 4) and, in L2, 8 D min(T n, 396) of partial sums; e = 2 or 4 for an element.  Which heads are read
 *  twice: see above.  Bitwise repeatable. */
extern "C" cudpo_status cuda_head_norm_backward(tensor dx, tensor dw, tensor dy, tensor x,
                                                tensor rstd, tensor w, scratch s,
                                                cudpo_stream stream)
{
    CUDPO_TRY(check_heads(x, rstd, w));
    CUDPO_REQUIRE(w.cols <= INT32_MAX);
    CUDPO_REQUIRE(is_float(dw, 1, w.cols));
    CUDPO_REQUIRE(is_like(dx, x));
    CUDPO_REQUIRE(is_like(dy, x));
    CUDPO_REQUIRE(is_same(dx, dy) || tensor_disjoint(dx, dy));
    CUDPO_REQUIRE(tensor_disjoint(dx, x) && tensor_disjoint(dx, rstd) && tensor_disjoint(dx, w));
    CUDPO_REQUIRE(tensor_disjoint(dw, dx) && tensor_disjoint(dw, dy) && tensor_disjoint(dw, x));
    CUDPO_REQUIRE(tensor_disjoint(dw, rstd) && tensor_disjoint(dw, w));
    const size_t bytes = cuda_head_norm_backward_scratch(x.rows, rstd.cols, w.cols);
    CUDPO_REQUIRE(is_scratch(s, bytes));
    CUDPO_REQUIRE(is_apart(s, bytes, dx) && is_apart(s, bytes, dw) && is_apart(s, bytes, dy));
    CUDPO_REQUIRE(is_apart(s, bytes, x) && is_apart(s, bytes, rstd) && is_apart(s, bytes, w));
    if (x.rows == 0) return CUDPO_OK;
    const bool vectorisable =
        is_vectorisable(dx) && is_vectorisable(dy) && is_vectorisable(x) && is_vectorisable(w);
    FLOAT_TYPE(x.type, Real, {
        norm_backward_arguments<Real> a;
        a.dx = {(Real *)dx.data, dx.stride};
        a.partial = (float *)s.data;
        a.dy = {(const Real *)dy.data, dy.stride};
        a.x = {(const Real *)x.data, x.stride};
        a.rstd = {(const float *)rstd.data, rstd.stride};
        a.w = (const Real *)w.data;
        a.count = x.rows * rstd.cols;
        a.n = rstd.cols;
        a.D = w.cols;
        return head_norm_backward(a, dw, vectorisable, stream);
    });
}
