/* cache.c - the footer comes last and holds a checksum of everything before it, so that a file that was cut, damaged
 * or never finished is told from a whole one; a whole one is still checked record by record, as nothing that is
 * mapped may lead outside it. */
#include "data/cache.h"
#include "base/file.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAGIC 0x31534441544f5043ULL /* "CPOTADS1" on a little-endian host */
enum { ALIGNMENT = 8 };

typedef struct footer {
    uint64_t magic;
    hash128 key;
    int64_t bytes; /* of all records */
    cache_totals totals;
    hash128 checksum; /* of everything before it */
} footer;

static_assert(sizeof(cache_record) == 56, "records have no padding of the compiler's");
static_assert(sizeof(footer) == 128 && sizeof(cache_totals) == 80, "nor has the footer");

cudpo_status cache_writer_begin(cache_writer *w, FILE *stream, const char *where)
{
    *w = (cache_writer){.stream = stream, .where = where};
    cudpo_status status = hash_begin(&w->checksum);
    if (status == CUDPO_OK) status = hash_begin(&w->fingerprint);
    if (status != CUDPO_OK) cache_writer_abandon(w);
    return status;
}

static cudpo_status put(cache_writer *w, const void *data, size_t n)
{
    if (fwrite(data, 1, n, w->stream) != n) return file_fail(w->where, "write", true);
    return CUDPO_OK;
}

cudpo_status cache_writer_put(cache_writer *w, const void *record, size_t n)
{
    assert(n >= sizeof(cache_record) && n % ALIGNMENT == 0);
    CUDPO_TRY(put(w, record, n));
    w->bytes += (int64_t)n;
    hash_add(w->checksum, record, n);
    const size_t skip = sizeof(int64_t); /* the row: the same ids elsewhere are the same ids */
    hash_add(w->fingerprint, (const char *)record + skip, n - skip);
    return CUDPO_OK;
}

cudpo_status cache_writer_finish(cache_writer *w, cache_totals *totals, hash128 key)
{
    totals->fingerprint = hash_end(w->fingerprint);
    w->fingerprint = NULL;
    footer f = {.magic = MAGIC, .key = key, .bytes = w->bytes, .totals = *totals};
    hash_add(w->checksum, &f, offsetof(footer, checksum));
    f.checksum = hash_end(w->checksum);
    w->checksum = NULL;
    CUDPO_TRY(put(w, &f, sizeof f));
    return fflush(w->stream) == 0 ? CUDPO_OK : file_fail(w->where, "write", true);
}

void cache_writer_abandon(cache_writer *w)
{
    hash_abandon(w->checksum);
    hash_abandon(w->fingerprint);
    *w = (cache_writer){0};
}

const int32_t *cache_record_ids(const cache_record *r)
{
    return (const int32_t *)(r + 1);
}

int64_t cache_record_ids_count(const cache_record *r)
{
    return (int64_t)r->prompt_length + r->stored_length[0] + r->stored_length[1];
}

size_t cache_record_size(const cache_record *r)
{
    const size_t n = sizeof *r + (size_t)cache_record_ids_count(r) * sizeof(int32_t);
    return n + n % ALIGNMENT;
}

const char *cache_record_check(const cache_record *r, size_t left, int64_t vocabulary)
{
    if (left < sizeof *r) return "a record is cut off";
    if (r->completions < 1 || r->completions > MAX_COMPLETIONS) return "a record has no completion";
    if (r->row < 0 || r->prompt_length < 0 || r->label < 0 || r->label > 1)
        return "a record is out of range";
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        if (r->completion_length[c] < 0 || r->stored_length[c] < r->completion_length[c] ||
            r->prompt_skip[c] < 0 || r->prompt_skip[c] > r->prompt_length || r->unscored[c] < 0 ||
            r->unscored[c] > r->completion_length[c])
            return "a length is out of range";
        if (c >= r->completions && r->stored_length[c] != 0) return "a record has stray ids";
    }
    const int64_t ids = cache_record_ids_count(r);
    if ((uint64_t)ids > (left - sizeof *r) / sizeof(int32_t)) return "ids are cut off";
    if (cache_record_size(r) > left) return "a record is cut off";
    const int32_t *id = cache_record_ids(r);
    for (int64_t i = 0; i < ids; i++) {
        if (id[i] < 0 || id[i] >= vocabulary) return "an id is outside the vocabulary";
    }
    return NULL;
}

/* Check and note the place of every record. */
static const char *check_records(cache_map *m, size_t bytes, int64_t vocabulary)
{
    size_t at = 0;
    for (int64_t i = 0; i < m->totals.examples; i++) {
        const cache_record *r = (const cache_record *)((const char *)m->memory + at);
        const char *reason = cache_record_check(r, bytes - at, vocabulary);
        if (reason != NULL) return reason;
        m->offset[i] = (int64_t)at;
        at += cache_record_size(r);
    }
    return at == bytes ? NULL : "bytes are left over";
}

/* NULL, or what is wrong with the footer; *bytes of records stand before it. */
static const char *check_footer(cache_map *m, hash128 key, size_t *bytes)
{
    footer f;
    *bytes = m->size - sizeof f;
    memcpy(&f, (const char *)m->memory + *bytes, sizeof f);
    if (f.magic != MAGIC) return "it is not a finished cache of this version";
    if (f.key.high != key.high || f.key.low != key.low) return "it belongs to something else";
    if (f.bytes < 0 || (uint64_t)f.bytes != *bytes) return "its size is not what it says";
    const hash128 sum = hash_bytes(m->memory, *bytes + offsetof(footer, checksum));
    if (sum.high != f.checksum.high || sum.low != f.checksum.low) return "its checksum is wrong";
    if (f.totals.examples < 1 || (uint64_t)f.totals.examples > *bytes / sizeof(cache_record))
        return "its count is not what it holds";
    m->totals = f.totals;
    return NULL;
}

cudpo_status cache_map_open(cache_map *out, const char **reason, int fd, const char *where,
                            hash128 key, int64_t vocabulary)
{
    *out = (cache_map){0};
    *reason = NULL;
    struct stat s;
    if (fstat(fd, &s) != 0) return file_fail(where, "stat", false);
    if (!S_ISREG(s.st_mode) || s.st_size < (off_t)sizeof(footer) || s.st_size % ALIGNMENT != 0) {
        *reason = "it is cut off";
        return CUDPO_OK;
    }
    cache_map m = {.size = (size_t)s.st_size};
    m.memory = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (m.memory == MAP_FAILED) return file_fail(where, "map", false);

    cudpo_status status = CUDPO_OK;
    size_t bytes = 0;
    *reason = check_footer(&m, key, &bytes);
    if (*reason == NULL) {
        m.offset = malloc(((size_t)m.totals.examples + 1) * sizeof *m.offset);
        if (m.offset == NULL)
            status = cudpo_fail(CUDPO_ENOMEM, where, "%lld examples", (long long)m.totals.examples);
        else
            *reason = check_records(&m, bytes, vocabulary);
    }
    if (status != CUDPO_OK || *reason != NULL) {
        cache_map_close(&m);
        return status;
    }
    *out = m;
    return CUDPO_OK;
}

void cache_map_close(cache_map *m)
{
    free(m->offset);
    if (m->memory != NULL) munmap(m->memory, m->size);
    *m = (cache_map){0};
}

const cache_record *cache_map_record(const cache_map *m, int64_t i)
{
    return (const cache_record *)((const char *)m->memory + m->offset[i]);
}
