/* dataset.c - finds or makes the cache, alone or in company, and reads examples out of it. */
#include "data/dataset.h"
#include "base/file.h"
#include "base/log.h"
#include "data/build.h"
#include "data/cached.h"
#include "data/made.h"
#include "data/part.h"
#include "data/share.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dataset {
    cache_map map;
    int64_t max_length;
    int64_t total, longest, longest_sequence, longest_mismatch;
};

static void warn(const cache_totals *n, const char *path)
{
    if (n->unaligned > 0)
        log_warn(
            "%s: in %lld of %lld rows, line %lld first, tokens merge across the end of the prompt; "
            "the completion starts before the merged token there, as in TRL.  End prompts "
            "with a line break or a special token to avoid it",
            path, (long long)n->unaligned, (long long)n->rows, (long long)n->unaligned_line);
    if (n->undesired > 0)
        log_warn("%s: %lld rows with \"label\": false left out of supervised training", path,
                 (long long)n->undesired);
    if (n->identical > 0)
        log_warn("%s: chosen and rejected are the same text in %lld rows, line %lld first; they "
                 "teach nothing",
                 path, (long long)n->identical, (long long)n->identical_line);
}

/* This process makes the cache, unless another has by the time that it may. */
static cudpo_status make_cache(cached *c)
{
    (void)cached_lock(c, true);
    CUDPO_TRY(cached_look(c));
    if (c->map.memory != NULL) return CUDPO_OK;
    cached_warn(c);
    part_sweep(c->options->cache_dir, NULL);
    file_writer w = {0};
    cudpo_status status = file_writer_open(&w, c->file);
    if (status == CUDPO_OK)
        status = dataset_build(w.stream, c->path, c->tokenizer, c->options, c->file, c->key);
    if (status == CUDPO_OK) status = file_writer_commit(&w);
    file_writer_abandon(&w);
    return status == CUDPO_OK ? cached_take(c) : status;
}

/* The cache in cache_dir, made where it is absent or damaged. */
static cudpo_status map_cached(cache_map *map, const char *path, const tokenizer *t,
                               const dataset_options *o)
{
    cached c = {0};
    cudpo_status status = cached_begin(&c, path, t, o);
    if (status == CUDPO_OK && o->company != NULL && o->company->size > 1) {
        status = share_open(&c);
    } else if (status == CUDPO_OK) {
        status = cached_look(&c);
        if (status == CUDPO_OK && c.map.memory == NULL) status = make_cache(&c);
    }
    cached_end(&c);
    if (status == CUDPO_OK)
        *map = c.map;
    else
        cache_map_close(&c.map);
    return status;
}

/* A file without a name, gone when it is unmapped: of a preference file, or of examples that are made. */
static cudpo_status map_temporary(cache_map *map, const char *path, const tokenizer *t,
                                  const dataset_options *o, const made_examples *made)
{
    const char *folder = getenv("TMPDIR");
    char *name = path_join(folder != NULL && *folder != '\0' ? folder : "/tmp", "cudpo-XXXXXX");
    if (name == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const hash128 key = {0, 0};
    const char *reason = NULL;
    FILE *stream = NULL;
    cudpo_status status = CUDPO_OK;
    const int fd = mkstemp(name);
    if (fd >= 0) {
        unlink(name);
        stream = fdopen(fd, "w+b");
    }
    if (stream == NULL) {
        status = file_fail(name, "create", true);
        if (fd >= 0) close(fd);
        goto out;
    }
    status = made != NULL ? made_write(stream, made, name, key)
                          : dataset_build(stream, path, t, o, name, key);
    if (status == CUDPO_OK)
        status = cache_map_open(map, &reason, fd, name, key,
                                made != NULL ? made->vocabulary : tokenizer_size(t));
    if (status == CUDPO_OK && reason != NULL)
        status = cudpo_fail(CUDPO_EWRITE, name, "reads back other than it was written: %s", reason);
out:
    if (stream != NULL) fclose(stream);
    free(name);
    return status;
}

static void measure(dataset *d)
{
    int64_t stored = 0;
    for (int64_t i = 0; i < dataset_count(d); i++) {
        const int64_t n = cache_map_record(&d->map, i)->stored_length[0];
        stored = n > stored ? n : stored;
    }
    for (int64_t i = 0; i < dataset_count(d); i++) {
        const cache_record *r = cache_map_record(&d->map, i);
        const bool shared = r->prompt_skip[0] == r->prompt_skip[1] || r->completions == 1;
        int64_t tokens = r->prompt_length - r->prompt_skip[0];
        if (!shared) tokens += r->prompt_length - r->prompt_skip[1];
        tokens += (int64_t)r->completion_length[0] + r->completion_length[1];
        d->total += tokens;
        if (tokens > d->longest) d->longest = tokens;
        for (int32_t c = 0; c < r->completions; c++) {
            const int64_t sequence = (int64_t)r->prompt_length + r->completion_length[c];
            if (sequence > d->longest_sequence) d->longest_sequence = sequence;
        }
        const int64_t room = d->max_length > 0 ? d->max_length - r->prompt_length : stored;
        const int64_t mismatch = r->prompt_length + (stored < room ? stored : room);
        if (mismatch > d->longest_mismatch) d->longest_mismatch = mismatch;
    }
}

cudpo_status dataset_open(dataset **out, const char *path, const tokenizer *t,
                          const dataset_options *options)
{
    *out = NULL;
    CUDPO_REQUIRE(path != NULL && t != NULL && options != NULL);
    CUDPO_REQUIRE(options->max_length >= 0 && options->max_length <= INT32_MAX);
    CUDPO_REQUIRE(options->rules == RULES_JOINED || options->kind == ROW_PAIR);
    const char *eos = tokenizer_eos_text(t);
    if (eos == NULL || *eos == '\0' || tokenizer_eos(t) < 0)
        return cudpo_fail(
            CUDPO_EDATA, path,
            "the tokenizer names no eos_token, with which every completion ends: add it to "
            "its tokenizer_config.json");
    /* Before anything is hashed or made: is it there, and a file of ours? */
    row_reader *reader = NULL;
    CUDPO_TRY(row_reader_open(&reader, path));
    row_reader_close(reader);

    dataset *d = calloc(1, sizeof *d);
    if (d == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "data set");
    d->max_length = options->max_length;
    const cudpo_status status = options->cache_dir != NULL
                                    ? map_cached(&d->map, path, t, options)
                                    : map_temporary(&d->map, path, t, options, NULL);
    if (status != CUDPO_OK) {
        dataset_close(d);
        return status;
    }
    measure(d);
    warn(&d->map.totals, path);
    *out = d;
    return CUDPO_OK;
}

cudpo_status dataset_make(dataset **out, const made_examples *made)
{
    *out = NULL;
    CUDPO_REQUIRE(made->count >= 1 && made->vocabulary >= 1);
    CUDPO_REQUIRE(made->completions >= 1 && made->completions <= MAX_COMPLETIONS);
    dataset *d = calloc(1, sizeof *d);
    if (d == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "data set");
    const cudpo_status status = map_temporary(&d->map, NULL, NULL, NULL, made);
    if (status != CUDPO_OK) {
        dataset_close(d);
        return status;
    }
    measure(d);
    *out = d;
    return CUDPO_OK;
}

void dataset_close(dataset *d)
{
    if (d == NULL) return;
    cache_map_close(&d->map);
    free(d);
}

int64_t dataset_count(const dataset *d)
{
    return d->map.totals.examples;
}

example dataset_get(const dataset *d, int64_t i)
{
    assert(i >= 0 && i < dataset_count(d));
    const cache_record *r = cache_map_record(&d->map, i);
    example e = {.row = r->row,
                 .prompt = cache_record_ids(r),
                 .prompt_length = r->prompt_length,
                 .completions = r->completions,
                 .label = r->label != 0};
    const int32_t *ids = e.prompt + e.prompt_length;
    for (int32_t c = 0; c < e.completions; c++) {
        e.completion[c] = ids;
        e.completion_length[c] = r->completion_length[c];
        e.prompt_skip[c] = r->prompt_skip[c];
        e.unscored[c] = r->unscored[c];
        ids += r->stored_length[c];
    }
    return e;
}

example dataset_mismatch(const dataset *d, int64_t i, int64_t j)
{
    example e = dataset_get(d, i);
    assert(j >= 0 && j < dataset_count(d) && e.completions == 1 && e.prompt_skip[0] == 0);
    const cache_record *r = cache_map_record(&d->map, j);
    const int64_t room = d->max_length > 0 ? d->max_length - e.prompt_length : INT32_MAX;
    e.completions = 2;
    e.completion[1] = cache_record_ids(r) + r->prompt_length;
    e.completion_length[1] = r->stored_length[0] < room ? r->stored_length[0] : (int32_t)room;
    e.prompt_skip[1] = 0;
    return e;
}

int64_t dataset_dropped(const dataset *d)
{
    return d->map.totals.dropped;
}

int64_t dataset_tokens(const dataset *d)
{
    return d->total;
}

int64_t dataset_longest(const dataset *d)
{
    return d->longest;
}

int64_t dataset_longest_sequence(const dataset *d)
{
    return d->longest_sequence;
}

int64_t dataset_longest_mismatch(const dataset *d)
{
    return d->longest_mismatch;
}

hash128 dataset_fingerprint(const dataset *d)
{
    return d->map.totals.fingerprint;
}
