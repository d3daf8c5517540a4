/* vocab.h - token texts by id, and the ids of the model's own tokens by text. */
#ifndef CUDPO_TEXT_VOCAB_H
#define CUDPO_TEXT_VOCAB_H

#include "base/buffer.h"
#include "base/json.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VOCAB_MAX_TOKENS = 4 * 1024 * 1024,
    VOCAB_MAX_HOLES = 1024 * 1024, /* ids that no token has, below the largest that one has */
    VOCAB_MAX_TOKEN_BYTES = 16 * 1024,
};

typedef struct vocab {
    buffer text;      /* of all tokens, each with a NUL behind it */
    uint32_t *begin;  /* [size] in text; UINT32_MAX: no token has this id */
    uint32_t *length; /* [size] bytes */
    int64_t size;     /* largest id + 1 */
    int64_t n;        /* tokens */
    int32_t *slots;   /* [slot_count] hash table of ids, -1: free; model tokens only */
    size_t slot_count;
} vocab;

/** Read the "vocab" object of a model; `added` are further tokens that the caller will add, all with ids below
 *  `added_size`.
 *  Returns: CUDPO_OK; CUDPO_EDATA for an id that is no integer, out of range, or given twice; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status vocab_load(vocab *v, const json *tokens, int64_t added,
                                       int64_t added_size, const char *where);
void vocab_free(vocab *v);

/* Give a free id below v->size to a token that vocab_find() will not see. */
CUDPO_MUST_USE cudpo_status vocab_add(vocab *v, int32_t id, const char *text, size_t n);

int32_t vocab_find(const vocab *v, const char *text, size_t n); /* -1: not there */

/* The text of an id, NUL-terminated; NULL where there is none. */
const char *vocab_text(const vocab *v, int32_t id, size_t *n);

#endif /* CUDPO_TEXT_VOCAB_H */
