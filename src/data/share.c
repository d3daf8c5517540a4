/* share.c - in rounds: each process works for a while, then all tell each other how far they are.  So nobody waits for one that is
 * silent, all know of the first bad row, and whoever is lost is missed within a round.
 *
 * Who shares a folder is found by looking: each makes its part, which is empty yet, and the first whose part it sees leads it. */
#include "data/share.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/log.h"
#include "data/build.h"
#include "data/part.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    PARTS = 256,       /* files that the leader has open at once: further processes only look on */
    PUT_TOGETHER = 64, /* rows between two looks at the clock */
    NAP_MILLISECONDS = 100, /* of one that waits for the lock */
};

typedef enum stage {
    STAGE_START, /* leader: waits for the lock; others: for their leader */
    STAGE_BUILD, /* tokenises its part */
    STAGE_BUILT, /* leader: puts parts together; others: wait for that */
    STAGE_END,   /* has the cache */
} stage;

/* What a process says each round. */
typedef struct standing {
    hash128 key;
    uint64_t nonce;
    int64_t
        rows; /* of the file that it has dealt with; in STAGE_BUILT of a leader, that are put together */
    int64_t failed; /* index of the row that it failed at; INT64_MAX: none */
    double share;   /* of the file that those rows are */
    int32_t leader; /* -1: none */
    int32_t stage;
} standing;

typedef struct share {
    cached *cached;
    const dataset_company *company;
    standing mine, *all; /* [size] as of the last round */
    failure failure;     /* at mine.failed */
    part_file part;
    block_reader *reader;
    part_join *join; /* leader */
    file_writer writer;
    cache_build build;
    build_progress progress;
} share;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A round: all are there. */
static cudpo_status tell(share *s)
{
    return s->company->exchange(s->company->context, s->all, &s->mine, sizeof s->mine);
}

static bool leads(const share *s)
{
    return s->mine.leader == s->company->rank;
}

/* Is process r led by this one's leader? */
static bool is_of_group(const share *s, int32_t r)
{
    return s->all[r].leader == s->mine.leader;
}

/* Which part process r of this one's group makes, of how many. */
static int32_t part_of(const share *s, int32_t r, int32_t *parts)
{
    int32_t part = 0;
    *parts = 0;
    for (int32_t i = 0; i < s->company->size; i++) {
        if (!is_of_group(s, i)) continue;
        if (i == r) part = *parts;
        ++*parts;
    }
    if (*parts > PARTS) *parts = PARTS;
    return part;
}

/* "part-NONCE", which is this job's; in a name, "-RANK" follows. */
static void own_text(char out[32], const share *s)
{
    snprintf(out, 32, "part-%016llx", (unsigned long long)s->all[0].nonce);
}

static char *part_path(const share *s, int32_t rank)
{
    char own[32], end[48];
    own_text(own, s);
    snprintf(end, sizeof end, "%s-%d", own, (int)rank);
    return cached_name(s->cached, end);
}

static cudpo_status create_part(share *s)
{
    char *path = part_path(s, s->company->rank);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = part_create(&s->part, path);
    free(path);
    return status;
}

/* The first process whose part is seen here: where each has a folder of its own, this one. */
static cudpo_status find_leader(share *s)
{
    s->mine.leader = s->company->rank;
    for (int32_t r = 0; r < s->company->rank; r++) {
        const standing *x = &s->all[r];
        if (x->stage != STAGE_START || memcmp(&x->key, &s->mine.key, sizeof x->key) != 0) continue;
        char *path = part_path(s, r);
        if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
        const bool seen = file_is_regular(path);
        free(path);
        if (!seen) continue;
        s->mine.leader = r;
        break;
    }
    return CUDPO_OK;
}

/* Look for the cache, then for those to make it with.  mine.stage is STAGE_END where it is there. */
static cudpo_status meet(share *s)
{
    CUDPO_TRY(cached_look(s->cached));
    if (s->cached->map.memory != NULL) s->mine.stage = STAGE_END;
    CUDPO_TRY(tell(s));
    if (s->mine.stage != STAGE_END) CUDPO_TRY(create_part(s));
    CUDPO_TRY(tell(s));
    if (s->mine.stage != STAGE_END) CUDPO_TRY(find_leader(s));
    CUDPO_TRY(tell(s));
    /* File systems that show different things to different machines: each for itself, one after the other. */
    bool sane = true;
    for (int32_t r = 0; r < s->company->size; r++) {
        const int32_t leader = s->all[r].leader;
        sane = sane && (leader < 0 || s->all[leader].leader == leader);
    }
    if (!sane && s->mine.stage != STAGE_END) s->mine.leader = s->company->rank;
    return sane ? CUDPO_OK : tell(s);
}

static cudpo_status begin_part(share *s)
{
    const cached *c = s->cached;
    int32_t parts;
    const int32_t part = part_of(s, s->company->rank, &parts);
    s->mine.stage = STAGE_BUILD;
    if (part >= parts) {
        s->mine.stage = STAGE_BUILT;
        return CUDPO_OK;
    }
    return block_reader_open(&s->reader, c->path, c->tokenizer, c->options, part, parts);
}

/* The leader's first step: nobody else makes the same cache from here on, and nobody has meanwhile. */
static cudpo_status begin_group(share *s)
{
    char own[32];
    cached *c = s->cached;
    if (!cached_lock(c, false)) {
        const struct timespec nap = {.tv_nsec = NAP_MILLISECONDS * 1000000L};
        nanosleep(&nap, NULL);
        return CUDPO_OK;
    }
    CUDPO_TRY(cached_look(c));
    if (c->map.memory != NULL) {
        s->mine.stage = STAGE_END;
        return CUDPO_OK;
    }
    cached_warn(c);
    own_text(own, s);
    part_sweep(c->options->cache_dir, own);
    return begin_part(s);
}

/* Index of the first bad row that anybody has come to; INT64_MAX: none. */
static int64_t first_failed(const share *s)
{
    int64_t first = INT64_MAX;
    for (int32_t r = 0; r < s->company->size; r++)
        first = s->all[r].failed < first ? s->all[r].failed : first;
    return first;
}

static cudpo_status finish_part(share *s)
{
    CUDPO_TRY(part_finish(&s->part, s->mine.rows));
    block_reader_close(s->reader);
    s->reader = NULL;
    s->mine.rows = 0;
    s->mine.stage = STAGE_BUILT;
    return CUDPO_OK;
}

/* The next block of this part.  A bad row is no failure yet: another process may come to one that stands before it. */
static cudpo_status build_block(share *s, bool *done)
{
    const built_row *rows = NULL;
    int n = 0;
    const cudpo_status status = block_reader_next(s->reader, &rows, &n, done);
    const row_progress p = block_reader_progress(s->reader);
    s->mine.rows = p.rows;
    s->mine.share = p.share;
    if (status == CUDPO_EDATA) {
        s->failure = failure_take(status);
        s->mine.failed = p.rows;
        return CUDPO_OK;
    }
    CUDPO_TRY(status);
    for (int i = 0; i < n; i++)
        CUDPO_TRY(part_put(&s->part, &rows[i]));
    return CUDPO_OK;
}

/* Blocks of this part, for a while.  Behind a bad row nothing matters any more. */
static cudpo_status build_part(share *s)
{
    const double end = now() + s->company->period;
    const int64_t first = first_failed(s);
    bool done = false;
    while (!done && s->mine.failed == INT64_MAX && s->mine.rows <= first) {
        CUDPO_TRY(build_block(s, &done));
        if (now() >= end) break;
    }
    return done && s->mine.failed == INT64_MAX ? finish_part(s) : CUDPO_OK;
}

static bool is_group_built(const share *s)
{
    for (int32_t r = 0; r < s->company->size; r++)
        if (is_of_group(s, r) && s->all[r].stage != STAGE_BUILT) return false;
    return true;
}

static cudpo_status begin_join(share *s)
{
    cached *c = s->cached;
    int32_t parts, n = 0;
    (void)part_of(s, s->company->rank, &parts);
    char **path = calloc((size_t)parts, sizeof *path);
    cudpo_status status = CUDPO_OK;
    if (path == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d parts", (int)parts);
    for (int32_t r = 0; r < s->company->size && n < parts && status == CUDPO_OK; r++) {
        if (!is_of_group(s, r)) continue;
        path[n] = part_path(s, r);
        if (path[n++] == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    }
    if (status == CUDPO_OK)
        status = part_join_open(&s->join, path, parts, tokenizer_size(c->tokenizer));
    if (status == CUDPO_OK) status = file_writer_open(&s->writer, c->file);
    if (status == CUDPO_OK)
        status = cache_build_begin(&s->build, s->writer.stream, c->file, c->path, c->options);
    for (int32_t i = 0; i < n; i++)
        free(path[i]);
    free(path);
    return status;
}

static cudpo_status publish(share *s)
{
    CUDPO_TRY(cache_build_finish(&s->build, s->cached->key));
    CUDPO_TRY(file_writer_commit(&s->writer));
    CUDPO_TRY(cached_take(s->cached));
    s->mine.stage = STAGE_END;
    return CUDPO_OK;
}

/* Rows of all parts to the cache, for a while. */
static cudpo_status join_parts(share *s)
{
    const double end = now() + s->company->period;
    if (s->join == NULL) CUDPO_TRY(begin_join(s));
    for (bool done = false; now() < end;) {
        for (int i = 0; i < PUT_TOGETHER && !done; i++) {
            built_row row;
            CUDPO_TRY(part_join_next(s->join, &row, &done));
            if (!done) CUDPO_TRY(cache_build_put(&s->build, &row));
        }
        s->mine.rows = s->build.totals.rows;
        if (done) return publish(s);
    }
    return CUDPO_OK;
}

/* The leader has the cache.  A client of a network file system may remember that there was none; that it removes a file of the
 * folder makes it look anew.  One that still sees none makes its own. */
static cudpo_status take(share *s)
{
    part_remove(&s->part);
    CUDPO_TRY(cached_look(s->cached));
    if (s->cached->map.memory != NULL) {
        s->mine.stage = STAGE_END;
        return CUDPO_OK;
    }
    s->mine.leader = s->company->rank;
    s->mine.stage = STAGE_START;
    return create_part(s);
}

static cudpo_status advance(share *s)
{
    const stage leader = s->mine.leader < 0 ? STAGE_END : s->all[s->mine.leader].stage;
    switch ((stage)s->mine.stage) {
    case STAGE_START:
        if (leads(s)) return begin_group(s);
        return leader == STAGE_END ? take(s) : leader > STAGE_START ? begin_part(s) : CUDPO_OK;
    case STAGE_BUILD:
        return build_part(s);
    case STAGE_BUILT:
        if (!leads(s)) return leader == STAGE_END ? take(s) : CUDPO_OK;
        return is_group_built(s) ? join_parts(s) : CUDPO_OK;
    case STAGE_END:
        cached_unlock(s->cached); /* of others of this job one may wait for it */
        part_remove(&s->part);
    }
    return CUDPO_OK;
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
    else if (last->stage == STAGE_BUILT)
        log_info("%s: %lld rows put together", path, (long long)together);
}

static bool all_ended(const share *s)
{
    for (int32_t r = 0; r < s->company->size; r++)
        if (s->all[r].stage != STAGE_END) return false;
    return true;
}

/* Has everybody who tokenises passed the first bad row, so that it is the first one? */
static bool is_passed(const share *s, int64_t first)
{
    for (int32_t r = 0; r < s->company->size; r++) {
        const standing *x = &s->all[r];
        if (x->stage == STAGE_BUILD && x->failed == INT64_MAX && x->rows <= first) return false;
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
        CUDPO_TRY(advance(s));
        CUDPO_TRY(tell(s));
        const int64_t first = first_failed(s);
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
