/* share.c - in rounds: each process works for a while, then all tell each other how far they are.  So nobody waits for one that is
 * silent, all know of the first bad row, and whoever is lost is missed within a round.
 *
 * Who shares a folder is found by looking: each makes its part, which is empty yet, and the first whose part it sees leads it. */
#include "data/share.h"
#include "base/log.h"
#include "data/share_state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A round: all are there. */
static cudpo_status tell(share *s)
{
    return s->company->exchange(s->company->context, s->all, &s->mine, sizeof s->mine);
}

static bool all_ended(const share *s)
{
    for (int32_t r = 0; r < s->company->size; r++)
        if (s->all[r].stage != STAGE_END) return false;
    return true;
}

/* Is the part of process r seen in this one's cache folder? */
static bool sees(const share *s, int32_t r)
{
    char *path = share_part_path(s, r);
    const bool seen = path != NULL && file_is_regular(path);
    free(path);
    return seen;
}

/* The first process whose part is seen here: where each has a folder of its own, this one. */
static int32_t find_leader(const share *s)
{
    const int32_t own = s->company->rank;
    for (int32_t r = 0; r < own; r++) {
        const standing *x = &s->all[r];
        const bool alike = memcmp(&x->key, &s->mine.key, sizeof x->key) == 0;
        if (x->stage == STAGE_START && alike && sees(s, r)) return r;
    }
    return own;
}

static bool sees_group(const share *s)
{
    for (int32_t r = 0; r < s->company->size; r++)
        if (share_has_member(s, r) && !sees(s, r)) return false;
    return true;
}

/* Look for the cache, then for those to make it with.  Where a leader does not see all who see it, each works for itself: the lock
 * is there for that. */
static cudpo_status meet(share *s)
{
    CUDPO_TRY(cached_look(s->cached));
    if (s->cached->map.memory != NULL) s->mine.stage = STAGE_END;
    CUDPO_TRY(tell(s));
    if (all_ended(s)) return CUDPO_OK;
    const bool here = s->mine.stage == STAGE_END;
    if (!here) CUDPO_TRY(share_create_part(s));
    CUDPO_TRY(tell(s));
    if (!here) s->mine.leader = find_leader(s);
    CUDPO_TRY(tell(s));
    s->mine.blind = !here && share_leads(s) && !sees_group(s);
    CUDPO_TRY(tell(s));
    const standing *leader = &s->all[s->mine.leader];
    if (!here &&
        (leader->blind || leader->leader != s->mine.leader)) /* nor is one led that leads */
        s->mine.leader = s->company->rank;
    return tell(s);
}

/* How far all are: what the first thing is that some still have to do. */
static void say(share *s)
{
    const standing *last = &s->all[0];
    int64_t together = 0;
    if (!build_progress_due(&s->progress)) return;
    for (int32_t r = 0; r < s->company->size; r++) {
        const standing *x = &s->all[r];
        if (x->stage < last->stage || (x->stage == last->stage && x->rows < last->rows)) last = x;
        if (x->stage == STAGE_BUILT && x->rows > together) together = x->rows;
    }
    const char *path = s->cached->path;
    if (last->stage == STAGE_START)
        log_info("%s: waiting for another process that tokenises it", path);
    else if (last->stage == STAGE_BUILD)
        build_progress_say(path, (row_progress){.rows = last->rows, .share = last->share});
    else if (last->stage == STAGE_BUILT && together > 0)
        log_info("%s: %lld rows put together", path, (long long)together);
}

/* Has everybody who tokenises come as far as the first bad row that is known, so that there is none before it? */
static bool is_passed(const share *s, int64_t first)
{
    for (int32_t r = 0; r < s->company->size; r++) {
        const standing *x = &s->all[r];
        if (x->stage == STAGE_BUILD && x->failed == INT64_MAX && x->rows < first) return false;
    }
    return true;
}

/* All fail as the process did that came to the first bad row. */
static cudpo_status fail_together(share *s, int64_t first)
{
    failure *each = calloc((size_t)s->company->size, sizeof *each);
    if (each == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "failures");
    int32_t r = 0;
    while (s->all[r].failed != first)
        r++;
    cudpo_status status =
        s->company->exchange(s->company->context, each, &s->failure, sizeof s->failure);
    if (status == CUDPO_OK) status = failure_give(&each[r]);
    free(each);
    return status;
}

static cudpo_status run(share *s)
{
    CUDPO_TRY(meet(s));
    while (!all_ended(s)) {
        CUDPO_TRY(share_advance(s));
        CUDPO_TRY(tell(s));
        const int64_t first = share_first_failed(s);
        if (first < INT64_MAX && is_passed(s, first)) return fail_together(s, first);
        say(s);
    }
    return CUDPO_OK;
}

/* A number that no other job has, now or earlier. */
static uint64_t make_nonce(const share *s)
{
    struct {
        struct timespec time;
        uint64_t process, address;
    } of;
    memset(&of, 0, sizeof of);
    clock_gettime(CLOCK_REALTIME, &of.time);
    of.process = (uint64_t)getpid();
    of.address = (uint64_t)(uintptr_t)s;
    return hash64_bytes(&of, sizeof of);
}

cudpo_status share_open(cached *c)
{
    const dataset_company *company = c->options->company;
    share s = {.cached = c, .company = company};
    CUDPO_REQUIRE(company->size >= 1 && company->rank >= 0 && company->rank < company->size);
    s.all = calloc((size_t)company->size, sizeof *s.all);
    if (s.all == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d processes", (int)company->size);
    s.mine = (standing){.key = c->key, .nonce = make_nonce(&s), .failed = INT64_MAX, .leader = -1};
    const cudpo_status status = run(&s);
    part_join_close(s.join);
    cache_build_abandon(&s.build);
    file_writer_abandon(&s.writer);
    block_reader_close(s.reader);
    part_remove(&s.part);
    free(s.all);
    return status;
}
