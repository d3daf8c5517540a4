/* swiglu.cu - act = silu(gate) * up, forward and backward. */
#include "check.h"
#include "kernels.h"
#include "vector.h"

enum { THREADS = 256 };

/* silu(g) = g sigmoid(g), and what its slope needs. */
__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* One vector of a row per thread.  2F + F elements of T moved a row. */
template <typename T, bool VECTORS>
static __global__ void __launch_bounds__(THREADS)
    swiglu_kernel(T *__restrict__ act, const T *__restrict__ gate_up, int64_t T_, int64_t F,
                  int64_t act_stride, int64_t stride)
{
    enum { N = VECTORS ? lanes<T>::COUNT : 1 };
    const int64_t columns = F / N;
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= T_ * columns) return;
    const int64_t row = i / columns, column = i % columns * N;
    const T *gate = gate_up + row * stride + column, *up = gate + F;
    if (VECTORS) {
        float g[lanes<T>::COUNT], u[lanes<T>::COUNT];
        load_vector(g, gate);
        load_vector(u, up);
#pragma unroll
        for (int j = 0; j < lanes<T>::COUNT; j++) {
            u[j] *= g[j] * sigmoid(g[j]);
        }
        store_vector(act + row * act_stride + column, u);
    } else {
        const float g = to_float(*gate);
        act[row * act_stride + column] = from_float<T>(g * sigmoid(g) * to_float(*up));
    }
}

extern "C" cudpo_status cuda_swiglu(tensor act, tensor gate_up, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(act) && is_matrix(gate_up) && gate_up.type == act.type);
    CUDPO_REQUIRE(gate_up.rows == act.rows && gate_up.cols == 2 * act.cols);
    CUDPO_REQUIRE(are_disjoint(act, gate_up));
    if (act.rows == 0) return CUDPO_OK;
    const int64_t rows = act.rows, F = act.cols;
    const bool vectors = is_vectorisable(act) && is_vectorisable(gate_up);
    FLOAT_TYPE(act.type, T, {
        const int64_t work = rows * (vectors ? F / lanes<T>::COUNT : F);
        CUDPO_REQUIRE(work <= (int64_t)INT32_MAX * THREADS);
        if (vectors)
            LAUNCH((swiglu_kernel<T, true>), blocks_for(work, THREADS), THREADS, 0, stream,
                   (T *)act.data, (const T *)gate_up.data, rows, F, act.stride, gate_up.stride);
        else
            LAUNCH((swiglu_kernel<T, false>), blocks_for(work, THREADS), THREADS, 0, stream,
                   (T *)act.data, (const T *)gate_up.data, rows, F, act.stride, gate_up.stride);
    });
    return LAUNCHED();
}
