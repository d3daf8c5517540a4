/* reference_cache.c - one file, written front to back and mapped for reading.
 *
 *     header | log-probs [tokens] f32, padded to 8 bytes | begin [sequences + 1] i64 | trailer
 *
 * The counts stand in the trailer because they are known last; it ends with a checksum of everything before.  It is a
 * cache of this machine: byte order is the host's, and a file from another byte order has the wrong magic. */
#include "train/reference_cache.h"
#include "base/file.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x31464552544f5043ULL /* "CPOTREF1" on a little-endian host */

typedef struct header {
    uint64_t magic, version;
    hash128 key;
} header;

typedef struct trailer {
    int64_t sequences, tokens;
    hash128 checksum; /* of everything before it */
} trailer;

static_assert(sizeof(header) == 32 && sizeof(trailer) == 32,
              "the file has no padding of the compiler's");

struct reference_cache {
    void *memory;
    size_t size;
    const float *logp;    /* [tokens] */
    const int64_t *begin; /* [sequences + 1] */
    int64_t sequences;
};

struct reference_cache_writer {
    file_writer file;
    hash_state *checksum;
    int64_t sequences, put; /* expected, and written so far */
    int64_t *begin;         /* [sequences + 1] */
};

static header header_of(hash128 key)
{
    return (header){MAGIC, 1, key};
}

/* FOLDER/reference-KEY.bin in new memory. */
static cudpo_status cache_path(char **out, const char *folder, hash128 key)
{
    char name[64] = "reference-";
    hash_text(name + strlen(name), key);
    memcpy(name + strlen(name), ".bin", 5);
    *out = path_join(folder, name);
    return *out == NULL ? cudpo_fail(CUDPO_ENOMEM, folder, "path") : CUDPO_OK;
}

/* Bytes of a whole file, or 0 where the counts are absurd. */
static size_t whole_size(int64_t sequences, int64_t tokens)
{
    if (sequences < 0 || tokens < 0 || sequences > INT64_MAX / 32 || tokens > INT64_MAX / 32)
        return 0;
    const uint64_t floats = ((uint64_t)tokens * sizeof(float) + 7) / 8 * 8;
    return sizeof(header) + floats + ((uint64_t)sequences + 1) * sizeof(int64_t) + sizeof(trailer);
}

/* NULL, or what is wrong with the mapped file.  Nothing of it is used before its checksum is right, and the table is
 * still checked: no file may lead a reader outside of it. */
static const char *check(reference_cache *c, hash128 key, int64_t sequences)
{
    const header want = header_of(key);
    if (memcmp(c->memory, &want, sizeof want) != 0) return "is not a cache of these log-probs";
    trailer t;
    memcpy(&t, (const char *)c->memory + c->size - sizeof t, sizeof t);
    if (t.sequences != sequences) return "holds another number of sequences";
    if (c->size != whole_size(t.sequences, t.tokens)) return "has the wrong size";
    const hash128 sum = hash_bytes(c->memory, c->size - sizeof t.checksum);
    if (sum.high != t.checksum.high || sum.low != t.checksum.low) return "has a wrong checksum";
    c->sequences = sequences;
    c->logp = (const float *)((const char *)c->memory + sizeof(header));
    c->begin = (const int64_t *)((const char *)c->memory + c->size - sizeof t) - (sequences + 1);
    if (c->begin[0] != 0 || c->begin[sequences] != t.tokens) return "has a wrong table";
    for (int64_t i = 0; i < sequences; i++)
        if (c->begin[i + 1] < c->begin[i]) return "has a wrong table";
    return NULL;
}

/* Map the file.  *reason: NULL, or why it can't be a cache. */
static cudpo_status map(reference_cache *c, const char **reason, int fd, const char *path)
{
    struct stat s;
    if (fstat(fd, &s) != 0) return file_fail(path, "stat", false);
    *reason = NULL;
    if (!S_ISREG(s.st_mode)) {
        *reason = "is not a regular file";
    } else if ((uintmax_t)s.st_size < whole_size(0, 0) || (uintmax_t)s.st_size > SIZE_MAX) {
        *reason = "is cut off";
    }
    if (*reason != NULL) return CUDPO_OK;
    void *memory = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED) return file_fail(path, "map", false);
    c->memory = memory;
    c->size = (size_t)s.st_size;
    return CUDPO_OK;
}

cudpo_status reference_cache_open(reference_cache **out, bool *found, const char *folder,
                                  hash128 key, int64_t sequences)
{
    *out = NULL;
    *found = false;
    CUDPO_REQUIRE(folder != NULL && sequences >= 0);
    char *path = NULL;
    CUDPO_TRY(cache_path(&path, folder, key));
    cudpo_status status = CUDPO_OK;
    reference_cache *c = NULL;
    const char *reason = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        if (errno != ENOENT) status = file_fail(path, "open", false);
        goto out;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, path, "cache");
        goto out;
    }
    status = map(c, &reason, fd, path);
    if (status != CUDPO_OK) goto out;
    if (reason == NULL) reason = check(c, key, sequences);
    if (reason != NULL) {
        log_warn("%s: %s: the reference's log-probs are computed again", path, reason);
        goto out;
    }
    *out = c;
    *found = true;
    c = NULL;
out:
    reference_cache_close(c);
    if (fd >= 0) close(fd);
    free(path);
    return status;
}

const float *reference_cache_tokens(const reference_cache *c, int64_t sequence, int64_t *n)
{
    assert(sequence >= 0 && sequence < c->sequences);
    *n = c->begin[sequence + 1] - c->begin[sequence];
    return c->logp + c->begin[sequence];
}

float reference_cache_score(const reference_cache *c, int64_t sequence)
{
    int64_t n = 0;
    const float *logp = reference_cache_tokens(c, sequence, &n);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)logp[i];
    return (float)sum;
}

void reference_cache_close(reference_cache *c)
{
    if (c == NULL) return;
    if (c->memory != NULL) munmap(c->memory, c->size);
    free(c);
}

static cudpo_status put_bytes(reference_cache_writer *w, const void *data, size_t n)
{
    hash_add(w->checksum, data, n);
    return file_writer_put(&w->file, data, n);
}

cudpo_status reference_cache_create(reference_cache_writer **out, const char *folder, hash128 key,
                                    int64_t sequences)
{
    *out = NULL;
    CUDPO_REQUIRE(folder != NULL && sequences >= 0 && whole_size(sequences, 0) > 0);
    char *path = NULL;
    CUDPO_TRY(file_make_folder(folder));
    CUDPO_TRY(cache_path(&path, folder, key));
    cudpo_status status = CUDPO_OK;
    reference_cache_writer *w = calloc(1, sizeof *w);
    if (w != NULL) w->begin = calloc((size_t)sequences + 1, sizeof *w->begin);
    if (w == NULL || w->begin == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, path, "%lld sequences", (long long)sequences);
        goto out;
    }
    w->sequences = sequences;
    const header h = header_of(key);
    status = hash_begin(&w->checksum);
    if (status == CUDPO_OK) status = file_writer_open(&w->file, path);
    if (status == CUDPO_OK) status = put_bytes(w, &h, sizeof h);
    if (status == CUDPO_OK) {
        *out = w;
        w = NULL;
    }
out:
    reference_cache_abandon(w);
    free(path);
    return status;
}

cudpo_status reference_cache_put(reference_cache_writer *w, const float *logp, int64_t n)
{
    CUDPO_REQUIRE(w->put < w->sequences && n >= 0 && n <= INT64_MAX / 32 - w->begin[w->put]);
    CUDPO_TRY(put_bytes(w, logp, (size_t)n * sizeof *logp));
    w->begin[w->put + 1] = w->begin[w->put] + n;
    w->put++;
    return CUDPO_OK;
}

cudpo_status reference_cache_commit(reference_cache_writer *w)
{
    cudpo_status status = CUDPO_OK;
    trailer t = {.sequences = w->sequences, .tokens = w->begin[w->put]};
    const float padding = 0.0f;
    if (w->put != w->sequences)
        status = cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "%lld of %lld sequences were put",
                            (long long)w->put, (long long)w->sequences);
    if (status == CUDPO_OK && t.tokens % 2 != 0) status = put_bytes(w, &padding, sizeof padding);
    if (status == CUDPO_OK)
        status = put_bytes(w, w->begin, ((size_t)w->sequences + 1) * sizeof *w->begin);
    if (status == CUDPO_OK) status = put_bytes(w, &t, offsetof(trailer, checksum));
    if (status == CUDPO_OK) {
        t.checksum = hash_end(w->checksum);
        w->checksum = NULL;
        status = file_writer_put(&w->file, &t.checksum, sizeof t.checksum);
    }
    if (status == CUDPO_OK) status = file_writer_commit(&w->file);
    reference_cache_abandon(w);
    return status;
}

void reference_cache_abandon(reference_cache_writer *w)
{
    if (w == NULL) return;
    hash_abandon(w->checksum);
    file_writer_abandon(&w->file);
    free(w->begin);
    free(w);
}
