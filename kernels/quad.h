/* quad.h - four elements of a row at a time, whatever their type: 16 bytes of float32, 8 of bfloat16.
 *
 * For ops that mix types: lane i of a warp has quad i of every tensor, so each access of the warp is one run of memory
 * without holes.  The same code with single elements in place of quads serves every other layout. */
#ifndef CUDPO_KERNELS_QUAD_H
#define CUDPO_KERNELS_QUAD_H

#include "check.h"
#include "vector.h"

__device__ __forceinline__ void load_quad(float (&x)[4], const float *p)
{
    unpack(x, *reinterpret_cast<const uint4 *>(p));
}
__device__ __forceinline__ void load_quad(float (&x)[4], const bf16 *p)
{
    const uint2 v = *reinterpret_cast<const uint2 *>(p);
    x[0] = bf16_low(v.x);
    x[1] = bf16_high(v.x);
    x[2] = bf16_low(v.y);
    x[3] = bf16_high(v.y);
}
template <typename T> __device__ __forceinline__ void load_quad(float (&x)[1], const T *p)
{
    x[0] = to_float(*p);
}

__device__ __forceinline__ void store_quad(float *p, const float (&x)[4])
{
    *reinterpret_cast<uint4 *>(p) = pack(x);
}
__device__ __forceinline__ void store_quad(bf16 *p, const float (&x)[4])
{
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
}
template <typename T> __device__ __forceinline__ void store_quad(T *p, const float (&x)[1])
{
    *p = from_float<T>(x[0]);
}

/* Every row starts on a boundary of four elements and holds whole quads. */
static inline bool has_quads(tensor t)
{
    const size_t quad = 4 * dtype_size(t.type);
    return (uintptr_t)t.data % quad == 0 && (t.rows <= 1 || t.stride % 4 == 0) && t.cols % 4 == 0;
}

#endif /* CUDPO_KERNELS_QUAD_H */
