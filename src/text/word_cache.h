/* word_cache.h - words already encoded in this text, and where their ids stand in the output. */
#ifndef CUDPO_TEXT_WORD_CACHE_H
#define CUDPO_TEXT_WORD_CACHE_H

#include "base/buffer.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longer words are rare, seldom repeat, and are not kept. */
enum { WORD_CACHE_MAX_BYTES = 64 };

typedef struct word_entry {
    uint64_t hash;
    int64_t ids;            /* index of the first id in the output */
    uint32_t begin, length; /* of the word in text; length 0: the slot is free */
    int32_t count;
} word_entry;

/* {0} is empty. */
typedef struct word_cache {
    word_entry *slots; /* [slot_count] */
    size_t slot_count, n;
    buffer text;
} word_cache;

/* The entry of a word, or a free one: for word_cache_put(), if nothing else is put before.  NULL: words of this length are
 * not kept, or memory ran out, which a cache need not report. */
word_entry *word_cache_find(word_cache *cache, const char *word, size_t n);
void word_cache_put(word_cache *cache, word_entry *entry, const char *word, size_t n, int64_t ids,
                    int64_t count);
void word_cache_free(word_cache *cache);

#endif /* CUDPO_TEXT_WORD_CACHE_H */
