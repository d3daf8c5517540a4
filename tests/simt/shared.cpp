/* shared.cpp - a block's shared memory.
 *
 * The arena starts out forbidden (ASan reports any access) and full of 0xff bytes, which are NaN as float and as bf16:
 * what a block did not write itself is no number.  Objects are aligned as CUDA promises and not better, so that luck
 * does not hide a wrong cast, and dynamic shared memory ends where an unreadable page begins. */
#include "internal.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace simt
{

constexpr size_t PAGE = 4096;

void shared_create(Worker *w)
{
    w->arena = static_cast<char *>(race_arena(ARENA));
    if (w->arena != nullptr) return;
    void *const memory =
        mmap(nullptr, ARENA + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("SIMT ERROR: no memory for shared memory");
        abort();
    }
    w->arena = static_cast<char *>(memory) + PAGE;
    mprotect(w->arena - PAGE, PAGE, PROT_NONE);
    mprotect(w->arena + ARENA, PAGE, PROT_NONE);
}

static void make_usable(char *p, size_t bytes)
{
    allow(p, bytes);
    memset(p, 0xff, bytes);
}

/* p, or the next address that is a multiple of the alignment, but not of twice of it. */
static char *align_exactly(char *p, size_t alignment)
{
    const uintptr_t step = 2 * alignment;
    return reinterpret_cast<char *>(((uintptr_t)p + alignment + step - 1) / step * step -
                                    alignment);
}

void shared_reset(size_t dynamic_bytes)
{
    Worker *const w = worker;
    forbid(w->arena, ARENA);
    w->variables.clear();
    w->static_end = w->arena;
    w->static_bytes = 0;
    w->dynamic_bytes = dynamic_bytes;
    w->dynamic = w->arena + ARENA - (dynamic_bytes + 15) / 16 * 16;
    if ((uintptr_t)w->dynamic % 32 == 0) w->dynamic -= 16;
    make_usable(w->dynamic, dynamic_bytes);
}

void *shared_static(const void *key, size_t bytes, size_t alignment, const char *name, Site site)
{
    Worker *const w = worker;
    for (const SharedVariable &variable : w->variables) {
        if (variable.key == key) return variable.data;
    }
    w->static_bytes += (bytes + 15) / 16 * 16;
    if (w->static_bytes > SHARED_DEFAULT)
        die(site, "%s: SHARED variables take %zu bytes; CUDA allows 48 KiB", name, w->static_bytes);
    if (w->static_bytes + w->dynamic_bytes > w->shared_limit)
        die(site, "%s: the block needs %zu bytes of shared memory; the kernel may have %zu", name,
            w->static_bytes + w->dynamic_bytes, w->shared_limit);
    char *const data = align_exactly(w->static_end + REDZONE, alignment < 4 ? 4 : alignment);
    if (data + bytes > w->dynamic)
        die(site, "%s: the emulator's arena has no room for so many SHARED variables", name);
    w->static_end = data + bytes;
    make_usable(data, bytes);
    w->variables.push_back({key, data, bytes});
    return data;
}

void *shared_dynamic()
{
    return worker->dynamic;
}

bool in_shared(const char *p, size_t bytes)
{
    const Worker *const w = worker;
    if (p >= w->dynamic && p + bytes <= w->dynamic + w->dynamic_bytes) return true;
    for (const SharedVariable &variable : w->variables) {
        if (p >= variable.data && p + bytes <= variable.data + variable.bytes) return true;
    }
    return false;
}

/* For instructions of shared memory alone, which the compiler's checks know nothing of. */
void check_shared(const void *p, size_t bytes, Site site, const char *what)
{
    const char *const at = static_cast<const char *>(p);
    if ((uintptr_t)p % bytes != 0)
        die(site, "%s: shared address %p is not %zu-byte aligned", what, p, bytes);
    if (!in_shared(at, bytes))
        die(site,
            "%s: address is outside of the block's shared memory (at offset %td of %zu dynamic "
            "bytes)",
            what, at - worker->dynamic, worker->dynamic_bytes);
}

} // namespace simt
