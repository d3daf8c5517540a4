/* atomics.cpp - the host's side of atomics.h. */
#include "internal.h"

namespace simt
{

void atomic_begin(const void *p, unsigned bytes, AtomicKind kind, Site site)
{
    if ((uintptr_t)p % bytes != 0) die(site, "atomic: address %p is not %u-byte aligned", p, bytes);
    if (current == nullptr) die(site, "atomic: outside of a kernel");
    race_access(p, bytes, kind == ATOMIC_UPDATE ? ATOMIC : ATOMIC_STORE, current->linear, site);
    maybe_yield(); /* the order of atomics is free: let the schedule choose it */
}

uint32_t atomic_load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

uint64_t atomic_load(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

bool atomic_exchange_if(uint32_t *p, uint32_t *seen, uint32_t wanted)
{
    return __atomic_compare_exchange_n(p, seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

bool atomic_exchange_if(uint64_t *p, uint64_t *seen, uint64_t wanted)
{
    return __atomic_compare_exchange_n(p, seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

} // namespace simt
