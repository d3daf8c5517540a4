/* sum_squares.cu - the squared norm of gradients, and the factor that clips them. */
#include "check.h"
#include "kernels.h"
#include "vector.h"

#include <algorithm>
#include <cfloat>

enum { THREADS = 512, WARPS = THREADS / 32, BATCH = 4, BLOCKS = SQUARES_BLOCKS };

/* A batch whose float sum is not above this is added up in double: where products of floats underflow, each is off by
 * 2^-150 at most, which no larger sum of 32 of them shows. */
#define SMALL 0x1p-100f

/* A unit is a vector of T, or one element. */
template <typename T>
__device__ __forceinline__ void load_unit(float (&x)[lanes<T>::COUNT], const T *p)
{
    load_vector(x, p);
}
template <typename T> __device__ __forceinline__ void load_unit(float (&x)[1], const T *p)
{
    x[0] = to_float(*p);
}

/* The sum of N terms, N a power of two, in pairs of pairs. */
template <int N> __device__ __forceinline__ float sum_pairs(const float *term)
{
    return sum_pairs<N / 2>(term) + sum_pairs<N / 2>(term + N / 2);
}
template <> __device__ __forceinline__ float sum_pairs<1>(const float *term)
{
    return *term;
}

/* The sum of squares of a batch.  In floats, in pairs: a product (exact for bf16) and log2 of the number of terms sums
 * round, 1 + 4 times for float, 5 times for bf16, so it is off by 5 * 2^-24 of itself at most.  A double per element is
 * too slow on GPUs that have few units for them; where floats overflow or underflow it is what helps. */
template <int N> __device__ __forceinline__ double squares(const float (&x)[BATCH][N])
{
    float term[BATCH * N];
#pragma unroll
    for (int i = 0; i < BATCH * N; i++) {
        term[i] = x[i / N][i % N] * x[i / N][i % N];
    }
    const float all = sum_pairs<BATCH * N>(term);
    if (all > SMALL && all <= FLT_MAX) return (double)all;
    double sum = 0;
#pragma unroll
    for (int i = 0; i < BATCH * N; i++) {
        sum += (double)x[i / N][i % N] * (double)x[i / N][i % N];
    }
    return sum; /* also of NaN and Inf */
}

/* A block takes every gridDim-th run of BATCH * THREADS units, vectors or elements, a thread BATCH units a time.  Row r
 * has `columns` units; the last `tail` elements of the only row are in no vector.  Each element is read once. */
template <typename T, bool VECTORS>
static __global__ void __launch_bounds__(THREADS)
    squares_kernel(double *part, const T *__restrict__ g, int64_t rows, int64_t columns,
                   int64_t stride, int tail)
{
    enum { N = VECTORS ? lanes<T>::COUNT : 1 };
    SHARED(double, of_warp, [WARPS]);
    const int64_t units = rows * columns, step = (int64_t)gridDim.x * BATCH * THREADS;
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * BATCH * THREADS + threadIdx.x; i < units; i += step) {
        float x[BATCH][N];
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            const int64_t unit = i + b * THREADS;
            if (unit < units) {
                const int64_t row = rows == 1 ? 0 : unit / columns;
                const T *from = g + row * stride + (unit - row * columns) * N;
                load_unit(x[b], from);
            } else {
#pragma unroll
                for (int j = 0; j < N; j++) {
                    x[b][j] = 0.0f;
                }
            }
        }
        sum += squares(x);
    }
    if (blockIdx.x == 0 && (int)threadIdx.x < tail) {
        const double last = to_float(g[columns * N + threadIdx.x]);
        sum += last * last;
    }
    sum = block_sum<WARPS>(sum, of_warp);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

/* One block: thread t adds parts t, t + THREADS, .., then all threads are added. */
static __global__ void __launch_bounds__(THREADS)
    total_kernel(double *total, const double *part, int parts)
{
    SHARED(double, of_warp, [WARPS]);
    double sum = 0;
    for (int i = threadIdx.x; i < parts; i += THREADS) {
        sum += part[i];
    }
    sum = block_sum<WARPS>(sum, of_warp);
    if (threadIdx.x == 0) *total += sum;
}

extern "C" size_t cuda_sum_squares_scratch(void)
{
    return sum_squares_bytes();
}

/* sum += sum of squares of g.
 *  In/Out:  sum  [1] f64.  Off by 5 * 2^-24 of what is added, at most; 0, NaN and Inf are exact, nothing overflows.
 *  In:      g    [R,C] f32 or bf16.
 *  Scratch: cuda_sum_squares_scratch() bytes.  None of the three overlaps another.
 *  Bytes:   R C of g's type.  Two launches; their grids follow from the shape alone. */
extern "C" cudpo_status cuda_sum_squares(tensor sum, tensor g, scratch s, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_typed(sum, DTYPE_F64, 1, 1));
    CUDPO_REQUIRE(is_matrix(g));
    CUDPO_REQUIRE(tensor_disjoint(sum, g));
    const size_t bytes = cuda_sum_squares_scratch();
    CUDPO_REQUIRE(is_scratch(s, bytes));
    CUDPO_REQUIRE(is_apart(s, bytes, sum));
    CUDPO_REQUIRE(is_apart(s, bytes, g));
    if (g.rows == 0) return CUDPO_OK;
    /* Dense: one row, with a tail; strided: rows of whole vectors, or elements. */
    const tensor of = tensor_dense(g) ? flat(g) : g;
    const int64_t count = (int64_t)(16 / dtype_size(g.type));
    const bool vectors = of.rows == 1 ? (uintptr_t)of.data % 16 == 0 : is_vectorisable(of);
    const int64_t columns = vectors ? of.cols / count : of.cols;
    const int tail = vectors ? (int)(of.cols % count) : 0;
    const int64_t runs = (of.rows * columns + BATCH * THREADS - 1) / (BATCH * THREADS);
    const unsigned blocks = (unsigned)std::min<int64_t>(std::max<int64_t>(runs, 1), BLOCKS);
    double *part = (double *)s.data;
    FLOAT_TYPE(g.type, T, {
        if (vectors)
            LAUNCH((squares_kernel<T, true>), blocks, THREADS, 0, stream, part, (const T *)of.data,
                   of.rows, columns, of.stride, tail);
        else
            LAUNCH((squares_kernel<T, false>), blocks, THREADS, 0, stream, part, (const T *)of.data,
                   of.rows, columns, of.stride, tail);
    });
    CUDPO_TRY(LAUNCHED());
    LAUNCH(total_kernel, 1, THREADS, 0, stream, (double *)sum.data, part, (int)blocks);
    return LAUNCHED();
}

/* One thread; double, as the optimizer of the CPU. */
static __global__ void clip_kernel(float *norm, float *factor, const double *sum, float max_norm,
                                   int32_t *fault)
{
    const double root = sqrt(*sum);
    *norm = (float)root;
    if (!(root <= (double)FLT_MAX)) {
        *factor = NAN;
        if (fault != nullptr) atomicOr(fault, FAULT_NONFINITE);
        return;
    }
    const double shrink = (double)max_norm / (root + 1e-6);
    *factor = max_norm > 0.0f && shrink < 1.0 ? (float)shrink : 1.0f;
}

/* norm = sqrt(sum), factor = min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it.
 *  Out:     norm, factor  [1] f32.  Where the norm is no finite float, factor is NaN, and cuda_adamw writes nothing.
 *  In:      sum  [1] f64.   max_norm  finite, >= 0; 0: nothing is clipped, factor 1.
 *  In/Out:  fault  [1] i32 or absent: FAULT_NONFINITE.  No two of the four overlap. */
extern "C" cudpo_status cuda_clip_factor(tensor norm, tensor factor, tensor sum, float max_norm,
                                         tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_f32(norm, 1, 1));
    CUDPO_REQUIRE(is_f32(factor, 1, 1));
    CUDPO_REQUIRE(is_typed(sum, DTYPE_F64, 1, 1));
    CUDPO_REQUIRE(std::isfinite(max_norm));
    CUDPO_REQUIRE(max_norm >= 0.0f);
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(norm, factor));
    CUDPO_REQUIRE(tensor_disjoint(norm, sum));
    CUDPO_REQUIRE(tensor_disjoint(norm, fault));
    CUDPO_REQUIRE(tensor_disjoint(factor, sum));
    CUDPO_REQUIRE(tensor_disjoint(factor, fault));
    CUDPO_REQUIRE(tensor_disjoint(sum, fault));
    LAUNCH(clip_kernel, 1, 1, 0, stream, (float *)norm.data, (float *)factor.data,
           (const double *)sum.data, max_norm, (int32_t *)fault.data);
    return LAUNCHED();
}
