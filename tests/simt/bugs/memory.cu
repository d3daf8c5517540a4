/* memory.cu - accesses outside of an object, misaligned, to what was never written or is gone. */
#include "bugs.h"
#include "kernels/device.h"

/* A number that the compiler does not know, so that it can't warn of what comes of it. */
static __device__ __forceinline__ int opaque(int x)
{
    volatile int hidden = x;
    return hidden;
}

/* out ends right behind the last element. */
template <bool CORRECT> static __global__ void behind_allocation(float *out, const float *)
{
    out[BUG_OUTPUTS - BUG_THREADS + threadIdx.x + (CORRECT ? 0 : 1)] = 1;
}

template <bool CORRECT> static __global__ void before_allocation(float *out, const float *in)
{
    const int t = threadIdx.x;
    out[t] = in[CORRECT ? t : t - 1] + 1;
}

template <bool CORRECT> static __global__ void wild_pointer(float *out, const float *in)
{
    out[threadIdx.x] = in[CORRECT ? 0 : (int64_t)1 << 44];
}

template <bool CORRECT> static __global__ void null_pointer(float *out, const float *in)
{
    /* From a number that the compiler does not know: it may do as it likes with a null pointer that it sees. */
    const uint64_t address = CORRECT ? (uint64_t)(uintptr_t)in : (uint64_t)opaque(0);
    out[threadIdx.x] = *reinterpret_cast<const float *>(address);
}

template <bool CORRECT> static __global__ void behind_shared(float *out, const float *)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    row[opaque(t + (CORRECT ? 0 : 1))] = (float)t;
    __syncthreads();
    out[t] = t == 0 ? 0 : row[t];
}

/* Into the next variable's redzone, and not into the next variable. */
template <bool CORRECT> static __global__ void before_shared(float *out, const float *)
{
    SHARED(float, first, [4]);
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    if (t < 4) first[t] = 0;
    row[opaque(t - (CORRECT ? 0 : 1)) + (t == 0 ? opaque(0) : 0)] = (float)t;
    __syncthreads();
    out[t] = t == BUG_THREADS - 1 ? first[0] : row[t];
}

template <bool CORRECT> static __global__ void behind_dynamic(float *out, const float *)
{
    DYN_SHARED(float, row);
    const int t = threadIdx.x;
    row[t] = (float)t;
    __syncthreads();
    out[t] = row[CORRECT ? t : t + 1];
}

template <bool CORRECT> static __global__ void before_dynamic(float *out, const float *)
{
    DYN_SHARED(float, row);
    const int t = threadIdx.x;
    row[t] = (float)t;
    __syncthreads();
    out[t] = row[CORRECT ? t : t - 1];
}

static __global__ void needs_a_row(float *out)
{
    DYN_SHARED(float, row);
    const int t = threadIdx.x;
    row[t] = (float)t;
    __syncthreads();
    out[t] = row[BUG_THREADS - 1 - t];
}

/* Elements counted instead of bytes. */
static void wrong_dynamic_size(bool correct, float *out, const float *)
{
    LAUNCH(needs_a_row, 1, BUG_THREADS, BUG_THREADS * (correct ? sizeof(float) : 1), 0, out);
}

template <bool CORRECT> static __global__ void misaligned_vector(float *out, const float *in)
{
    const int t = threadIdx.x;
    const float4 v = *reinterpret_cast<const float4 *>(in + 4 * t + (CORRECT ? 0 : 1));
    out[t] = v.x + v.w;
}

template <bool CORRECT> static __global__ void misaligned_double(float *out, const float *in)
{
    const double *const pair = reinterpret_cast<const double *>(in + (CORRECT ? 0 : 1));
    out[threadIdx.x] = pair[threadIdx.x] > 0.5 ? 1.0f : 2.0f;
}

/* The alignment of SHARED is that of its type. */
template <bool CORRECT> static __global__ void misaligned_shared(float *out, const float *)
{
    SHARED(float, plain, [BUG_THREADS * 4]);
    SHARED(float4, vectors, [BUG_THREADS]);
    const int t = threadIdx.x;
    float4 *const row = CORRECT ? vectors : reinterpret_cast<float4 *>(plain);
    row[t] = make_float4(1, 2, 3, (float)t);
    out[t] = row[t].w;
}

static __global__ void sum_of(float *out, const float *x)
{
    out[threadIdx.x] += x[threadIdx.x];
}

/* Scratch that somebody should have set to zero. */
static void unwritten_global(bool correct, float *out, const float *)
{
    float *scratch;
    cudaMalloc(&scratch, BUG_THREADS * sizeof(float));
    if (correct) cudaMemset(scratch, 0, BUG_THREADS * sizeof(float));
    LAUNCH(sum_of, 1, BUG_THREADS, 0, 0, out, scratch);
    cudaFree(scratch);
}

static __global__ void count(float *out, unsigned *counter)
{
    out[threadIdx.x] = atomicAdd(counter, 1u) < BUG_THREADS ? 1.0f : 2.0f;
}

static void unwritten_counter(bool correct, float *out, const float *)
{
    unsigned *counter;
    cudaMalloc(&counter, sizeof *counter);
    if (correct) cudaMemset(counter, 0, sizeof *counter);
    LAUNCH(count, 1, BUG_THREADS, 0, 0, out, counter);
    cudaFree(counter);
}

static void use_after_free(bool correct, float *out, const float *in)
{
    float *copy;
    cudaMalloc(&copy, BUG_THREADS * sizeof(float));
    cudaMemcpy(copy, in, BUG_THREADS * sizeof(float), cudaMemcpyDeviceToDevice);
    if (!correct) cudaFree(copy);
    LAUNCH(sum_of, 1, BUG_THREADS, 0, 0, out, copy);
    if (correct) cudaFree(copy);
}

/* An index of 32 bits for an offset that has more. */
template <bool CORRECT> static __global__ void index_overflow(float *out, const float *in)
{
    const int t = threadIdx.x, row = opaque(1 << 24);
    const int64_t offset = CORRECT ? (int64_t)row * 256 * t : (int64_t)(row * 256 * t);
    out[t] = in[offset % BUG_INPUTS];
}

template <bool CORRECT> static __global__ void stack_overflow(float *out, const float *)
{
    volatile float much[CORRECT ? 40 : 160000];
    for (int i = 0; i < (int)(sizeof much / sizeof *much); i++) {
        much[i] = (float)i;
    }
    out[threadIdx.x] = much[threadIdx.x % 40];
}

template <bool CORRECT> static __global__ void misaligned_atomic(float *out, const float *)
{
    uint32_t *const words = reinterpret_cast<uint32_t *>(out);
    if (threadIdx.x == 0)
        atomicOr(CORRECT ? words
                         : reinterpret_cast<uint32_t *>(reinterpret_cast<char *>(words) + 2),
                 1u);
}

#define ONE(kernel) BUG_RUN(kernel, 1, BUG_THREADS, 0)
#define DYNAMIC(kernel) BUG_RUN(kernel, 1, BUG_THREADS, BUG_THREADS * sizeof(float))
static const Bug bugs[] = {
    {"one behind an allocation", ONE(behind_allocation), RACES | SANITIZED,
     "outside of every allocation"},
    {"one before an allocation", ONE(before_allocation), RACES | SANITIZED,
     "outside of every allocation"},
    {"wild pointer", ONE(wild_pointer), EVERYWHERE, "memory access at"},
    {"null pointer", ONE(null_pointer), EVERYWHERE, "memory access at"},
    {"one behind shared memory", ONE(behind_shared), EVERYWHERE,
     "outside of the block's shared memory"},
    {"one before shared memory", ONE(before_shared), EVERYWHERE,
     "outside of the block's shared memory"},
    {"one behind dynamic memory", DYNAMIC(behind_dynamic), EVERYWHERE,
     "outside of the block's shared memory|memory access"},
    {"one before dynamic memory", DYNAMIC(before_dynamic), EVERYWHERE,
     "outside of the block's shared memory"},
    {"dynamic memory too small", wrong_dynamic_size, EVERYWHERE,
     "outside of the block's shared memory|memory access"},
    {"misaligned vector", ONE(misaligned_vector), SANITIZED, nullptr},
    {"misaligned double", ONE(misaligned_double), RACES | SANITIZED, "misaligned"},
    {"misaligned shared vector", ONE(misaligned_shared), SANITIZED, nullptr},
    {"unwritten global memory", unwritten_global, EVERYWHERE, "never written"},
    {"unwritten counter", unwritten_counter, EVERYWHERE, "never written"},
    {"use after cudaFree", use_after_free, RACES | SANITIZED, "outside of every allocation"},
    {"32-bit index", ONE(index_overflow), SANITIZED, nullptr},
    {"stack overflow", ONE(stack_overflow), EVERYWHERE, "stack overflow"},
    {"misaligned atomic", ONE(misaligned_atomic), EVERYWHERE, "aligned"},
};
const BugList memory_bugs = {bugs, sizeof bugs / sizeof *bugs};
