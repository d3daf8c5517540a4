/* blocks.cu - threads that meet in global memory. */
#include "bugs.h"
#include "kernels/device.h"

template <bool CORRECT> static __global__ void two_writers(float *out, const float *)
{
    const int t = threadIdx.x;
    if (!CORRECT || t % 2 == 0) out[t / 2] = (float)t;
}

template <bool CORRECT> static __global__ void two_blocks(float *out, const float *)
{
    out[threadIdx.x + (CORRECT ? blockIdx.x * blockDim.x : 0)] = (float)blockIdx.x;
}

/* Blocks whose tiles overlap by one element. */
template <bool CORRECT> static __global__ void overlapping_tiles(float *out, const float *in)
{
    const unsigned begin = blockIdx.x * BUG_THREADS;
    for (unsigned i = begin + threadIdx.x; i < begin + BUG_THREADS + (CORRECT ? 0 : 1);
         i += BUG_THREADS) {
        out[i] = in[i] + (float)blockIdx.x;
    }
}

template <bool CORRECT> static __global__ void sum_without_atomics(float *out, const float *)
{
    unsigned *const sum = reinterpret_cast<unsigned *>(out);
    if (CORRECT)
        atomicAdd(sum, 1u);
    else
        *sum += 1u;
}

template <bool CORRECT> static __global__ void atomic_and_plain(float *out, const float *)
{
    unsigned *const sum = reinterpret_cast<unsigned *>(out);
    if (CORRECT || threadIdx.x > 0)
        atomicAdd(sum, 1u);
    else
        *sum = 1u;
}

template <bool CORRECT> static __global__ void sum_read_too_early(float *out, const float *)
{
    SHARED(unsigned, sum, [1]);
    if (threadIdx.x == 0) *sum = 0;
    __syncthreads();
    atomicAdd(sum, threadIdx.x);
    if (CORRECT) __syncthreads();
    out[threadIdx.x] = (float)*sum;
}

/* Nothing makes block 0 run before block 1. */
template <bool CORRECT> static __global__ void reads_other_block(float *out, const float *in)
{
    const unsigned t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    if (CORRECT)
        out[i] = blockIdx.x == 0 ? in[t] : in[t] * 2;
    else
        out[i] = blockIdx.x == 0 ? in[t] : out[t] * 2;
}

/* In place, but a neighbour's input is an output too. */
template <bool CORRECT> static __global__ void shift_in_place(float *out, const float *in)
{
    const unsigned t = threadIdx.x;
    out[t] = in[t];
    __syncthreads();
    const float next = out[(t + 1) % BUG_THREADS];
    if (CORRECT) __syncthreads();
    out[t] = next;
}

#define ONE(kernel) BUG_RUN(kernel, 1, BUG_THREADS, 0)
#define FOUR(kernel) BUG_RUN(kernel, 4, BUG_THREADS, 0)
static const Bug bugs[] = {
    {"two threads write one place", ONE(two_writers), RACES, "write after unordered write"},
    {"blocks write one place", FOUR(two_blocks), EVERYWHERE, "write after unordered write"},
    {"tiles overlap", BUG_RUN(overlapping_tiles, 3, BUG_THREADS, 0), RACES,
     "write after unordered write"},
    {"plain += by many", FOUR(sum_without_atomics), RACES, "unordered"},
    {"atomics and a plain write", FOUR(atomic_and_plain), RACES, "unordered"},
    {"atomic sum read too early", ONE(sum_read_too_early), EVERYWHERE, "unordered"},
    {"another block's output read", BUG_RUN(reads_other_block, 2, BUG_THREADS, 0), RACES,
     "read after unordered write"},
    {"shift in place", ONE(shift_in_place), EVERYWHERE, "unordered"},
};
const BugList block_bugs = {bugs, sizeof bugs / sizeof *bugs};
