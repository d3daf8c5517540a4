/* race_memory.h - the memory that the race checker watches, and the cells that hold its history.
 *
 * All of it, shared and device memory, comes from one reservation of address space, and its cells from others, so that an
 * address and its cell are one subtraction apart.  What is freed is never given out again: a late access is seen.
 *
 * A cell stands for a line of 16 bytes as long as all accesses to the line are of the whole of it, as they are where a
 * kernel uses vectors.  The first that is not splits it: four cells stand for its words.  A word is split likewise, into
 * halves.  Accesses to single bytes count as accesses to their half. */
#ifndef CUDPO_SIMT_RACE_MEMORY_H
#define CUDPO_SIMT_RACE_MEMORY_H

#include <algorithm>

#include "internal.h"

namespace simt
{

/* Where in the source an access is: an instruction, counted from the program's begin, or 2^31 + number of a Site. */
typedef uint32_t Place;

enum CellFlags : uint8_t {
    WRITTEN = 1, /* device memory: ever; of shared memory, write_phase says it */
    BY_ATOMIC = 2,
    COPYING = 4, /* by a cp.async that has not arrived */
    NOT_ALLOCATED = 8,
    SPLIT =
        16 /* of a line: see its words, read_phase is that of the split; of a word: this is its lower half */
};
/* Whose reads a cell stands for: read_who's; of read_lanes in its warp; of any threads of its block; of any. */
enum Readers : uint8_t { ONE_THREAD, SEVERAL_LANES, SEVERAL_WARPS, SEVERAL_BLOCKS };

/* Zero: allocated and never touched.  Phases and "who" are explained in race.cpp. */
struct Cell {
    uint32_t write_phase, write_who;
    Place write_place;
    uint32_t read_phase, read_who;
    Place read_place;
    uint32_t read_lanes;
    uint8_t flags, readers, unused[2];
};
static_assert(sizeof(Cell) == 32, "two cells are a cache line");

extern char *race_memory;        /* the arena first, then device memory */
extern size_t race_memory_bytes; /* given out so far */
constexpr size_t LINE = 16, WORD = 4, HALF = 2;
extern Cell *race_lines, *race_words, *race_upper_halves;
extern uint8_t *race_is_split; /* of each line; its cell's read_phase is then that of the split */

inline bool race_is_shared(const char *p)
{
    return (size_t)(p - race_memory) < ARENA;
}

void race_split_line(size_t line, uint32_t phase);
void race_split_word(size_t word);

/* Calls f(cell) for each cell of these bytes, in phase `now`.  A line that was split before phase `fresh`, of a shared
 * memory that is another block's now, is whole again. */
template <class F>
__attribute__((always_inline)) inline void race_for_cells(const char *p, size_t bytes, uint32_t now,
                                                          uint32_t fresh, F f)
{
    const size_t begin = (size_t)(p - race_memory), end = begin + bytes;
    for (size_t line = begin / LINE; line * LINE < end; line++) {
        const size_t first = std::max(begin, line * LINE), last = std::min(end, (line + 1) * LINE);
        Cell &whole = race_lines[line];
        if (race_is_split[line] && fresh > 0 && whole.read_phase < fresh) {
            whole = {};
            race_is_split[line] = 0;
        }
        if (!race_is_split[line]) {
            if (last - first == LINE) {
                f(whole);
                continue;
            }
            race_split_line(line, now);
        }
        for (size_t word = first / WORD; word * WORD < last; word++) {
            const bool lower = first<word * WORD + HALF, upper = last> word * WORD + HALF;
            Cell &c = race_words[word];
            if (!(c.flags & SPLIT)) {
                if (lower && upper) {
                    f(c);
                    continue;
                }
                race_split_word(word);
            }
            if (lower) f(c);
            if (upper) f(race_upper_halves[word]);
        }
    }
}

/* Whether an object of the block's shared memory holds all of these bytes. */
bool race_in_block(const char *p, size_t bytes);
void race_block_changes(); /* another block runs: forget what was answered */

/* race_report.cpp */
struct RaceReport {
    const char *what, *did;
    const char *address;
    Place place;
    unsigned thread;
    /* The earlier access; none where its phase is 0. */
    uint32_t earlier_phase;
    unsigned earlier_thread;
    Place earlier_place;
};
void race_report(const RaceReport &report);
void race_reports_begin(const char *kernel);
void race_reports_block(unsigned block, uint32_t first_phase);
void race_reports_end();
Place race_place(Site site);

} // namespace simt

#endif /* CUDPO_SIMT_RACE_MEMORY_H */
