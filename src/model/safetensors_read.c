/* safetensors_read.c - opening a file and reading its tensors.
 *
 * The file: u64 N, N bytes of JSON, data.  It is read with pread() into memory of ours: a mapped file that someone
 * shortens would kill the process. */
#include "model/safetensors.h"
#include "base/file.h"
#include "model/half.h"
#include "model/safetensors_header.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian, and so are the copies made here"
#endif

enum { MAX_HEADER = 100000000, CHUNK = 1 << 14 };

static cudpo_status read_at(const safetensors *st, void *out, size_t n, uint64_t offset)
{
    for (size_t used = 0; used < n;) {
        const ssize_t got = pread(st->fd, (char *)out + used, n - used, (off_t)(offset + used));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return file_fail(st->path, "read", false);
        if (got == 0) return safetensors_bad(st, NULL, "became shorter while it was read");
        used += (size_t)got;
    }
    return CUDPO_OK;
}

static cudpo_status read_header(safetensors *st)
{
    unsigned char prefix[8];
    if (st->size < sizeof prefix)
        return safetensors_bad(st, NULL, "%llu bytes: too small for a safetensors file",
                               (unsigned long long)st->size);
    CUDPO_TRY(read_at(st, prefix, sizeof prefix, 0));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | prefix[i];
    if (n > MAX_HEADER)
        return safetensors_bad(st, NULL, "header of %llu bytes; at most %d are accepted",
                               (unsigned long long)n, MAX_HEADER);
    if (n > st->size - sizeof prefix)
        return safetensors_bad(st, NULL, "header of %llu bytes in a file of %llu: truncated",
                               (unsigned long long)n, (unsigned long long)st->size);
    st->header = malloc((size_t)n + 1);
    if (st->header == NULL) return cudpo_fail(CUDPO_ENOMEM, st->path, "header");
    CUDPO_TRY(read_at(st, st->header, (size_t)n, sizeof prefix));
    st->header[n] = '\0';
    return safetensors_parse(st, (size_t)n, sizeof prefix + n);
}

/* Symbolic links are followed: in the Hugging Face cache every file of a snapshot is a link into ../../blobs.
 * What keeps a hostile folder from naming files elsewhere is that the names opened are our own, or single path
 * components (see folder_load.c); whoever can plant a link in the folder can as well copy the file there. */
static cudpo_status open_file(safetensors *st)
{
    st->fd = open(st->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (st->fd < 0) return file_fail(st->path, "open", false);
    struct stat s;
    if (fstat(st->fd, &s) != 0) return file_fail(st->path, "stat", false);
    if (!S_ISREG(s.st_mode)) return safetensors_bad(st, NULL, "not a regular file");
    st->size = (uint64_t)s.st_size;
    return read_header(st);
}

cudpo_status safetensors_open(safetensors **out, const char *path)
{
    *out = NULL;
    safetensors *st = calloc(1, sizeof *st);
    if (st == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "open");
    st->fd = -1;
    st->path = strdup(path);
    const cudpo_status status =
        st->path == NULL ? cudpo_fail(CUDPO_ENOMEM, path, "path") : open_file(st);
    if (status != CUDPO_OK) {
        safetensors_close(st);
        return status;
    }
    *out = st;
    return CUDPO_OK;
}

void safetensors_close(safetensors *st)
{
    if (st == NULL) return;
    if (st->fd >= 0) close(st->fd);
    free(st->metadata);
    free(st->by_name);
    free(st->entries);
    free(st->header);
    free(st->path);
    free(st);
}

int64_t safetensors_count(const safetensors *st)
{
    return st->count;
}

const safetensors_entry *safetensors_at(const safetensors *st, int64_t i)
{
    return i >= 0 && i < st->count ? &st->entries[i] : NULL;
}

static int compare_name(const void *key, const void *element)
{
    const safetensors_entry *const *e = element;
    return strcmp(key, (*e)->name);
}

const safetensors_entry *safetensors_find(const safetensors *st, const char *name)
{
    safetensors_entry **found =
        bsearch(name, st->by_name, (size_t)st->count, sizeof(safetensors_entry *), compare_name);
    return found == NULL ? NULL : *found;
}

const char *safetensors_metadata(const safetensors *st, const char *key)
{
    for (int64_t i = 0; i < st->metadata_count; i++) {
        if (strcmp(st->metadata[2 * i], key) == 0) return st->metadata[2 * i + 1];
    }
    return NULL;
}

const char *safetensors_path(const safetensors *st)
{
    return st->path;
}

int64_t safetensors_elements(const safetensors_entry *e)
{
    uint64_t n =
        1; /* safetensors_open() has checked the product; unsigned, as [2^62,2,0] is valid */
    for (int i = 0; i < e->rank; i++)
        n *= (uint64_t)e->shape[i];
    return (int64_t)n;
}

cudpo_status safetensors_read(const safetensors *st, const safetensors_entry *e, float *out,
                              int64_t first, int64_t n)
{
    if (!e->supported)
        return safetensors_bad(st, e->name,
                               "elements of type %s can't be loaded; F32, BF16 and F16 can",
                               e->type_name);
    CUDPO_REQUIRE(first >= 0 && n >= 0 && n <= safetensors_elements(e) - first);
    struct stat s;
    if (fstat(st->fd, &s) != 0) return file_fail(st->path, "stat", false);
    if ((uint64_t)s.st_size != st->size)
        return safetensors_bad(st, NULL, "changed its size while in use");
    const uint64_t begin = e->begin + (uint64_t)first * dtype_size(e->type);
    if (e->type == DTYPE_F32) return read_at(st, out, (size_t)n * sizeof *out, begin);
    uint16_t chunk[CHUNK];
    for (int64_t done = 0; done < n;) {
        const int64_t m = n - done < CHUNK ? n - done : CHUNK;
        CUDPO_TRY(read_at(st, chunk, (size_t)m * sizeof *chunk, begin + (uint64_t)done * 2));
        if (e->type == DTYPE_BF16) {
            for (int64_t i = 0; i < m; i++)
                out[done + i] = float_from_bf16(chunk[i]);
        } else {
            for (int64_t i = 0; i < m; i++)
                out[done + i] = float_from_f16(chunk[i]);
        }
        done += m;
    }
    return CUDPO_OK;
}
