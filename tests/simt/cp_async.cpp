/* cp_async.cpp - copies to shared memory behind a thread's back, which arrive as late as PTX allows.
 *
 * That is when the thread waits for their group, or exits.  Until then the destination holds NaNs.  A random schedule
 * lets half of the copies arrive at once, because relying on the old bytes is as wrong as relying on the new. */
#include "internal.h"

#include <cstring>

namespace simt
{

static void arrive(const Thread *t, const Copy &copy)
{
    memcpy(copy.to, copy.from, (size_t)copy.valid);
    memset(copy.to + copy.valid, 0, (size_t)(copy.bytes - copy.valid));
    race_access(copy.from, (size_t)copy.valid, READ, t->linear, copy.site);
    race_access(copy.to, (size_t)copy.bytes, WRITE, t->linear, copy.site);
}

void copies_arrive(Thread *t, int keep)
{
    if (t->copies.empty()) return;
    size_t n = 0;
    while (n < t->copies.size() && t->copies[n].group < t->copy_group - keep) {
        arrive(t, t->copies[n++]);
    }
    t->copies.erase(t->copies.begin(), t->copies.begin() + (ptrdiff_t)n);
}

/* Read the source now, so that ASan reports a wrong one at the line of the copy and not at that of the wait. */
__attribute__((noinline)) static void touch(const char *p, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        (void)*static_cast<const volatile char *>(p + i);
    }
}

void cp_async(void *shared, const void *global, int bytes, int valid, Site site)
{
    check_shared(shared, (size_t)bytes, site, "cp.async");
    if ((uintptr_t)global % (size_t)bytes != 0)
        die(site, "cp.async: global address %p is not %d-byte aligned", global, bytes);
    if (valid < 0 || valid > bytes) die(site, "cp.async: %d valid bytes of %d", valid, bytes);
    const Copy copy = {static_cast<char *>(shared),
                       static_cast<const char *>(global),
                       bytes,
                       valid,
                       current->copy_group,
                       site};
    touch(copy.from, valid);
    race_access(shared, (size_t)bytes, COPY_BEGUN, current->linear, site);
    if (config.order == RANDOM && (random_number() & 1)) {
        arrive(current, copy);
        return;
    }
    memset(shared, 0xff, (size_t)bytes);
    current->copies.push_back(copy);
}

void cp_commit()
{
    current->copy_group++;
}

void cp_wait(int groups_left)
{
    copies_arrive(current, groups_left);
    maybe_yield();
}

} // namespace simt
