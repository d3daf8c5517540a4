/* piece.h - a matrix as pieces: N adjacent elements of a row, 16 bytes where the layout allows it, else one.
 *
 * An elementwise kernel is written once, for pieces: one a thread, numbered row by row. */
#ifndef CUDPO_KERNELS_PIECE_H
#define CUDPO_KERNELS_PIECE_H

#include "check.h"
#include "kernels.h"
#include "vector.h"

/* How a piece of N elements of type Real lies in memory and in a register. */
template <typename Real, int N> struct piece {
    typedef uint4 bits;
};
template <> struct piece<float, 1> {
    typedef float bits;
};
template <> struct piece<bf16, 1> {
    typedef bf16 bits;
};

__device__ __forceinline__ void unpack(float (&x)[1], float bits)
{
    x[0] = bits;
}
__device__ __forceinline__ void unpack(float (&x)[1], bf16 bits)
{
    x[0] = to_float(bits);
}

template <int N, typename Real>
__device__ __forceinline__ void load_piece(float (&x)[N], const Real *p)
{
    unpack(x, *reinterpret_cast<const typename piece<Real, N>::bits *>(p));
}
/* The same of what nobody reads again soon: it is the first to leave the cache. */
template <int N, typename Real>
__device__ __forceinline__ void load_piece_once(float (&x)[N], const Real *p)
{
    unpack(x, __ldcs(reinterpret_cast<const typename piece<Real, N>::bits *>(p)));
}
template <int N, typename Real>
__device__ __forceinline__ void store_piece(Real *p, const float (&x)[N])
{
    if constexpr (N == 1)
        *p = from_float<Real>(x[0]);
    else
        store_bits(p, pack(x));
}

/* N elements of a type that they are more than 16 bytes of, or one. */
template <int N, typename Real>
__device__ __forceinline__ void load_elements(float (&x)[N], const Real *p)
{
    enum { STEP = N == 1 ? 1 : lanes<Real>::COUNT };
#pragma unroll
    for (int i = 0; i < N; i += STEP) {
        float part[STEP];
        load_piece(part, p + i);
#pragma unroll
        for (int j = 0; j < STEP; j++) {
            x[i + j] = part[j];
        }
    }
}
template <int N, typename Real>
__device__ __forceinline__ void store_elements(Real *p, const float (&x)[N])
{
    enum { STEP = N == 1 ? 1 : lanes<Real>::COUNT };
#pragma unroll
    for (int i = 0; i < N; i += STEP) {
        float part[STEP];
#pragma unroll
        for (int j = 0; j < STEP; j++) {
            part[j] = x[i + j];
        }
        store_piece(p + i, part);
    }
}

/* Where piece i of N elements begins, in rows of `pieces`. */
struct place {
    int64_t row, column;
};
template <int N> __device__ __forceinline__ place place_of(int64_t i, int64_t pieces)
{
    const int64_t row = i / pieces;
    return {row, (i - row * pieces) * N};
}

/* One matrix, not two that overlap. */
static inline bool is_same(tensor a, tensor b)
{
    return a.data == b.data && a.stride == b.stride;
}

/* Calls for pieces of a vector's elements, or of one: N is their number inside. */
#define PIECES(vectors, COUNT, N, ...) \
    do {                               \
        if (vectors) {                 \
            enum { N = COUNT };        \
            __VA_ARGS__                \
        } else {                       \
            enum { N = 1 };            \
            __VA_ARGS__                \
        }                              \
    } while (0)

#endif /* CUDPO_KERNELS_PIECE_H */
