/* share_work.c - one of several processes that tokenise a file together: its part, and, of the leader, the whole. */
#include "data/share_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    PARTS = 256,       /* files that the leader has open at once: further processes only look on */
    PUT_TOGETHER = 64, /* rows between two looks at the clock */
    NAP_MILLISECONDS = 100, /* of one that waits for the lock */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* "part-NONCE", which is this job's; in a name, "-RANK" follows. */
static void own_text(char out[32], const share *s)
{
    snprintf(out, 32, "part-%016llx", (unsigned long long)s->all[0].nonce);
}

char *share_part_path(const share *s, int32_t rank)
{
    char own[32], end[48];
    own_text(own, s);
    snprintf(end, sizeof end, "%s-%d", own, (int)rank);
    return cached_name(s->cached, end);
}

cudpo_status share_create_part(share *s)
{
    char *path = share_part_path(s, s->company->rank);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = part_create(&s->part, path);
    free(path);
    return status;
}

/* Which part process r of this one's group makes, of how many. */
static int32_t part_of(const share *s, int32_t r, int32_t *parts)
{
    int32_t part = 0;
    *parts = 0;
    for (int32_t i = 0; i < s->company->size; i++) {
        if (!share_has_member(s, i)) continue;
        if (i == r) part = *parts;
        ++*parts;
    }
    if (*parts > PARTS) *parts = PARTS;
    return part;
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
    const int64_t first = share_first_failed(s);
    bool done = false;
    while (!done && s->mine.failed == INT64_MAX && s->mine.rows < first) {
        CUDPO_TRY(build_block(s, &done));
        if (now() >= end) break;
    }
    return done && s->mine.failed == INT64_MAX ? finish_part(s) : CUDPO_OK;
}

static bool is_group_built(const share *s)
{
    for (int32_t r = 0; r < s->company->size; r++)
        if (share_has_member(s, r) && s->all[r].stage != STAGE_BUILT) return false;
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
        if (!share_has_member(s, r)) continue;
        path[n] = share_part_path(s, r);
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
    bool done = false;
    do {
        for (int i = 0; i < PUT_TOGETHER && !done; i++) {
            built_row row;
            CUDPO_TRY(part_join_next(s->join, &row, &done));
            if (!done) CUDPO_TRY(cache_build_put(&s->build, &row));
        }
        s->mine.rows = s->build.totals.rows;
    } while (!done && now() < end);
    return done ? publish(s) : CUDPO_OK;
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
    return share_create_part(s);
}

cudpo_status share_advance(share *s)
{
    const stage leader = s->mine.leader < 0 ? STAGE_END : s->all[s->mine.leader].stage;
    switch ((stage)s->mine.stage) {
    case STAGE_START:
        if (share_leads(s)) return begin_group(s);
        return leader == STAGE_END ? take(s) : leader > STAGE_START ? begin_part(s) : CUDPO_OK;
    case STAGE_BUILD:
        return build_part(s);
    case STAGE_BUILT:
        if (!share_leads(s)) return leader == STAGE_END ? take(s) : CUDPO_OK;
        return is_group_built(s) ? join_parts(s) : CUDPO_OK;
    case STAGE_END:
        cached_unlock(s->cached); /* of others of this job one may wait for it */
        part_remove(&s->part);
    }
    return CUDPO_OK;
}
