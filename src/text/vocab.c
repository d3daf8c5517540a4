/* vocab.c - one block of text, two arrays by id, and a hash table with open addressing. */
#include "text/vocab.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* The number of tokens and the id range, checked, before anything of that size is allocated. */
static cudpo_status measure(vocab *v, const json *tokens, int64_t added, int64_t added_size,
                            const char *where)
{
    int64_t size = added_size, count = 0;
    for (const json *token = json_first(tokens); token != NULL; token = json_next(token)) {
        int64_t id;
        if (!json_integer(token, &id) || id < 0 || id > INT32_MAX)
            return cudpo_fail(CUDPO_EDATA, where,
                              "the id of \"%.60s\" must be an integer, 0 or more", json_key(token));
        if (strlen(json_key(token)) > VOCAB_MAX_TOKEN_BYTES)
            return cudpo_fail(CUDPO_EDATA, where, "a token of %zu bytes; the limit is %d",
                              strlen(json_key(token)), VOCAB_MAX_TOKEN_BYTES);
        if (id >= size) size = id + 1;
        count++;
    }
    if (count == 0) return cudpo_fail(CUDPO_EDATA, where, "there are no tokens");
    if (count > VOCAB_MAX_TOKENS)
        return cudpo_fail(CUDPO_EDATA, where, "%lld tokens; the limit is %d", (long long)count,
                          VOCAB_MAX_TOKENS);
    if (size - count - added > VOCAB_MAX_HOLES)
        return cudpo_fail(CUDPO_EDATA, where, "%lld tokens have ids up to %lld: too many unused",
                          (long long)(count + added), (long long)size - 1);
    v->size = size;
    v->n = count;
    v->slot_count = 16;
    while (v->slot_count < 2 * (size_t)count)
        v->slot_count *= 2;
    return CUDPO_OK;
}

cudpo_status vocab_load(vocab *v, const json *tokens, int64_t added, int64_t added_size,
                        const char *where)
{
    CUDPO_TRY(measure(v, tokens, added, added_size, where));
    v->begin = malloc((size_t)v->size * sizeof *v->begin);
    v->length = calloc((size_t)v->size, sizeof *v->length);
    v->slots = malloc(v->slot_count * sizeof *v->slots);
    if (v->begin == NULL || v->length == NULL || v->slots == NULL)
        return cudpo_fail(CUDPO_ENOMEM, where, "no memory for %lld tokens", (long long)v->size);
    memset(v->begin, 0xff, (size_t)v->size * sizeof *v->begin);
    memset(v->slots, 0xff, v->slot_count * sizeof *v->slots);

    for (const json *token = json_first(tokens); token != NULL; token = json_next(token)) {
        int64_t id = -1;
        const char *text = json_key(token);
        const size_t n = strlen(text);
        if (!json_integer(token, &id) || v->begin[id] != UINT32_MAX)
            return cudpo_fail(CUDPO_EDATA, where, "\"%.60s\" and \"%.60s\" have the same id %lld",
                              v->text.data + v->begin[id], text, (long long)id);
        CUDPO_TRY(vocab_add(v, (int32_t)id, text, n));
        size_t slot = hash64_bytes(text, n) & (v->slot_count - 1);
        while (v->slots[slot] >= 0) /* names differ: json.h sees to it */
            slot = (slot + 1) & (v->slot_count - 1);
        v->slots[slot] = (int32_t)id;
    }
    return CUDPO_OK;
}

cudpo_status vocab_add(vocab *v, int32_t id, const char *text, size_t n)
{
    CUDPO_REQUIRE(id >= 0 && id < v->size && v->begin[id] == UINT32_MAX);
    if (v->text.size + n >= UINT32_MAX)
        return cudpo_fail(CUDPO_EDATA, CUDPO_HERE, "the tokens have over 4 GB of text");
    v->begin[id] = (uint32_t)v->text.size;
    v->length[id] = (uint32_t)n;
    return buffer_append(&v->text, text, n + 1);
}

int32_t vocab_find(const vocab *v, const char *text, size_t n)
{
    size_t slot = hash64_bytes(text, n) & (v->slot_count - 1);
    for (; v->slots[slot] >= 0; slot = (slot + 1) & (v->slot_count - 1)) {
        const int32_t id = v->slots[slot];
        if (v->length[id] == n && memcmp(v->text.data + v->begin[id], text, n) == 0) return id;
    }
    return -1;
}

const char *vocab_text(const vocab *v, int32_t id, size_t *n)
{
    if (id < 0 || id >= v->size || v->begin[id] == UINT32_MAX) return NULL;
    *n = v->length[id];
    return v->text.data + v->begin[id];
}

void vocab_free(vocab *v)
{
    buffer_free(&v->text);
    free(v->begin);
    free(v->length);
    free(v->slots);
    *v = (vocab){0};
}
