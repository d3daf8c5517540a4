/* barriers.cu - barriers that are missing, or that not all threads reach. */
#include "bugs.h"
#include "kernels/device.h"

template <bool CORRECT> static __global__ void no_barrier(float *out, const float *)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    row[t] = (float)t;
    if (CORRECT) __syncthreads();
    out[t] = row[(t + 37) % BUG_THREADS];
}

/* The row is written again while slower warps still read it. */
template <bool CORRECT> static __global__ void no_second_barrier(float *out, const float *in)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    float x = in[t];
    for (int i = 0; i < 3; i++) {
        row[t] = x;
        __syncthreads();
        x += row[(t + 32) % BUG_THREADS];
        if (CORRECT) __syncthreads();
    }
    out[t] = x;
}

template <bool CORRECT> static __global__ void barrier_in_branch(float *out, const float *)
{
    const int t = threadIdx.x;
    if (CORRECT || t < 64) __syncthreads();
    out[t] = (float)t;
}

template <bool CORRECT> static __global__ void two_barriers(float *out, const float *)
{
    const int t = threadIdx.x;
    if (CORRECT || t < 64) {
        __syncthreads();
        out[t] = (float)t;
    } else {
        out[t] = (float)t;
        __syncthreads();
    }
}

template <bool CORRECT> static __global__ void exit_before_barrier(float *out, const float *)
{
    const int t = threadIdx.x;
    if (!CORRECT && t >= 200) return;
    __syncthreads();
    if (t < 200) out[t] = (float)t;
}

/* Odd lanes of warp 0 wait for one another at a barrier of the warp, all others at one of the block. */
template <bool CORRECT> static __global__ void deadlock(float *out, const float *)
{
    const int t = threadIdx.x;
    if (!CORRECT && t < 32 && t % 2 == 1) __syncwarp(0x55555555u << 1);
    if (!CORRECT && t == 1) __syncwarp(0x55555555u << 1);
    __syncthreads();
    out[t] = 1;
}

template <bool CORRECT> static __global__ void no_syncwarp(float *out, const float *)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    row[t] = (float)t;
    if (CORRECT) __syncwarp();
    out[t] = row[t ^ 1];
}

/* Halves of a warp synchronise, and then exchange across. */
template <bool CORRECT> static __global__ void half_syncwarp(float *out, const float *)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    row[t] = (float)t;
    __syncwarp(t % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
    out[t] = row[CORRECT ? t ^ 8 : t ^ 16];
}

/* A shuffle exchanges registers; it does not order accesses to memory. */
template <bool CORRECT> static __global__ void shuffle_as_barrier(float *out, const float *)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    row[t] = (float)t;
    const float x = __shfl_xor_sync(0xffffffffu, (float)t, 1);
    if (CORRECT) __syncwarp();
    out[t] = x + row[t ^ 1];
}

template <bool CORRECT> static __global__ void unwritten_shared(float *out, const float *)
{
    SHARED(float, row, [BUG_THREADS]);
    const int t = threadIdx.x;
    if (CORRECT || t != 5) row[t] = (float)t;
    __syncthreads();
    out[t] = row[BUG_THREADS - 1 - t];
}

/* A sum over the block whose partial sums are used twice. */
template <bool CORRECT> static __global__ void parts_reused(float *out, const float *in)
{
    SHARED(float, part, [BUG_THREADS / 32]);
    const int t = threadIdx.x;
    float sum = 0;
    for (int round = 0; round < 2; round++) {
        if (t % 32 == 0) part[t / 32] = in[t + round];
        __syncthreads();
        for (int i = 0; i < BUG_THREADS / 32; i++) {
            sum += part[i];
        }
        if (CORRECT) __syncthreads();
    }
    out[t] = sum;
}

/* One thread writes what all read, and does not wait until they have. */
template <bool CORRECT> static __global__ void broadcast_overwritten(float *out, const float *in)
{
    SHARED(float, value, [1]);
    const int t = threadIdx.x;
    if (t == 0) value[0] = in[1];
    __syncthreads();
    const float x = value[0];
    if (CORRECT) __syncthreads();
    if (t == 0) value[0] = in[2];
    __syncthreads();
    out[t] = x + value[0];
}

#define ONE(kernel) BUG_RUN(kernel, 1, BUG_THREADS, 0)
static const Bug bugs[] = {
    {"no barrier", ONE(no_barrier), EVERYWHERE, "unordered|never written"},
    {"no second barrier in a loop", ONE(no_second_barrier), EVERYWHERE, "unordered"},
    {"barrier in a branch", ONE(barrier_in_branch), EVERYWHERE, "have exited|deadlock"},
    {"two barriers for one", ONE(two_barriers), EVERYWHERE, "barrier divergence"},
    {"exit before a barrier", ONE(exit_before_barrier), EVERYWHERE, "have exited|deadlock"},
    {"deadlock", ONE(deadlock), EVERYWHERE, "deadlock"},
    {"no __syncwarp", ONE(no_syncwarp), EVERYWHERE, "unordered|never written"},
    {"__syncwarp of half a warp", ONE(half_syncwarp), RACES, "unordered|never written"},
    {"shuffle taken for a barrier", ONE(shuffle_as_barrier), RACES, "unordered"},
    {"unwritten shared memory", ONE(unwritten_shared), EVERYWHERE, "never written"},
    {"partial sums used again", ONE(parts_reused), RACES, "unordered"},
    {"broadcast overwritten", ONE(broadcast_overwritten), RACES, "unordered"},
};
const BugList barrier_bugs = {bugs, sizeof bugs / sizeof *bugs};
