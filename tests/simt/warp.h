/* warp.h - what the lanes of a warp do together: shuffles, votes, reductions.
 *
 * __activemask() is absent on purpose: what it returns depends on how lanes happen to have converged, which no
 * kernel may rely on and no emulator can know. */
#ifndef CUDPO_SIMT_WARP_H
#define CUDPO_SIMT_WARP_H

#include "emulator.h"

#include <string.h>

#include <type_traits>

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE)
{
    simt::warp_op(mask, simt::K_SYNCWARP, nullptr, simt::exec_nop, SIMT_HERE);
}

namespace simt
{

template <class T> inline T shfl(unsigned mask, T value, int source, Site site)
{
    static_assert(sizeof(T) <= 8 && std::is_arithmetic<T>::value,
                  "CUDA shuffles 4 and 8 bytes; shuffle a pair of bf16 as its 32 bits");
    ShflArg argument{0, source};
    memcpy(&argument.value, &value, sizeof value);
    warp_op(mask, K_SHFL, &argument, exec_shfl, site);
    memcpy(&value, &argument.value, sizeof value);
    return value;
}

/* The first lane of this lane's group of `width`, a power of two. */
inline int group_begin(int width)
{
    return (int)lane() & ~(width - 1);
}

} // namespace simt

/* PTX ISA, shfl.sync: a source outside of the group is the lane itself, except that xor may reach lower groups; only
 * five bits of a distance count. */
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_SITE)
{
    return simt::shfl(mask, value, simt::group_begin(width) + (source & (width - 1)), SIMT_HERE);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_SITE)
{
    const int me = (int)simt::lane(), source = me ^ (bits & 31);
    return simt::shfl(mask, value, source < simt::group_begin(width) + width ? source : me,
                      SIMT_HERE);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, SIMT_SITE)
{
    const int me = (int)simt::lane(), source = me + (int)(distance & 31);
    return simt::shfl(mask, value, source < simt::group_begin(width) + width ? source : me,
                      SIMT_HERE);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, SIMT_SITE)
{
    const int me = (int)simt::lane(), source = me - (int)(distance & 31);
    return simt::shfl(mask, value, source >= simt::group_begin(width) ? source : me, SIMT_HERE);
}

namespace simt
{

inline unsigned ballot(unsigned mask, int predicate, Site site)
{
    VoteArg argument{predicate, 0};
    warp_op(mask, K_VOTE, &argument, exec_vote, site);
    return argument.ballot;
}

template <class T> inline T reduce(unsigned mask, T value, ReduceOp op, Site site)
{
    static_assert(std::is_integral<T>::value && sizeof(T) == 4,
                  "redux.sync is for 32-bit integers");
    ReduceArg argument{value, op};
    warp_op(mask, K_REDUCE, &argument, exec_reduce, site);
    return (T)argument.value;
}

} // namespace simt

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE)
{
    return simt::ballot(mask, predicate, SIMT_HERE);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE)
{
    return simt::ballot(mask, predicate, SIMT_HERE) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE)
{
    return simt::ballot(mask, predicate, SIMT_HERE) == mask;
}

template <class T> inline T __reduce_add_sync(unsigned mask, T value, SIMT_SITE)
{
    return simt::reduce(mask, value, simt::REDUCE_ADD, SIMT_HERE);
}
template <class T> inline T __reduce_min_sync(unsigned mask, T value, SIMT_SITE)
{
    return simt::reduce(mask, value, simt::REDUCE_MIN, SIMT_HERE);
}
template <class T> inline T __reduce_max_sync(unsigned mask, T value, SIMT_SITE)
{
    return simt::reduce(mask, value, simt::REDUCE_MAX, SIMT_HERE);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, SIMT_SITE)
{
    return simt::reduce(mask, value, simt::REDUCE_AND, SIMT_HERE);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, SIMT_SITE)
{
    return simt::reduce(mask, value, simt::REDUCE_OR, SIMT_HERE);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, SIMT_SITE)
{
    return simt::reduce(mask, value, simt::REDUCE_XOR, SIMT_HERE);
}

#endif /* CUDPO_SIMT_WARP_H */
