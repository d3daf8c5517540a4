/* device_memory.cpp - cudaMalloc's memory: ordinary memory of the process that the host may not touch.
 *
 * ASan enforces that: it is allowed while a kernel or one of CUDA's own functions runs, and forbidden otherwise.  New
 * memory is full of 0xff bytes, which are NaN as float and as bf16. */
#include "device_memory.h"
#include "internal.h"
#include "shared_limit.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace simt
{

static std::mutex mutex; /* of the maps */
static std::map<char *, size_t> allocations;
static std::map<const char *, size_t> pinned;
static std::map<const void *, size_t>
    shared_limits; /* of kernels that asked for more than the default */
static size_t most_shared = SHARED_LIMIT;

/* The last allocation that begins at p or before; end() if there is none. */
static std::map<char *, size_t>::iterator allocation_before(const void *p)
{
    auto it = allocations.upper_bound(static_cast<char *>(const_cast<void *>(p)));
    return it == allocations.begin() ? allocations.end() : --it;
}

Allocation device_allocation(const void *p)
{
    const std::lock_guard<std::mutex> lock(mutex);
    const auto it = allocation_before(p);
    if (it == allocations.end() || p >= it->first + it->second) return {nullptr, 0};
    return {it->first, it->second};
}

size_t device_allocated()
{
    const std::lock_guard<std::mutex> lock(mutex);
    size_t bytes = 0;
    for (const auto &allocation : allocations) {
        bytes += allocation.second;
    }
    return bytes;
}

void pin(const void *memory, size_t bytes)
{
    const std::lock_guard<std::mutex> lock(mutex);
    pinned[static_cast<const char *>(memory)] = bytes;
}

void unpin(const void *memory)
{
    const std::lock_guard<std::mutex> lock(mutex);
    pinned.erase(static_cast<const char *>(memory));
}

bool is_pinned(const void *p)
{
    const std::lock_guard<std::mutex> lock(mutex);
    auto it = pinned.upper_bound(static_cast<const char *>(p));
    if (it == pinned.begin()) return false;
    --it;
    return static_cast<const char *>(p) < it->first + it->second;
}

void describe_device_address(const char *p, char *text, size_t bytes)
{
    const std::lock_guard<std::mutex> lock(mutex);
    const auto it = allocation_before(p);
    if (it == allocations.end())
        snprintf(text, bytes, "outside of every allocation");
    else
        snprintf(text, bytes, "byte %td of an allocation of %zu", p - it->first, it->second);
}

void *device_allocate(size_t bytes)
{
    const size_t alignment = 256; /* cudaMalloc's */
    void *memory = race_allocate(bytes);
    if (memory == nullptr && (RACE || posix_memalign(&memory, alignment, bytes) != 0))
        return nullptr;
    memset(memory, 0xff, bytes);
    forbid(memory, bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    allocations[static_cast<char *>(memory)] = bytes;
    return memory;
}

bool device_release(void *memory)
{
    const std::lock_guard<std::mutex> lock(mutex);
    const auto it = allocations.find(static_cast<char *>(memory));
    if (it == allocations.end()) return false;
    allow(memory, it->second);
    if (RACE)
        race_free(memory, it->second);
    else
        free(memory);
    allocations.erase(it);
    return true;
}

void device_memory_allow(bool kernels_run)
{
#ifdef SIMT_ASAN
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto &allocation : allocations) {
        if (kernels_run)
            allow(allocation.first, allocation.second);
        else
            forbid(allocation.first, allocation.second);
    }
#else
    (void)kernels_run;
#endif
}

size_t dynamic_shared_limit(const void *kernel)
{
    const std::lock_guard<std::mutex> lock(mutex);
    const auto it = shared_limits.find(kernel);
    if (it == shared_limits.end() || it->second < SHARED_DEFAULT) return SHARED_DEFAULT;
    return std::min(it->second, most_shared);
}

size_t shared_limit()
{
    const std::lock_guard<std::mutex> lock(mutex);
    return most_shared;
}

void set_dynamic_shared_limit(const void *kernel, size_t bytes)
{
    const std::lock_guard<std::mutex> lock(mutex);
    shared_limits[kernel] = bytes;
}

} // namespace simt

extern "C" void simt_set_shared_limit(size_t bytes)
{
    const std::lock_guard<std::mutex> lock(simt::mutex);
    simt::most_shared = bytes;
}
