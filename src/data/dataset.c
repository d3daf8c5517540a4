/* dataset.c - finds or makes the cache, and reads examples out of it. */
#include "data/dataset.h"
#include "base/file.h"
#include "base/log.h"
#include "data/build.h"
#include "data/cache.h"
#include "data/made.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMAT = 3 }; /* rises whenever the same input gives another cache */

struct dataset {
    cache_map map;
    int64_t max_length;
    int64_t total, longest, longest_sequence, longest_mismatch;
};

/* Everything that decides what the cache holds. */
static cudpo_status make_key(hash128 *key, const char *path, const tokenizer *t,
                             const dataset_options *o)
{
    hash128 content;
    CUDPO_TRY(hash_file(&content, path));
    const hash128 text = tokenizer_fingerprint(t);
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    hash_add_int(h, FORMAT);
    hash_add(h, &content, sizeof content);
    hash_add(h, &text, sizeof text);
    hash_add_string(h, tokenizer_eos_text(t));
    hash_add_int(h, tokenizer_bos(t));
    hash_add_int(h, tokenizer_eos(t));
    hash_add_int(h, o->kind);
    hash_add_int(h, o->chosen_only);
    hash_add_int(h, o->max_length);
    hash_add_int(h, o->keep_end);
    hash_add_int(h, o->rules);
    *key = hash_end(h);
    return CUDPO_OK;
}

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

/* Wait until no other process makes this cache.  Advisory, released when the file is closed; where the file system
 * has no locks, two processes may make the same cache one after the other, which is a waste and no harm. */
static int lock_file(const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    while (fd >= 0 && fcntl(fd, F_SETLKW, &whole) != 0 && errno == EINTR) {
    }
    return fd;
}

/* Map the cache at `path` where there is a good one; map->memory stays NULL where there is none.  *reason: why one
 * that is there is not good, else NULL. */
static cudpo_status open_cache(cache_map *map, const char **reason, const char *path, hash128 key,
                               int64_t vocabulary)
{
    *reason = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return CUDPO_OK;
    if (fd < 0) return file_fail(path, "open", false);
    const cudpo_status status = cache_map_open(map, reason, fd, path, key, vocabulary);
    close(fd);
    return status;
}

static cudpo_status make_cache(const char *cache, const char *path, const tokenizer *t,
                               const dataset_options *o, hash128 key)
{
    file_writer w = {0};
    cudpo_status status = file_writer_open(&w, cache);
    if (status == CUDPO_OK) status = dataset_build(w.stream, path, t, o, cache, key);
    if (status == CUDPO_OK) status = file_writer_commit(&w);
    file_writer_abandon(&w);
    return status;
}

/* The cache in cache_dir, made where it is absent or damaged. */
static cudpo_status map_cached(cache_map *map, const char *path, const tokenizer *t,
                               const dataset_options *o)
{
    hash128 key;
    char text[HASH_TEXT], name[HASH_TEXT + 32];
    CUDPO_TRY(make_key(&key, path, t, o));
    CUDPO_TRY(file_make_folder(o->cache_dir));
    hash_text(text, key);
    snprintf(name, sizeof name, "tokens-%s.bin", text);
    char *cache = path_join(o->cache_dir, name);
    snprintf(name, sizeof name, "tokens-%s.lock", text);
    char *lock = path_join(o->cache_dir, name);
    const char *reason = NULL;
    cudpo_status status = CUDPO_OK;
    int fd = -1;
    if (cache == NULL || lock == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, o->cache_dir, "path");
        goto out;
    }
    status = open_cache(map, &reason, cache, key, tokenizer_size(t));
    if (status != CUDPO_OK || map->memory != NULL) goto out;
    fd = lock_file(lock);
    status = open_cache(map, &reason, cache, key, tokenizer_size(t)); /* made by another by now? */
    if (status != CUDPO_OK || map->memory != NULL) goto out;
    if (reason != NULL)
        log_warn("%s: damaged cache of token ids (%s): making it anew", cache, reason);
    status = make_cache(cache, path, t, o, key);
    if (status == CUDPO_OK) status = open_cache(map, &reason, cache, key, tokenizer_size(t));
    if (status == CUDPO_OK && map->memory == NULL)
        status = cudpo_fail(CUDPO_EWRITE, cache, "reads back other than it was written: %s",
                            reason != NULL ? reason : "it is gone");
out:
    if (fd >= 0) close(fd);
    free(lock);
    free(cache);
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
