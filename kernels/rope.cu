/* rope.cu - rotary position embedding in the "rotate half" order of transformers, in place. */
#include "kernels.h"
#include "piece.h"

enum { THREADS = 256 };

template <typename Real> struct rope_arguments {
    Real *x;
    const float *cosine, *sine;
    const int32_t *position;
    int *fault; /* may be NULL */
    int64_t T, heads, half, positions;
    int64_t stride, cosine_stride, sine_stride, position_stride;
    float sign; /* of the angle */
};

/* A pair of pieces a thread: N elements of a head's first half and their partners in the second.  2 D elements moved a
 * head; the heads of a token share a row of the tables, which L1 holds. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS) rope_kernel(rope_arguments<Real> a)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int64_t pieces = a.half / N;
    if (i >= a.T * a.heads * pieces) return;
    const place at = place_of<N>(i, pieces);
    const int64_t t = at.row / a.heads, head = at.row - t * a.heads;
    Real *first = a.x + t * a.stride + head * 2 * a.half + at.column;
    float x[N], y[N], c[N], s[N];
    load_piece(x, first);
    load_piece(y, first + a.half);
    const int64_t p = a.position[t * a.position_stride];
    if (p < 0 || p >= a.positions) {
        if (a.fault != NULL) atomicOr(a.fault, FAULT_INDEX);
        return;
    }
    load_elements(c, a.cosine + p * a.cosine_stride + at.column);
    load_elements(s, a.sine + p * a.sine_stride + at.column);
#pragma unroll
    for (int j = 0; j < N; j++) {
        const float old = x[j], sine = a.sign * s[j];
        x[j] = old * c[j] - y[j] * sine;
        y[j] = y[j] * c[j] + old * sine;
    }
    store_piece(first, x);
    store_piece(first + a.half, y);
}

/* For each head of D elements, with c = cosine[position[t]][j] and s = sine[position[t]][j], s = -s where inverse:
 *     (x[j], x[j + D/2])  ->  (x[j] c - x[j + D/2] s,  x[j + D/2] c + x[j] s),   j < D/2.
 * Source: Su et al. 2021, arXiv:2104.09864, in the order of transformers' rotate_half.
 *  In/Out:  x         [T, n*D] f32 or bf16.
 *  In:      cosine, sine  [positions,D/2] f32.      position  [T] i32 in 0 .. positions-1.
 *           head_dim  D, even.                      inverse   turn back, which is the backward pass too.
 *           Nothing overlaps.  T n D up to 2^39 - 256.
 *  Out:     fault     FAULT_INDEX for a position out of range, whose row of x stays as it is.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, x untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: 2 T n D e, e = 2 or 4 for an element, and 4 T (D + 1) of the tables. */
extern "C" cudpo_status cuda_rope(tensor x, tensor cosine, tensor sine, tensor position,
                                  int head_dim, bool inverse, tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(head_dim >= 2 && head_dim % 2 == 0);
    CUDPO_REQUIRE(is_matrix(x) && fits_grid(x.rows * x.cols, THREADS));
    CUDPO_REQUIRE(x.cols % head_dim == 0);
    CUDPO_REQUIRE(is_f32(cosine, cosine.rows, head_dim / 2));
    CUDPO_REQUIRE(is_f32(sine, cosine.rows, head_dim / 2));
    CUDPO_REQUIRE(is_i32(position, x.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(x, cosine) && tensor_disjoint(x, sine) &&
                  tensor_disjoint(x, position) && tensor_disjoint(x, fault));
    CUDPO_REQUIRE(tensor_disjoint(fault, cosine) && tensor_disjoint(fault, sine) &&
                  tensor_disjoint(fault, position));
    if (x.rows == 0) return CUDPO_OK;
    const bool rows = is_vectorisable(x) && is_vectorisable(cosine) && is_vectorisable(sine);
    FLOAT_TYPE(x.type, Real, {
        rope_arguments<Real> a;
        a.x = (Real *)x.data;
        a.cosine = (const float *)cosine.data;
        a.sine = (const float *)sine.data;
        a.position = (const int32_t *)position.data;
        a.fault = (int *)fault.data;
        a.T = x.rows;
        a.heads = x.cols / head_dim;
        a.half = head_dim / 2;
        a.positions = cosine.rows;
        a.stride = x.stride;
        a.cosine_stride = cosine.stride;
        a.sine_stride = sine.stride;
        a.position_stride = position.stride;
        a.sign = inverse ? -1.0f : 1.0f;
        PIECES(rows && a.half % lanes<Real>::COUNT == 0, lanes<Real>::COUNT, N, {
            const int64_t pieces = a.T * a.heads * (a.half / N);
            LAUNCH((rope_kernel<Real, N>), blocks_for(pieces, THREADS), THREADS, 0, stream, a);
        });
    });
    return LAUNCHED();
}
