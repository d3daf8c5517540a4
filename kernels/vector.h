/* vector.h - 16-byte accesses as floats, and sums over warps and blocks in a fixed order. */
#ifndef CUDPO_KERNELS_VECTOR_H
#define CUDPO_KERNELS_VECTOR_H

#include "device.h"

/* Elements of type T in 16 bytes. */
template <typename T> struct lanes {
    enum { COUNT = 16 / sizeof(T) };
};

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* Two bf16 in a register, the first in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
__device__ __forceinline__ float bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ void unpack(float (&x)[4], uint4 v)
{
    x[0] = __uint_as_float(v.x);
    x[1] = __uint_as_float(v.y);
    x[2] = __uint_as_float(v.z);
    x[3] = __uint_as_float(v.w);
}
__device__ __forceinline__ void unpack(float (&x)[8], uint4 v)
{
    x[0] = bf16_low(v.x);
    x[1] = bf16_high(v.x);
    x[2] = bf16_low(v.y);
    x[3] = bf16_high(v.y);
    x[4] = bf16_low(v.z);
    x[5] = bf16_high(v.z);
    x[6] = bf16_low(v.w);
    x[7] = bf16_high(v.w);
}
__device__ __forceinline__ uint4 pack(const float (&x)[4])
{
    return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                      __float_as_uint(x[3]));
}
__device__ __forceinline__ uint4 pack(const float (&x)[8])
{
    return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]),
                      pack_bf16(x[6], x[7]));
}

/* 16 aligned bytes of T as floats. */
template <typename T>
__device__ __forceinline__ void load_vector(float (&x)[16 / sizeof(T)], const T *p)
{
    unpack(x, *reinterpret_cast<const uint4 *>(p));
}
/* Store 16 bytes.  As one number, because nvcc 13.0 makes four stores of 4 bytes of a uint4 where it does not know the
 * address from a load. */
__device__ __forceinline__ void store_bits(void *p, uint4 bits)
{
    typedef unsigned __int128 all;
    const uint64_t low = (uint64_t)bits.y << 32 | bits.x, high = (uint64_t)bits.w << 32 | bits.z;
    *static_cast<all *>(p) = (all)high << 64 | low;
}

/* The sum over a warp, in every lane: a butterfly, so that all lanes have the same bits. */
template <typename T> __device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    }
    return x;
}
__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    }
    return x;
}

/* The sum over a block of WARPS whole warps, in every thread: warps in order.  part [WARPS] is shared; a barrier must
 * stand between two uses of the same part. */
template <int WARPS, typename T> __device__ __forceinline__ T block_sum(T x, T *part)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads(); /* all parts are written */
    T sum = part[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) {
        sum += part[w];
    }
    return sum;
}

#endif /* CUDPO_KERNELS_VECTOR_H */
