/* swiglu.cu - act = silu(gate) * up, forward and backward. */
#include "kernels.h"
#include "piece.h"

enum { THREADS = 256 };

/* 1 / (1 + e^-x), within 9 units of 2^-24 of itself: expf is within 2 units in the last place, the sum within half a
 * one, the quotient within 2, and such a unit is at most 2 * 2^-24.  e^-x is inf below -88.7, and the quotient 0 from
 * e^-x = 2^126 on, which is what is meant. */
__device__ __forceinline__ float sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + expf(-x));
}

/* A piece a thread.  3F elements moved a row. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    swiglu_kernel(Real *act, const Real *gate_up, int64_t T, int64_t F, int64_t act_stride,
                  int64_t stride)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= T * (F / N)) return;
    const place at = place_of<N>(i, F / N);
    gate_up += at.row * stride + at.column;
    float gate[N], up[N];
    load_piece(gate, gate_up);
    load_piece(up, gate_up + F);
#pragma unroll
    for (int j = 0; j < N; j++) {
        up[j] *= gate[j] * sigmoid(gate[j]);
    }
    store_piece(act + at.row * act_stride + at.column, up);
}

/* act [T,F] = silu(gate) up, silu(x) = x / (1 + e^-x).   Source: Shazeer 2020, arXiv:2002.05202.
 *  Out:     act      [T,F] f32 or bf16.
 *  In:      gate_up  [T,2F] like act: gate and up side by side.  Nothing overlaps.  T F up to 2^39 - 256.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: 3 T F e, e = 2 or 4 for an element.  Finite where gate and the result are. */
extern "C" cudpo_status cuda_swiglu(tensor act, tensor gate_up, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(act) && fits_grid(act.rows * act.cols, THREADS));
    CUDPO_REQUIRE(is_typed(gate_up, act.type, act.rows, 2 * act.cols));
    CUDPO_REQUIRE(tensor_disjoint(act, gate_up));
    if (act.rows == 0) return CUDPO_OK;
    const int64_t T = act.rows, F = act.cols;
    const bool vectors = is_vectorisable(act) && is_vectorisable(gate_up);
    FLOAT_TYPE(act.type, Real, {
        PIECES(vectors, lanes<Real>::COUNT, N, {
            LAUNCH((swiglu_kernel<Real, N>), blocks_for(T * (F / N), THREADS), THREADS, 0, stream,
                   (Real *)act.data, (const Real *)gate_up.data, T, F, act.stride, gate_up.stride);
        });
    });
    return LAUNCHED();
}

template <typename Real> struct backward_arguments {
    Real *dgate_up, *act; /* act may be NULL */
    const Real *dact, *gate_up;
    int64_t T, F;
    int64_t dgate_up_stride, act_stride, dact_stride, gate_up_stride;
};

/* A piece a thread, which reads all of its operands before it writes over them.  5F elements moved a row, 6F with act. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS) swiglu_backward_kernel(backward_arguments<Real> a)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.T * (a.F / N)) return;
    const place at = place_of<N>(i, a.F / N);
    const Real *gate_up = a.gate_up + at.row * a.gate_up_stride + at.column;
    Real *dgate_up = a.dgate_up + at.row * a.dgate_up_stride + at.column;
    float gate[N], up[N], slope[N], act[N];
    load_piece_once(slope, a.dact + at.row * a.dact_stride + at.column);
    load_piece_once(gate, gate_up);
    load_piece_once(up, gate_up + a.F);
#pragma unroll
    for (int j = 0; j < N; j++) {
        const float s = sigmoid(gate[j]), silu = gate[j] * s;
        act[j] = up[j] * silu; /* as the forward pass has it */
        gate[j] = slope[j] * up[j] * (s + silu * (1.0f - s));
        up[j] = slope[j] * silu;
    }
    store_piece(dgate_up, gate);
    store_piece(dgate_up + a.F, up);
    if (a.act != NULL) store_piece(a.act + at.row * a.act_stride + at.column, act);
}

/* With s = sigmoid(gate):  dgate = dact up s (1 + gate (1 - s)),  dup = dact gate s,  and act once more, to the bit.
 *  Out:     dgate_up  [T,2F] f32 or bf16; may be gate_up itself.
 *           act       [T,F] like it, or absent; may be dact itself.
 *  In:      dact      [T,F] like it.       gate_up  [T,2F] like it.
 *           Nothing else overlaps.  T F up to 2^39 - 256.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: 5 T F e, 6 T F e with act; e = 2 or 4 for an element.  Finite where gate, the results and dact up are. */
extern "C" cudpo_status cuda_swiglu_backward(tensor dgate_up, tensor act, tensor dact,
                                             tensor gate_up, cudpo_stream stream)
{
    const int64_t T = dact.rows, F = dact.cols;
    CUDPO_REQUIRE(is_matrix(dact) && fits_grid(dact.rows * dact.cols, THREADS));
    CUDPO_REQUIRE(is_typed(gate_up, dact.type, T, 2 * F));
    CUDPO_REQUIRE(is_like(dgate_up, gate_up));
    CUDPO_REQUIRE(!tensor_present(act) || is_like(act, dact));
    CUDPO_REQUIRE(is_same(dgate_up, gate_up) || tensor_disjoint(dgate_up, gate_up));
    CUDPO_REQUIRE(is_same(act, dact) || tensor_disjoint(act, dact));
    CUDPO_REQUIRE(tensor_disjoint(dgate_up, dact) && tensor_disjoint(dgate_up, act));
    CUDPO_REQUIRE(tensor_disjoint(act, gate_up));
    if (T == 0) return CUDPO_OK;
    const bool vectors = is_vectorisable(dgate_up) && is_vectorisable(dact) &&
                         is_vectorisable(gate_up) && (!tensor_present(act) || is_vectorisable(act));
    FLOAT_TYPE(dact.type, Real, {
        const backward_arguments<Real> a = {(Real *)dgate_up.data,
                                            (Real *)act.data,
                                            (const Real *)dact.data,
                                            (const Real *)gate_up.data,
                                            T,
                                            F,
                                            dgate_up.stride,
                                            act.stride,
                                            dact.stride,
                                            gate_up.stride};
        PIECES(vectors, lanes<Real>::COUNT, N, {
            LAUNCH((swiglu_backward_kernel<Real, N>), blocks_for(T * (F / N), THREADS), THREADS, 0,
                   stream, a);
        });
    });
    return LAUNCHED();
}
