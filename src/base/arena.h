/* arena.h - many blocks cut from one allocation, sized by a dry run of the same code.
 *
 * With base NULL an arena only counts: run the code that cuts blocks once like that, allocate `used` bytes, set base
 * and size, and run it again. */
#ifndef CUDPO_BASE_ARENA_H
#define CUDPO_BASE_ARENA_H

#include <assert.h>
#include <stddef.h>

enum { ARENA_ALIGNMENT = 256 }; /* as cudaMalloc: libraries choose by it how they compute */

typedef struct arena {
    char *base;        /* of backend memory; never read or written here */
    size_t size, used; /* bytes */
} arena;

/* The next block, as far from base as ARENA_ALIGNMENT divides; NULL in a dry run. */
static inline void *arena_take(arena *a, size_t bytes)
{
    char *block = a->base == NULL ? NULL : a->base + a->used;
    a->used += (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    assert(a->base == NULL || a->used <= a->size);
    return block;
}

#endif /* CUDPO_BASE_ARENA_H */
