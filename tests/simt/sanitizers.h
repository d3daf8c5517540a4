/* sanitizers.h - AddressSanitizer, where this is compiled with it: what it must be told of. */
#ifndef CUDPO_SIMT_SANITIZERS_H
#define CUDPO_SIMT_SANITIZERS_H

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#include <cstddef>

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt
{

/* Accesses to these bytes are to be reported; are fine. */
inline void forbid(const void *p, size_t bytes)
{
#ifdef SIMT_ASAN
    __asan_poison_memory_region(p, bytes);
#else
    (void)p;
    (void)bytes;
#endif
}
inline void allow(const void *p, size_t bytes)
{
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(p, bytes);
#else
    (void)p;
    (void)bytes;
#endif
}

} // namespace simt

#endif /* CUDPO_SIMT_SANITIZERS_H */
