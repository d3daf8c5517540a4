/* hash.h - fingerprints of content: XXH3, 128 bits.  They detect change and damage, not an attacker. */
#ifndef CUDPO_BASE_HASH_H
#define CUDPO_BASE_HASH_H

#include "cudpo/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct hash128 {
    uint64_t high, low;
} hash128;

typedef struct hash_state hash_state; /* opaque */

CUDPO_MUST_USE cudpo_status hash_begin(hash_state **out);
void hash_add(hash_state *h, const void *data, size_t n);
void hash_add_string(hash_state *h,
                     const char *s); /* its length, then its bytes; NULL differs from "" */
void hash_add_int(hash_state *h, int64_t value);
hash128 hash_end(hash_state *h); /* frees h */
void hash_abandon(hash_state *h);

hash128 hash_bytes(const void *data, size_t n);
uint64_t hash64_bytes(const void *data, size_t n); /* for tables in memory */

enum { HASH_TEXT = 33 };
void hash_text(char out[HASH_TEXT], hash128 h); /* 32 hex digits and NUL */

/** Fingerprint of a regular file's bytes.
 *  Returns: CUDPO_OK; as file_open(). */
CUDPO_MUST_USE cudpo_status hash_file(hash128 *out, const char *path);

#endif /* CUDPO_BASE_HASH_H */
