/* race.h - what the emulator tells the race checker (race.cpp), in the build that has it; nothing in the others. */
#ifndef CUDPO_SIMT_RACE_H
#define CUDPO_SIMT_RACE_H

#include <cstddef>

#include "emulator.h"

namespace simt
{

/* What a thread does to memory.  A cp.async is begun by one call and done, as a plain write, by a later one. */
enum Access { READ, WRITE, ATOMIC, ATOMIC_STORE, COPY_BEGUN };

#ifdef SIMT_RACE

constexpr bool RACE = true;
void race_launch_begins(const char *kernel);
void race_launch_ends(); /* ends the process if there was something to report */
void race_block_begins(unsigned block, unsigned warps);
void race_thread_runs(unsigned thread);
void race_barrier();
void race_syncwarp(unsigned warp, unsigned mask);
/* An access that the compiler's callbacks do not see, by a thread that need not be the current one. */
void race_access(const void *p, size_t bytes, Access access, unsigned thread, Site site);
/* Memory that the checker watches: the arena of shared memory first, then cudaMalloc's. */
void *race_arena(size_t bytes);
void *race_allocate(size_t bytes); /* NULL: no more */
void race_free(void *memory, size_t bytes);
void race_written(const void *p, size_t bytes); /* by the host */

#else

constexpr bool RACE = false;
inline void race_launch_begins(const char *) {}
inline void race_launch_ends() {}
inline void race_block_begins(unsigned, unsigned) {}
inline void race_thread_runs(unsigned) {}
inline void race_barrier() {}
inline void race_syncwarp(unsigned, unsigned) {}
inline void race_access(const void *, size_t, Access, unsigned, Site) {}
inline void *race_arena(size_t)
{
    return nullptr;
}
inline void *race_allocate(size_t)
{
    return nullptr;
}
inline void race_free(void *, size_t) {}
inline void race_written(const void *, size_t) {}

#endif

} // namespace simt

#endif /* CUDPO_SIMT_RACE_H */
