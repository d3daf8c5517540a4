/* device_memory.h - the list of cudaMalloc's allocations, for the CUDA runtime's functions. */
#ifndef CUDPO_SIMT_DEVICE_MEMORY_H
#define CUDPO_SIMT_DEVICE_MEMORY_H

#include <cstddef>

namespace simt
{

struct Allocation {
    char *data; /* NULL: none */
    size_t bytes;
};

void *device_allocate(size_t bytes);         /* NULL: no memory */
bool device_release(void *memory);           /* false: nothing that device_allocate() returned */
Allocation device_allocation(const void *p); /* that p points into */
size_t device_allocated();                   /* bytes of all allocations */
size_t shared_limit();                       /* bytes that a block may have on this device */
void set_dynamic_shared_limit(const void *kernel, size_t bytes);

/* Memory of the host that cudaMallocHost returned: copies may read and write it after the call. */
void pin(const void *memory, size_t bytes);
void unpin(const void *memory);
bool is_pinned(const void *p);

} // namespace simt

#endif /* CUDPO_SIMT_DEVICE_MEMORY_H */
