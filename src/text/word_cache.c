/* word_cache.c - open addressing, at most half full. */
#include "text/word_cache.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

static word_entry *find(const word_cache *cache, uint64_t hash, const char *word, size_t n)
{
    size_t slot = hash & (cache->slot_count - 1);
    for (;; slot = (slot + 1) & (cache->slot_count - 1)) {
        word_entry *e = &cache->slots[slot];
        if (e->length == 0) {
            e->hash = hash;
            return e;
        }
        if (e->hash == hash && e->length == n && memcmp(cache->text.data + e->begin, word, n) == 0)
            return e;
    }
}

static bool grow(word_cache *cache)
{
    word_cache larger = *cache;
    larger.slot_count = cache->slot_count == 0 ? 64 : 4 * cache->slot_count;
    larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
    if (larger.slots == NULL) return false;
    for (size_t i = 0; i < cache->slot_count; i++) {
        const word_entry *e = &cache->slots[i];
        if (e->length == 0) continue;
        *find(&larger, e->hash, cache->text.data + e->begin, e->length) = *e;
    }
    free(cache->slots);
    *cache = larger;
    return true;
}

word_entry *word_cache_find(word_cache *cache, const char *word, size_t n)
{
    if (n == 0 || n > WORD_CACHE_MAX_BYTES || cache->text.size > UINT32_MAX / 2) return NULL;
    if (2 * cache->n >= cache->slot_count && !grow(cache)) return NULL;
    return find(cache, hash64_bytes(word, n), word, n);
}

void word_cache_put(word_cache *cache, word_entry *entry, const char *word, size_t n, int64_t ids,
                    int64_t count)
{
    const size_t begin = cache->text.size;
    if (buffer_append(&cache->text, word, n) != CUDPO_OK) {
        cudpo_error_clear(); /* the word is not kept; nothing else follows */
        return;
    }
    entry->ids = ids;
    entry->begin = (uint32_t)begin;
    entry->length = (uint32_t)n;
    entry->count = (int32_t)count;
    cache->n++;
}

void word_cache_free(word_cache *cache)
{
    buffer_free(&cache->text);
    free(cache->slots);
    *cache = (word_cache){0};
}
