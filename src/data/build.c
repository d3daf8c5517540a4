/* build.c - what is known of all rows together is counted here, where they come in order, however they were dealt before. */
#include "data/build.h"
#include "base/log.h"

#include <string.h>

enum {
    UNPAIR_ROWS = 1000, /* datasets.map's batch, in which TRL puts chosen before rejected */
    PROGRESS_SECONDS = 10,
};

bool build_progress_due(build_progress *p)
{
    const time_t now = time(NULL);
    if (p->said != 0 && now - p->said < PROGRESS_SECONDS) return false;
    const bool due = p->said != 0;
    p->said = now;
    return due;
}

void build_progress_say(const char *path, row_progress at)
{
    log_info("%s: %lld rows tokenised, %d %% of the file", path, (long long)at.rows,
             (int)(100.0 * at.share));
}

cudpo_status cache_build_begin(cache_build *b, FILE *stream, const char *where, const char *path,
                               const dataset_options *options)
{
    *b = (cache_build){.path = path, .options = options};
    return cache_writer_begin(&b->writer, stream, where);
}

void cache_build_abandon(cache_build *b)
{
    cache_writer_abandon(&b->writer);
    buffer_free(&b->held);
    *b = (cache_build){0};
}

static cudpo_status write_held(cache_build *b)
{
    for (size_t at = 0; at < b->held.size;) {
        cache_record r;
        memcpy(&r, b->held.data + at, sizeof r);
        const size_t n = cache_record_size(&r);
        CUDPO_TRY(cache_writer_put(&b->writer, b->held.data + at, n));
        at += n;
    }
    buffer_clear(&b->held);
    b->held_rows = 0;
    return CUDPO_OK;
}

static void count_row(cache_totals *n, const built_row *row)
{
    n->rows++;
    n->undesired += row->undesired;
    if (row->identical && n->identical++ == 0) n->identical_line = row->line;
    if (row->unaligned && n->unaligned++ == 0) n->unaligned_line = row->line;
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        n->dropped += row->dropped[c];
        n->examples += row->size[c] > 0;
    }
}

cudpo_status cache_build_put(cache_build *b, const built_row *row)
{
    count_row(&b->totals, row);
    if (row->undesired) return CUDPO_OK;
    if (row->size[0] > 0) CUDPO_TRY(cache_writer_put(&b->writer, row->record[0], row->size[0]));
    if (row->size[1] > 0) CUDPO_TRY(buffer_append(&b->held, row->record[1], row->size[1]));
    return ++b->held_rows == UNPAIR_ROWS ? write_held(b) : CUDPO_OK;
}

cudpo_status cache_build_finish(cache_build *b, hash128 key)
{
    CUDPO_TRY(write_held(b));
    if (b->totals.examples == 0)
        return cudpo_fail(
            CUDPO_EDATA, b->path,
            "no example is left of %lld rows: %lld have a prompt that fills max_length %lld%s",
            (long long)b->totals.rows, (long long)b->totals.dropped,
            (long long)b->options->max_length,
            b->totals.undesired > 0 ? ", the others are labelled false" : "");
    return cache_writer_finish(&b->writer, &b->totals, key);
}

static cudpo_status put_all(cache_build *b, block_reader *r)
{
    build_progress progress = {0};
    for (bool done = false; !done;) {
        const built_row *rows = NULL;
        int n = 0;
        CUDPO_TRY(block_reader_next(r, &rows, &n, &done));
        for (int i = 0; i < n; i++)
            CUDPO_TRY(cache_build_put(b, &rows[i]));
        if (build_progress_due(&progress)) build_progress_say(b->path, block_reader_progress(r));
    }
    return CUDPO_OK;
}

cudpo_status dataset_build(FILE *stream, const char *path, const tokenizer *t,
                           const dataset_options *options, const char *where, hash128 key)
{
    cache_build b = {0};
    block_reader *r = NULL;
    cudpo_status status = block_reader_open(&r, path, t, options, 0, 1);
    if (status == CUDPO_OK) status = cache_build_begin(&b, stream, where, path, options);
    if (status == CUDPO_OK) status = put_all(&b, r);
    if (status == CUDPO_OK) status = cache_build_finish(&b, key);
    cache_build_abandon(&b);
    block_reader_close(r);
    return status;
}
