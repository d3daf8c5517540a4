/* bpe.c - merging with a heap of candidates.
 *
 * The order of merges, the test for stale candidates and the order of unknown characters around byte fallback are those
 * of the `tokenizers` library (models/bpe/word.rs, model.rs), for other orders give other ids. */
#include "text/bpe.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

struct bpe_symbol {
    int32_t id;             /* -1: merged into the one on its left */
    int32_t previous, next; /* -1: none */
};

struct bpe_candidate {
    uint64_t key; /* rank << 32 | position of the left symbol: the smallest is merged first */
    int32_t id;   /* of the result */
};

cudpo_status token_list_add(token_list *list, int32_t id)
{
    if (list->n == list->capacity) {
        const int64_t capacity = list->capacity < 64 ? 64 : 2 * list->capacity;
        int32_t *ids = realloc(list->ids, (size_t)capacity * sizeof *ids);
        if (ids == NULL)
            return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld token ids", (long long)capacity);
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return CUDPO_OK;
}

static const bpe_merge *find_merge(const bpe *b, int32_t left, int32_t right)
{
    const size_t mask = b->slot_count - 1;
    for (size_t slot = bpe_merge_slot(left, right) & mask; b->merges[slot].left >= 0;
         slot = (slot + 1) & mask) {
        const bpe_merge *m = &b->merges[slot];
        if (m->left == left && m->right == right) return m;
    }
    return NULL;
}

static cudpo_status push(bpe_scratch *s, bpe_candidate candidate)
{
    if (s->heap_n == s->heap_capacity) {
        const int64_t capacity = s->heap_capacity < 64 ? 64 : 2 * s->heap_capacity;
        bpe_candidate *heap = realloc(s->heap, (size_t)capacity * sizeof *heap);
        if (heap == NULL)
            return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld merges", (long long)capacity);
        s->heap = heap;
        s->heap_capacity = capacity;
    }
    int64_t hole = s->heap_n++;
    while (hole > 0 && candidate.key < s->heap[(hole - 1) / 2].key) {
        s->heap[hole] = s->heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    s->heap[hole] = candidate;
    return CUDPO_OK;
}

static bpe_candidate pop(bpe_scratch *s)
{
    const bpe_candidate top = s->heap[0];
    const bpe_candidate last = s->heap[--s->heap_n];
    int64_t hole = 0;
    for (int64_t child = 1; child < s->heap_n; child = 2 * hole + 1) {
        if (child + 1 < s->heap_n && s->heap[child + 1].key < s->heap[child].key) child++;
        if (last.key <= s->heap[child].key) break;
        s->heap[hole] = s->heap[child];
        hole = child;
    }
    s->heap[hole] = last;
    return top;
}

static cudpo_status push_pair(const bpe *b, bpe_scratch *s, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return CUDPO_OK;
    const bpe_merge *m = find_merge(b, s->symbols[left].id, s->symbols[right].id);
    if (m == NULL) return CUDPO_OK;
    return push(s, (bpe_candidate){(uint64_t)m->rank << 32 | (uint32_t)left, m->id});
}

static cudpo_status merge_all(const bpe *b, bpe_scratch *s)
{
    s->heap_n = 0;
    for (int32_t i = 0; i + 1 < s->n; i++)
        CUDPO_TRY(push_pair(b, s, i, i + 1));
    while (s->heap_n > 0) {
        const bpe_candidate top = pop(s);
        const int32_t at = (int32_t)(top.key & UINT32_MAX);
        bpe_symbol *left = &s->symbols[at];
        if (left->id < 0 || left->next < 0) continue;
        bpe_symbol *right = &s->symbols[left->next];
        const bpe_merge *now = find_merge(b, left->id, right->id);
        if (now == NULL || now->id != top.id) continue; /* stale: its symbols have been merged */
        left->id = top.id;
        left->next = right->next;
        right->id = -1;
        if (right->next >= 0) s->symbols[right->next].previous = at;
        CUDPO_TRY(push_pair(b, s, left->previous, at));
        CUDPO_TRY(push_pair(b, s, at, left->next));
    }
    return CUDPO_OK;
}

static void add_symbol(bpe_scratch *s, int32_t id)
{
    const int32_t at = (int32_t)s->n++;
    s->symbols[at] = (bpe_symbol){id, at - 1, at + 1};
}

/* The id of one character, or -1. */
static int32_t char_id(const bpe *b, const char *c, size_t *length)
{
    const uint32_t code = utf8_decode(c, length);
    return code < BPE_DIRECT ? b->direct[code] : vocab_find(b->tokens, c, *length);
}

static bool has_byte_ids(const bpe *b, const char *c, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (b->byte_ids[(unsigned char)c[i]] < 0) return false;
    }
    return true;
}

/* The characters of a word as symbols.  An unknown one waits (`unknown`) until it is known whether the next is unknown
 * too; bytes of a fallback go past it, as in the original. */
static cudpo_status split(const bpe *b, bpe_scratch *s, const char *word, size_t n)
{
    bool unknown = false;
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        const int32_t id = char_id(b, word + i, &length);
        if (id >= 0) {
            if (unknown) add_symbol(s, b->unk);
            unknown = false;
            add_symbol(s, id);
        } else if (b->byte_fallback && has_byte_ids(b, word + i, length)) {
            for (size_t j = 0; j < length; j++)
                add_symbol(s, b->byte_ids[(unsigned char)word[i + j]]);
        } else if (b->unk >= 0) {
            if (unknown && !b->fuse_unk) add_symbol(s, b->unk);
            unknown = true;
        } else if (b->unk_missing) {
            return cudpo_fail(CUDPO_EDATA, "tokenizer.json: model: unk_token",
                              "needed for \"%.*s\", but not in the vocabulary", (int)length,
                              word + i);
        } /* without unk_token, an unknown character is dropped */
    }
    if (unknown) add_symbol(s, b->unk);
    if (s->n > 0) s->symbols[s->n - 1].next = -1;
    return CUDPO_OK;
}

uint64_t *bpe_joint(const bpe *b, uint32_t left, uint32_t right)
{
    const uint64_t key = (uint64_t)left << 32 | right;
    size_t slot = bpe_merge_slot((int32_t)left, (int32_t)right) & (b->joint_count - 1);
    while (b->joints[slot] != key && b->joints[slot] != UINT64_MAX)
        slot = (slot + 1) & (b->joint_count - 1);
    return &b->joints[slot];
}

/* Merges go only across joints, so that a pair that is none separates what happens on its two sides.  Both characters
 * must be known: an unknown one or its bytes have other texts, and fuse. */
size_t bpe_cut(const bpe *b, const char *word, size_t n)
{
    if (b->ignore_merges || n == 0) return n;
    size_t length, at = 0;
    uint32_t left = utf8_decode(word, &length);
    bool left_known = char_id(b, word, &length) >= 0;
    for (at = length; at < n; at += length) {
        const uint32_t right = utf8_decode(word + at, &length);
        const bool right_known = char_id(b, word + at, &length) >= 0;
        if (left_known && right_known && *bpe_joint(b, left, right) == UINT64_MAX) return at;
        left = right;
        left_known = right_known;
    }
    return n;
}

static cudpo_status reserve(bpe_scratch *s, size_t n)
{
    if (n + 1 > INT32_MAX)
        return cudpo_fail(CUDPO_EDATA, "text", "a word of %zu bytes is too long to encode", n);
    const int64_t need = (int64_t)n + 1; /* at most one symbol a byte, and a waiting unknown */
    if (need <= s->capacity) return CUDPO_OK;
    const int64_t capacity = need < 256 ? 256 : need + need / 2;
    bpe_symbol *symbols = realloc(s->symbols, (size_t)capacity * sizeof *symbols);
    if (symbols == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "a word of %zu bytes", n);
    s->symbols = symbols;
    s->capacity = capacity;
    return CUDPO_OK;
}

cudpo_status bpe_encode(const bpe *b, bpe_scratch *scratch, token_list *out, const char *word,
                        size_t n)
{
    if (b->ignore_merges) {
        const int32_t id = vocab_find(b->tokens, word, n);
        if (id >= 0) return token_list_add(out, id);
    }
    CUDPO_TRY(reserve(scratch, n));
    scratch->n = 0;
    CUDPO_TRY(split(b, scratch, word, n));
    CUDPO_TRY(merge_all(b, scratch));
    for (int32_t i = scratch->n > 0 ? 0 : -1; i >= 0; i = scratch->symbols[i].next)
        CUDPO_TRY(token_list_add(out, scratch->symbols[i].id));
    return CUDPO_OK;
}

void bpe_scratch_free(bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (bpe_scratch){0};
}
