/* atomics.h - read-modify-write in one step.  Blocks run on several OS threads, so these are the host's own atomics.
 *
 * Of integers alone.  CUDA has float sums too, but their order is free, so two runs would give different bits. */
#ifndef CUDPO_SIMT_ATOMICS_H
#define CUDPO_SIMT_ATOMICS_H

#include "emulator.h"

#include <string.h>

#include <type_traits>

namespace simt
{

template <class T> struct AtomicBits {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics are for 4 and 8 bytes");
    using type = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
};

/* *p = op(*p, value); returns what *p was. */
template <class T, class Op> inline T atomic(T *p, T value, Op op, AtomicKind kind, Site site)
{
    static_assert(std::is_integral<T>::value, "atomics on floats are not repeatable");
    using Bits = typename AtomicBits<T>::type;
    Bits *const bits = reinterpret_cast<Bits *>(p);
    atomic_begin(p, sizeof(T), kind, site);
    Bits seen = atomic_load(bits), wanted;
    T was;
    do {
        memcpy(&was, &seen, sizeof was);
        const T becomes = op(was, value);
        memcpy(&wanted, &becomes, sizeof wanted);
    } while (!atomic_exchange_if(bits, &seen, wanted));
    return was;
}

} // namespace simt

/* The value converts to the type behind the pointer, as with CUDA's overloads. */
#define SIMT_ATOMIC(name, expression, kind)                                        \
    template <class T> inline T name(T *p, std::common_type_t<T> value, SIMT_SITE) \
    {                                                                              \
        const auto op = [](T old, T v) {                                           \
            (void)old;                                                             \
            return (T)(expression);                                                \
        };                                                                         \
        return simt::atomic<T>(p, value, op, simt::kind, SIMT_HERE);               \
    }
SIMT_ATOMIC(atomicAdd, old + v, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicSub, old - v, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicMin, v < old ? v : old, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicMax, old < v ? v : old, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicAnd, old &v, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicOr, old | v, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicXor, old ^ v, ATOMIC_UPDATE)
SIMT_ATOMIC(atomicExch, v, ATOMIC_OVERWRITE)
#undef SIMT_ATOMIC

template <class T>
inline T atomicCAS(T *p, std::common_type_t<T> expected, std::common_type_t<T> value, SIMT_SITE)
{
    static_assert(std::is_integral<T>::value, "CUDA's atomicCAS is for integers");
    using Bits = typename simt::AtomicBits<T>::type;
    Bits seen = (Bits)expected;
    simt::atomic_begin(p, sizeof(T), simt::ATOMIC_UPDATE, SIMT_HERE);
    simt::atomic_exchange_if(reinterpret_cast<Bits *>(p), &seen, (Bits)value);
    return (T)seen; /* what *p was, whether it was exchanged or not */
}

#endif /* CUDPO_SIMT_ATOMICS_H */
