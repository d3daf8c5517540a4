/* warps.cu - warp operations that not all lanes of the mask execute, or not together. */
#include "bugs.h"
#include "kernels/device.h"

static const unsigned ALL = 0xffffffffu;

template <bool CORRECT> static __global__ void divergent_shuffle(float *out, const float *)
{
    const int t = threadIdx.x;
    float x = (float)t;
    if (CORRECT || t % 2 == 1) x += __shfl_xor_sync(ALL, x, 2);
    out[t] = x;
}

template <bool CORRECT> static __global__ void shuffle_after_exit(float *out, const float *)
{
    const int t = threadIdx.x;
    if (!CORRECT && t >= 250) return;
    out[t] = __shfl_xor_sync(ALL, (float)t, 1);
}

template <bool CORRECT> static __global__ void shuffle_outside_mask(float *out, const float *)
{
    const int t = threadIdx.x;
    const unsigned mine = t % 32 < 16 ? 0xffffu : 0xffff0000u;
    out[t] = __shfl_xor_sync(CORRECT ? mine : 0xffffu, (float)t, 8);
}

template <bool CORRECT> static __global__ void shuffle_from_absent(float *out, const float *)
{
    const int t = threadIdx.x;
    if (t % 32 < 16) out[t] = __shfl_sync(0xffffu, (float)t, CORRECT ? 3 : 20);
}

template <bool CORRECT> static __global__ void masks_differ(float *out, const float *)
{
    const int t = threadIdx.x;
    out[t] = __shfl_xor_sync(CORRECT || t % 32 != 7 ? ALL : 0xffu, (float)t, 1);
}

template <bool CORRECT> static __global__ void vote_meets_shuffle(float *out, const float *)
{
    const int t = threadIdx.x;
    if (CORRECT || t % 32 < 16)
        out[t] = __shfl_sync(ALL, (float)t, 0);
    else
        out[t] = (float)__any_sync(ALL, t > 40);
}

/* The last warp has 16 lanes. */
template <bool CORRECT> static __global__ void lanes_that_do_not_exist(float *out, const float *)
{
    const int t = threadIdx.x;
    const unsigned mask = CORRECT && t >= 32 ? 0xffffu : ALL;
    out[t] = __any_sync(mask, t == 40) ? 1.0f : 2.0f;
}

template <bool CORRECT> static __global__ void half_product(float *out, const float *)
{
    float d[4] = {1, 2, 3, 4};
    const uint32_t a[4] = {}, b[2] = {};
    if (CORRECT || threadIdx.x % 32 < 16) mma_m16n8k16_bf16(d, a, b, d);
    out[threadIdx.x] = d[0];
}

template <bool CORRECT> static __global__ void two_products(float *out, const float *)
{
    float d[4] = {1, 2, 3, 4};
    const uint32_t a[4] = {}, b[2] = {};
    if (CORRECT || threadIdx.x % 32 < 16)
        mma_m16n8k16_bf16(d, a, b, d);
    else
        mma_m16n8k16_bf16(d, a, b, d);
    out[threadIdx.x] = d[0];
}

/* Rows of tiles are 16 bytes. */
template <bool CORRECT> static __global__ void misaligned_tile(float *out, const float *)
{
    DYN_SHARED(float, tile);
    const int t = threadIdx.x;
    tile[t] = (float)t;
    __syncthreads();
    uint32_t r[2];
    ldmatrix_x2(r, tile + t % 16 * (CORRECT ? 4 : 3));
    out[t] = (float)r[0];
}

template <bool CORRECT> static __global__ void tile_outside(float *out, const float *)
{
    DYN_SHARED(float, tile);
    const int t = threadIdx.x;
    tile[t] = (float)t;
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4(r, tile + t % 32 * (CORRECT ? 8 : 12));
    out[t] = (float)r[0];
}

template <bool CORRECT> static __global__ void tile_in_global_memory(float *out, const float *in)
{
    SHARED(float4, tile, [BUG_THREADS / 4]);
    const int t = threadIdx.x;
    if (t < BUG_THREADS / 4)
        tile[t] = make_float4(in[4 * t], in[4 * t + 1], in[4 * t + 2], in[4 * t + 3]);
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4(r, CORRECT ? (const void *)&tile[t % 32] : (const void *)(in + t % 32 * 4));
    out[t] = (float)r[0];
}

#define ONE(kernel) BUG_RUN(kernel, 1, BUG_THREADS, 0)
static const Bug bugs[] = {
    {"shuffle in a branch", ONE(divergent_shuffle), EVERYWHERE, "exited lanes|deadlock"},
    {"shuffle after an exit", ONE(shuffle_after_exit), EVERYWHERE, "exited lanes|deadlock"},
    {"shuffle outside of its mask", ONE(shuffle_outside_mask), EVERYWHERE, "not in its mask"},
    {"shuffle from an absent lane", ONE(shuffle_from_absent), EVERYWHERE, "not in mask"},
    {"masks differ", ONE(masks_differ), EVERYWHERE, "with mask|deadlock|with 0x"},
    {"a vote meets a shuffle", ONE(vote_meets_shuffle), EVERYWHERE, "warp divergence"},
    {"lanes that do not exist", BUG_RUN(lanes_that_do_not_exist, 1, 48, 0), EVERYWHERE,
     "do not exist"},
    {"mma by half a warp", ONE(half_product), EVERYWHERE, "exited lanes|deadlock"},
    {"two mma for one", ONE(two_products), EVERYWHERE, "warp divergence"},
    {"misaligned ldmatrix", BUG_RUN(misaligned_tile, 1, BUG_THREADS, 1024), EVERYWHERE, "aligned"},
    {"ldmatrix outside of its buffer", BUG_RUN(tile_outside, 1, BUG_THREADS, 1024), EVERYWHERE,
     "outside of the block's shared"},
    {"ldmatrix of global memory", ONE(tile_in_global_memory), EVERYWHERE,
     "outside of the block's shared"},
};
const BugList warp_bugs = {bugs, sizeof bugs / sizeof *bugs};
