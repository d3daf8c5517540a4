/* hash.c - xxHash behind our names. */
#include "base/hash.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct hash_state {
    XXH3_state_t *xxh;
};

cudpo_status hash_begin(hash_state **out)
{
    *out = NULL;
    hash_state *h = malloc(sizeof *h);
    if (h == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "hash state");
    h->xxh = XXH3_createState();
    if (h->xxh == NULL || XXH3_128bits_reset(h->xxh) != XXH_OK) {
        hash_abandon(h);
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "hash state");
    }
    *out = h;
    return CUDPO_OK;
}

void hash_add(hash_state *h, const void *data, size_t n)
{
    if (n > 0) (void)XXH3_128bits_update(h->xxh, data, n); /* fails for NULL data only */
}

void hash_add_int(hash_state *h, int64_t value)
{
    hash_add(h, &value, sizeof value);
}

void hash_add_string(hash_state *h, const char *s)
{
    const size_t n = s == NULL ? 0 : strlen(s);
    hash_add_int(h, s == NULL ? -1 : (int64_t)n);
    hash_add(h, s, n);
}

hash128 hash_end(hash_state *h)
{
    const XXH128_hash_t d = XXH3_128bits_digest(h->xxh);
    hash_abandon(h);
    return (hash128){d.high64, d.low64};
}

void hash_abandon(hash_state *h)
{
    if (h == NULL) return;
    XXH3_freeState(h->xxh);
    free(h);
}

hash128 hash_bytes(const void *data, size_t n)
{
    const XXH128_hash_t d = XXH3_128bits(data, n);
    return (hash128){d.high64, d.low64};
}

uint64_t hash64_bytes(const void *data, size_t n)
{
    return XXH3_64bits(data, n);
}

void hash_text(char out[HASH_TEXT], hash128 h)
{
    snprintf(out, HASH_TEXT, "%016llx%016llx", (unsigned long long)h.high,
             (unsigned long long)h.low);
}

cudpo_status hash_file(hash128 *out, const char *path)
{
    FILE *f = NULL;
    CUDPO_TRY(file_open(&f, path));
    setvbuf(f, NULL, _IONBF, 0); /* chunks are large enough by themselves */
    hash_state *h = NULL;
    cudpo_status status = hash_begin(&h);
    static _Thread_local char chunk[1 << 16];
    size_t n = 0;
    while (status == CUDPO_OK && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        hash_add(h, chunk, n);
    if (status == CUDPO_OK && ferror(f)) status = file_fail(path, "read", false);
    if (status == CUDPO_OK) {
        *out = hash_end(h);
    } else {
        hash_abandon(h);
    }
    fclose(f);
    return status;
}
