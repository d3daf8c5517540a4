/* async.cu - cp.async: its data is there when the thread has waited, and for the others when all have met after that. */
#include "bugs.h"
#include "kernels/device.h"

enum { TILE = 64 }; /* threads, which copy 16 bytes each; 256 floats */

/* A tile of `in` into shared memory. */
static __device__ __forceinline__ void begin_copy(float *tile, const float *in)
{
    cp_async_16(tile + threadIdx.x * 4, in + threadIdx.x * 4);
    cp_async_commit();
}

template <bool CORRECT> static __global__ void no_wait(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    begin_copy(tile, in);
    if (CORRECT) cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

template <bool CORRECT> static __global__ void no_barrier(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    begin_copy(tile, in);
    cp_async_wait<0>();
    if (CORRECT) __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

/* A barrier does not replace the wait, not even for what the thread copied itself. */
template <bool CORRECT> static __global__ void own_copy_not_awaited(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    begin_copy(tile, in);
    if (CORRECT) cp_async_wait<0>();
    out[threadIdx.x] = tile[threadIdx.x * 4];
}

template <bool CORRECT> static __global__ void no_commit(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    cp_async_16(tile + threadIdx.x * 4, in + threadIdx.x * 4);
    if (CORRECT) cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

/* Two tiles in flight, the sum of four. */
template <bool CORRECT> static __global__ void awaits_too_few(float *out, const float *in)
{
    DYN_SHARED(float, tiles);
    float sum = 0;
    begin_copy(tiles, in);
    for (int i = 0; i < 4; i++) {
        if (i < 3) begin_copy(tiles + (i + 1) % 2 * 4 * TILE, in + (i + 1) * 4 * TILE);
        if (CORRECT && i == 3)
            cp_async_wait<0>();
        else
            cp_async_wait<
                1>(); /* all but the tile that was just begun; there is none in the last round */
        __syncthreads();
        sum += tiles[i % 2 * 4 * TILE + threadIdx.x];
        __syncthreads(); /* all have read the tile */
    }
    out[threadIdx.x] = sum;
}

/* The next tile is begun in a buffer that others still read. */
template <bool CORRECT> static __global__ void buffer_reused(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        begin_copy(tile, in + i * 4 * TILE);
        cp_async_wait<0>();
        __syncthreads();
        sum += tile[(threadIdx.x + 32) % TILE];
        if (CORRECT) __syncthreads();
    }
    out[threadIdx.x] = sum;
}

template <bool CORRECT> static __global__ void misaligned_source(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    begin_copy(tile, in + (CORRECT ? 0 : 1));
    cp_async_wait<0>();
    out[threadIdx.x] = tile[threadIdx.x * 4];
}

template <bool CORRECT> static __global__ void target_outside(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    begin_copy(tile + (CORRECT ? 0 : 4 * TILE), in);
    cp_async_wait<0>();
    out[threadIdx.x] = CORRECT ? tile[threadIdx.x * 4] : 0;
}

/* The last tile of a row is not a whole one: the number of valid bytes says so. */
template <bool CORRECT> static __global__ void source_outside(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    const float *const from = in + BUG_INPUTS - 4 * TILE + 4 + threadIdx.x * 4;
    const int valid = CORRECT && threadIdx.x == TILE - 1 ? 0 : 16;
    cp_async_16(tile + threadIdx.x * 4, from, valid);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = tile[threadIdx.x * 4];
}

template <bool CORRECT> static __global__ void valid_negative(float *out, const float *in)
{
    DYN_SHARED(float, tile);
    const int left = 40 - (int)threadIdx.x; /* floats of the row from here on */
    const int valid = left >= 4 ? 16 : left * 4;
    cp_async_16(tile + threadIdx.x * 4, in + threadIdx.x * 4, CORRECT && valid < 0 ? 0 : valid);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = tile[threadIdx.x * 4];
}

#define ONE(kernel) BUG_RUN(kernel, 1, TILE, 2 * 4 * TILE * sizeof(float))
static const Bug bugs[] = {
    {"cp.async not awaited", ONE(no_wait), EVERYWHERE, "cp.async|unordered"},
    {"cp.async without a barrier", ONE(no_barrier), EVERYWHERE, "unordered|never written"},
    {"cp.async, own bytes not awaited", ONE(own_copy_not_awaited), EVERYWHERE, "cp.async may"},
    {"cp.async not committed", ONE(no_commit), EVERYWHERE, "cp.async|unordered"},
    {"cp.async, waits for too few", ONE(awaits_too_few), EVERYWHERE, "cp.async|unordered"},
    {"cp.async into a buffer in use", ONE(buffer_reused), EVERYWHERE, "unordered"},
    {"cp.async from a misaligned place", ONE(misaligned_source), EVERYWHERE, "aligned"},
    {"cp.async to outside of its buffer",
     BUG_RUN(target_outside, 1, TILE, 4 * TILE * sizeof(float)), EVERYWHERE,
     "outside of the block's shared"},
    {"cp.async from outside of its source", ONE(source_outside), RACES | SANITIZED,
     "outside of every allocation"},
    {"cp.async of less than no bytes", ONE(valid_negative), EVERYWHERE, "valid bytes"},
};
const BugList async_bugs = {bugs, sizeof bugs / sizeof *bugs};
