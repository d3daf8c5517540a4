/* race.cpp - the race and initialisation checker.
 *
 * Kernels are compiled with -fsanitize=thread, which makes the compiler call a function __tsan_read4, __tsan_write16, ...
 * before every access to memory.  libtsan, which knows the host's threads, is not linked; the functions are here, and
 * know CUDA's: two accesses to one place by two threads of a grid, not both reads and not both atomic, are a race unless
 * they are ordered, and only these order:
 *   - __syncthreads: all threads of the block;
 *   - __syncwarp:    the lanes of its mask.
 * Shuffles, votes and mma order nothing, and nothing orders the blocks of a grid.  So a race is found in whatever order
 * the threads happened to run, and each run finds all of those on its path.  Blocks run one after another here.
 *
 * For device and shared memory, down to pieces of two bytes, a cell remembers the last write, and the reads since the last
 * barrier.  "When" is a phase: a number that grows with every block and every barrier, so that two comparisons tell
 * another launch's access from another block's and from one before the last barrier.  Within a phase, each lane counts
 * the __syncwarps that it took part in, and knows how far the others had come at its last one. */
#include "internal.h"
#include "race_memory.h"

#include <algorithm>
#include <cstring>

namespace simt
{

/* The thread in the low 10 bits, its lane's clock above. */
typedef uint32_t Who;
constexpr uint32_t THREAD_MASK = MAX_THREADS - 1;
constexpr uint32_t CLOCK_LIMIT = 1u << 22;

static uint32_t phase;        /* now */
static uint32_t launch_first; /* the first phase of this launch */
static uint32_t block_first;  /* of this block */
static Who me;                /* the thread that runs, now */
static size_t watched;        /* bytes of race_memory that are looked at: none outside of kernels */

/* A warp's clock ticks at each of its __syncwarps; a lane's is what it was at the last that the lane took part in, and
 * known[lane][other] the latest of `other` that happened before lane's present. */
struct Clocks {
    uint32_t ticks;
    uint32_t known[32][32];
};
static Clocks clocks[MAX_THREADS / 32];
static uint32_t used_clocks;  /* warps that ticked in this phase */
static unsigned clocks_ready; /* warps whose clocks were ever set */

static void reset_clocks(unsigned warp)
{
    Clocks &c = clocks[warp];
    memset(&c, 0, sizeof c);
    c.ticks = 1;
    for (int lane = 0; lane < 32; lane++) {
        c.known[lane][lane] = 1;
    }
}

static Who who(unsigned thread)
{
    return thread | clocks[thread / 32].known[thread % 32][thread % 32] << 10;
}

static void next_phase()
{
    if (++phase == UINT32_MAX) die({nullptr, 0}, "race checker: 2^32 blocks and barriers");
    for (; used_clocks != 0; used_clocks &= used_clocks - 1) {
        reset_clocks((unsigned)__builtin_ctz(used_clocks));
    }
}

void race_launch_begins(const char *kernel)
{
    next_phase();
    launch_first = block_first = phase;
    watched = race_memory_bytes;
    race_reports_begin(kernel);
}

void race_launch_ends()
{
    watched = 0;
    race_reports_end();
}

void race_block_begins(unsigned block, unsigned warps)
{
    next_phase();
    block_first = phase;
    watched = race_memory_bytes; /* the first block of all made the arena */
    for (; clocks_ready < warps; clocks_ready++) {
        reset_clocks(clocks_ready);
    }
    race_block_changes();
    race_reports_block(block, phase);
}

void race_thread_runs(unsigned thread)
{
    me = who(thread);
}

void race_barrier()
{
    next_phase();
}

/* Each lane of the mask learns all that the others did so far, and what they knew. */
void race_syncwarp(unsigned warp, unsigned mask)
{
    Clocks &c = clocks[warp];
    uint32_t all[32] = {};
    for (int l = 0; l < 32; l++) {
        for (int other = 0; (mask >> l & 1) && other < 32; other++) {
            if (c.known[l][other] > all[other]) all[other] = c.known[l][other];
        }
    }
    for (int l = 0; l < 32; l++) {
        if (mask >> l & 1) all[l] = c.ticks;
    }
    if (++c.ticks == CLOCK_LIMIT)
        die({nullptr, 0}, "race checker: 2^22 __syncwarps without a barrier");
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        memcpy(c.known[l], all, sizeof all);
        c.known[l][l] = c.ticks;
    }
    used_clocks |= 1u << warp;
    me = who(current->linear);
}

/* Whether what `that` did in phase `when`, of this launch, happened before the present of the running thread. */
static inline bool is_ordered(uint32_t when, Who that)
{
    if (when < block_first) return false; /* by another block */
    if (when < phase) return true;        /* before the last barrier */
    const uint32_t differ = (that ^ me) & THREAD_MASK;
    if (differ == 0) return true;
    if (differ >= 32) return false; /* in another warp */
    return clocks[(me & THREAD_MASK) / 32].known[me % 32][that % 32] >= that >> 10;
}

/* Whether all reads of a cell happened before the present of the running thread. */
static bool reads_are_ordered(const Cell &c)
{
    switch (c.readers) {
    case ONE_THREAD:
        return is_ordered(c.read_phase, c.read_who);
    case SEVERAL_BLOCKS:
        return false;
    case SEVERAL_WARPS:
        return c.read_phase < phase && c.read_phase >= block_first;
    case SEVERAL_LANES:
        break;
    }
    for (uint32_t lanes = c.read_lanes; lanes != 0; lanes &= lanes - 1) {
        const uint32_t lane = (uint32_t)__builtin_ctz(lanes);
        if (!is_ordered(c.read_phase, (c.read_who & ~31u) | lane)) return false;
    }
    return true;
}

/* Remember a read by the running thread.  A read before the last barrier can be forgotten: whatever the barrier does not
 * order after it, another block, is not ordered after this one either. */
static inline void add_read(Cell &c, uint32_t first, Place place)
{
    const uint32_t differ = (c.read_who ^ me) & THREAD_MASK;
    const bool now = c.read_phase == phase;
    if (c.read_phase < first ||
        (c.read_phase >= block_first && !now && c.readers != SEVERAL_BLOCKS) ||
        (now && differ == 0 && c.readers == ONE_THREAD)) {
        c.read_phase = phase;
        c.read_who = me;
        c.readers = ONE_THREAD;
        c.read_place = place;
    } else if (c.read_phase < block_first) {
        c.readers = SEVERAL_BLOCKS;
    } else if (c.readers == SEVERAL_BLOCKS || c.readers == SEVERAL_WARPS) {
        return;
    } else if (differ >= 32) {
        c.readers = SEVERAL_WARPS;
    } else {
        if (c.readers == ONE_THREAD) c.read_lanes = 1u << c.read_who % 32;
        c.readers = SEVERAL_LANES;
        c.read_lanes |= 1u << me % 32;
        /* One clock for all of them, the latest.  Where lanes that are not ordered read at different clocks, a __syncwarp
         * with one of them may go unnoticed, and a race be seen that it prevented. */
        const uint32_t clock = std::max(c.read_who >> 10, me >> 10);
        c.read_who = (me & THREAD_MASK) | clock << 10;
        c.read_place = place;
    }
}

static inline void check_written(const Cell &c, bool shared, uint32_t first, const char *p,
                                 Place place)
{
    if (__builtin_expect(!(shared ? c.write_phase >= first : c.flags & WRITTEN), 0))
        race_report({"read of memory that was never written", "read", p, place, me, 0, 0, 0});
}

static inline void check_read(const Cell &c, bool shared, uint32_t first, const char *p,
                              Place place)
{
    check_written(c, shared, first, p, place);
    if (c.write_phase < first) return;
    const char *what = nullptr;
    if (!is_ordered(c.write_phase, c.write_who)) {
        what = "read after unordered write";
    } else if (c.flags & COPYING) {
        what = "read of what a cp.async may still write";
    }
    if (__builtin_expect(what != nullptr, 0))
        race_report({what, "read", p, place, me, c.write_phase, c.write_who, c.write_place});
}

/* Check a write, and remember it. */
static inline void write(Cell &c, Access access, uint32_t first, const char *p, Place place)
{
    const bool atomic = access == ATOMIC || access == ATOMIC_STORE;
    const char *const did = atomic ? "atomic" : "write";
    if (c.write_phase >= first && !(atomic && (c.flags & BY_ATOMIC)) &&
        __builtin_expect(!is_ordered(c.write_phase, c.write_who), 0))
        race_report({"write after unordered write", did, p, place, me, c.write_phase, c.write_who,
                     c.write_place});
    if (c.read_phase >= first && __builtin_expect(!reads_are_ordered(c), 0))
        race_report({"write after unordered read", did, p, place, me, c.read_phase, c.read_who,
                     c.read_place});
    c.write_phase = phase;
    c.write_who = me;
    c.write_place = place;
    c.flags = (uint8_t)((c.flags & SPLIT) | WRITTEN | (atomic ? BY_ATOMIC : 0) |
                        (access == COPY_BEGUN ? COPYING : 0));
}

__attribute__((noinline)) static void report_outside(const char *p, Access access, Place place,
                                                     const char *what)
{
    race_report({what, access == READ ? "read" : "write", p, place, me, 0, 0, 0});
}

/* p is in the watched memory.  Inlined into each callback, where bytes and access are constants. */
__attribute__((always_inline)) static inline void look(const char *p, size_t bytes, Access access,
                                                       Place place)
{
    const bool shared = race_is_shared(p);
    if (shared && !race_in_block(p, bytes)) {
        report_outside(p, access, place, "access outside of the block's shared memory");
        return;
    }
    const uint32_t first = shared ? block_first : launch_first;
    race_for_cells(
        p, bytes, phase, shared ? block_first : 0, [=](Cell & c) __attribute__((always_inline)) {
            if (__builtin_expect(c.flags & NOT_ALLOCATED, 0)) {
                report_outside(p, access, place, "access outside of every allocation");
            } else if (access == READ) {
                check_read(c, shared, first, p, place);
                add_read(c, first, place);
            } else {
                if (access == ATOMIC) check_written(c, shared, first, p, place);
                write(c, access, first, p, place);
            }
        });
}

void race_access(const void *p, size_t bytes, Access access, unsigned thread, Site site)
{
    const char *const at = static_cast<const char *>(p);
    if (bytes == 0 || (size_t)(at - race_memory) >= watched) return;
    const Who running = me;
    me = who(thread);
    look(at, bytes, access, race_place(site));
    me = running;
}

} // namespace simt

/* The compiler's callbacks.  Most accesses are to a thread's own stack, which is not watched. */
using namespace simt;

static inline void called(void *p, size_t bytes, Access access, void *return_address)
{
    const char *const at = static_cast<const char *>(p);
    if ((size_t)(at - race_memory) >= watched) return;
    look(at, bytes, access, (Place)((uintptr_t)return_address - program_base()));
}

/* Of an access that the compiler knows to be aligned, or to be perhaps not. */
static inline void called_aligned(void *p, size_t bytes, Access access, void *return_address)
{
    const size_t offset = (size_t)(static_cast<char *>(p) - race_memory);
    if (__builtin_expect((uintptr_t)p % bytes != 0 && offset < watched, 0))
        race_report({"misaligned access", access == READ ? "read" : "write", static_cast<char *>(p),
                     (Place)((uintptr_t)return_address - program_base()), me, 0, 0, 0});
    called(p, bytes, access, return_address);
}

#define HERE __builtin_return_address(0)
#define CALLBACK(name, bytes, access, function) \
    void name(void *p)                          \
    {                                           \
        function(p, bytes, access, HERE);       \
    }
#define CALLBACKS(bytes)                                                 \
    CALLBACK(__tsan_read##bytes, bytes, READ, called_aligned)            \
    CALLBACK(__tsan_write##bytes, bytes, WRITE, called_aligned)          \
    CALLBACK(__tsan_unaligned_read##bytes, bytes, READ, called)          \
    CALLBACK(__tsan_unaligned_write##bytes, bytes, WRITE, called)        \
    CALLBACK(__tsan_volatile_read##bytes, bytes, READ, called)           \
    CALLBACK(__tsan_volatile_write##bytes, bytes, WRITE, called)         \
    CALLBACK(__tsan_unaligned_volatile_read##bytes, bytes, READ, called) \
    CALLBACK(__tsan_unaligned_volatile_write##bytes, bytes, WRITE, called)

extern "C" {
CALLBACKS(1)
CALLBACKS(2)
CALLBACKS(4)
CALLBACKS(8)
CALLBACKS(16)
void __tsan_read_range(void *p, size_t bytes)
{
    if (bytes > 0) called(p, bytes, READ, HERE);
}
void __tsan_write_range(void *p, size_t bytes)
{
    if (bytes > 0) called(p, bytes, WRITE, HERE);
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
}
