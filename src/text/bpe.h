/* bpe.h - byte-pair encoding: a word to ids, by the merges of tokenizer.json's "model". */
#ifndef CUDPO_TEXT_BPE_H
#define CUDPO_TEXT_BPE_H

#include "base/json.h"
#include "cudpo/status.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BPE_MAX_MERGES = 8 * 1024 * 1024 };

/* Two neighbours that become one token; the lower rank first. */
typedef struct bpe_merge {
    int32_t left, right; /* left < 0: the slot is free */
    int32_t rank, id;
} bpe_merge;

/* Code points with a table of their ids: ASCII and byte-level characters. */
enum { BPE_DIRECT = 1024 };

typedef struct bpe {
    const vocab *tokens;
    bpe_merge *merges; /* [slot_count] hash table by (left, right) */
    size_t slot_count;
    uint64_t *
        joints; /* [joint_count] hash table: pairs of characters that a merge can join; UINT64_MAX: free */
    size_t joint_count;
    int32_t direct[BPE_DIRECT]; /* id of a character, -1: not in the vocabulary */
    int32_t byte_ids[256];      /* of "<0x00>" .. "<0xFF>", -1 */
    int32_t unk;                /* -1: none */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool unk_missing; /* unk_token is named, but not in the vocabulary */
} bpe;

/** Read the "model" object; `tokens` is its vocabulary, and outlives `b`.
 *  Returns: CUDPO_OK; CUDPO_EDATA for a merge of unknown tokens, a flag of the wrong type, an option that this
 *           program does not know; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status bpe_load(bpe *b, const json *model, const vocab *tokens,
                                     const char *where);
void bpe_free(bpe *b);

/* Where a pair's search in the table begins, before the mask.  The odd number is 2^64 divided by the golden ratio. */
static inline size_t bpe_merge_slot(int32_t left, int32_t right)
{
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)((key ^ key >> 29) * 0x9e3779b97f4a7c15u >> 32);
}

/* What encoding writes to, for one thread; {0} is ready. */
typedef struct bpe_symbol bpe_symbol;
typedef struct bpe_candidate bpe_candidate;
typedef struct bpe_scratch {
    bpe_symbol *symbols;
    bpe_candidate *heap;
    int64_t n, capacity;           /* symbols */
    int64_t heap_n, heap_capacity; /* candidates */
} bpe_scratch;

void bpe_scratch_free(bpe_scratch *scratch);

/* Where a pair of characters has its place in `joints`: there, or free. */
uint64_t *bpe_joint(const bpe *b, uint32_t left, uint32_t right);

/* Bytes of the longest beginning of a word, at least 1, that has the same ids by itself: those of the whole word are the
 * beginning's and then the rest's.  n where ignore_merges is set. */
size_t bpe_cut(const bpe *b, const char *word, size_t n);

/* Append the ids of a word of valid UTF-8.  O(n log n). */
CUDPO_MUST_USE cudpo_status bpe_encode(const bpe *b, bpe_scratch *scratch, token_list *out,
                                       const char *word, size_t n);

/* Append one id. */
CUDPO_MUST_USE cudpo_status token_list_add(token_list *list, int32_t id);

#endif /* CUDPO_TEXT_BPE_H */
