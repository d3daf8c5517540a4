/* race_memory.cpp - giving out the watched memory. */
#include "race_memory.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

namespace simt
{

char *race_memory;
size_t race_memory_bytes;
Cell *race_lines, *race_words, *race_upper_halves;
uint8_t *race_is_split;

constexpr size_t RESERVED = (size_t)16
                            << 30; /* address space; memory is used where it is touched */
constexpr size_t ALIGNMENT = 256,
                 GAP = 256; /* between two allocations, so that a step too far is seen */

static void *reserve(size_t bytes)
{
    void *const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("SIMT ERROR: race checker: no address space");
        abort();
    }
    return memory;
}

static void prepare()
{
    if (race_memory != nullptr) return;
    race_memory = static_cast<char *>(reserve(RESERVED));
    race_is_split = static_cast<uint8_t *>(reserve(RESERVED / LINE));
    race_lines = static_cast<Cell *>(reserve(RESERVED / LINE * sizeof(Cell)));
    race_words = static_cast<Cell *>(reserve(RESERVED / WORD * sizeof(Cell)));
    race_upper_halves = static_cast<Cell *>(reserve(RESERVED / WORD * sizeof(Cell)));
    race_memory_bytes = ARENA;
}

void race_split_line(size_t line, uint32_t phase)
{
    Cell &whole = race_lines[line];
    for (size_t i = 0; i < LINE / WORD; i++) {
        race_words[line * (LINE / WORD) + i] = whole;
    }
    whole.read_phase = phase;
    race_is_split[line] = 1;
}

void race_split_word(size_t word)
{
    race_upper_halves[word] = race_words[word];
    race_words[word].flags |= SPLIT;
}

void *race_arena(size_t)
{
    prepare();
    return race_memory; /* one: blocks run one after another */
}

static void forbid_bytes(char *p, size_t bytes)
{
    race_for_cells(p, bytes, 0, 0, [](Cell &c) { c.flags |= NOT_ALLOCATED; });
}

void *race_allocate(size_t bytes)
{
    prepare();
    if (bytes > RESERVED) return nullptr;
    const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (rounded + 2 * GAP > RESERVED - race_memory_bytes) return nullptr;
    char *const memory = race_memory + race_memory_bytes + GAP;
    race_memory_bytes += GAP + rounded + GAP;
    const size_t used = (bytes + HALF - 1) / HALF * HALF;
    forbid_bytes(memory - GAP, GAP);
    forbid_bytes(memory + used, rounded - used + GAP);
    return memory;
}

/* Give the pages that lie in an array back to the system; they read as zeros afterwards. */
static void give_back(void *begin, size_t bytes)
{
    const uintptr_t page = 4096, first = ((uintptr_t)begin + page - 1) / page * page;
    const uintptr_t last = ((uintptr_t)begin + bytes) / page * page;
    if (first < last) madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
}

void race_free(void *memory, size_t bytes)
{
    const size_t begin = (size_t)(static_cast<char *>(memory) - race_memory);
    const size_t lines = (bytes + LINE - 1) / LINE, words = lines * LINE / WORD;
    for (size_t i = begin / LINE; i < begin / LINE + lines; i++) {
        race_lines[i] = {};
        race_lines[i].flags = NOT_ALLOCATED;
        race_is_split[i] = 0;
    }
    give_back(memory, bytes);
    give_back(&race_words[begin / WORD], words * sizeof(Cell));
    give_back(&race_upper_halves[begin / WORD], words * sizeof(Cell));
}

void race_written(const void *p, size_t bytes)
{
    race_for_cells(static_cast<const char *>(p), bytes, 0, 0, [](Cell &c) { c.flags |= WRITTEN; });
}

/* The object that held the last access: most are followed by one to the same. */
static const char *object, *object_end;

void race_block_changes()
{
    object = object_end = nullptr;
}

bool race_in_block(const char *p, size_t bytes)
{
    if (p >= object && p + bytes <= object_end) return true;
    const Worker *const w = worker;
    if (p >= w->dynamic && p + bytes <= w->dynamic + w->dynamic_bytes) {
        object = w->dynamic;
        object_end = w->dynamic + w->dynamic_bytes;
        return true;
    }
    for (const SharedVariable &variable : w->variables) {
        if (p < variable.data || p + bytes > variable.data + variable.bytes) continue;
        object = variable.data;
        object_end = variable.data + variable.bytes;
        return true;
    }
    return false;
}

} // namespace simt
