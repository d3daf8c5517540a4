/* ranks.c - longest first, to the least loaded: at most a third worse than the best way to deal. */
#include "plan/ranks.h"
#include "data/pack.h"

#include <stdlib.h>

typedef struct item {
    int64_t tokens, place; /* in the list */
    int64_t rank;
} item;

/* Longest first; alike in the order of the list. */
static int by_length(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->tokens != y->tokens) return x->tokens > y->tokens ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static int by_rank(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Is rank a to be served before b? */
static int before(const int64_t *tokens, int64_t a, int64_t b)
{
    return tokens[a] != tokens[b] ? tokens[a] < tokens[b] : a < b;
}

/* The root of a heap of ranks got more: it goes down to where it belongs. */
static void sink(int64_t *heap, int64_t n, const int64_t *tokens)
{
    for (int64_t i = 0;;) {
        int64_t least = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (before(tokens, heap[child], heap[least])) least = child;
        if (least == i) return;
        const int64_t held = heap[i];
        heap[i] = heap[least];
        heap[least] = held;
        i = least;
    }
}

static void fill(deal *out, item *items, int64_t *heap, const int64_t *list, int64_t n)
{
    const int64_t ranks = out->ranks;
    if (ranks > 1) qsort(items, (size_t)n, sizeof *items, by_length);
    for (int64_t r = 0; r < ranks; r++)
        heap[r] = r; /* all have nothing: in order is a heap */
    for (int64_t i = 0; i < n; i++) {
        items[i].rank = heap[0];
        out->tokens[heap[0]] += items[i].tokens;
        sink(heap, ranks, out->tokens);
    }
    if (ranks > 1) qsort(items, (size_t)n, sizeof *items, by_rank);
    for (int64_t i = 0; i < n; i++) {
        out->example[i] = list[items[i].place];
        out->begin[items[i].rank + 1]++;
    }
    for (int64_t r = 0; r < ranks; r++)
        out->begin[r + 1] += out->begin[r];
}

cudpo_status deal_create(deal *out, const dataset *d, const int64_t *list, int64_t n, int64_t ranks)
{
    *out = (deal){.ranks = ranks};
    CUDPO_REQUIRE(n >= 1 && ranks >= 1);
    item *items = malloc((size_t)n * sizeof *items);
    int64_t *heap = malloc((size_t)ranks * sizeof *heap);
    out->example = malloc((size_t)n * sizeof *out->example);
    out->begin = calloc((size_t)ranks + 1, sizeof *out->begin);
    out->tokens = calloc((size_t)ranks, sizeof *out->tokens);
    const int whole = items != NULL && heap != NULL && out->example != NULL && out->begin != NULL &&
                      out->tokens != NULL;
    for (int64_t i = 0; i < n && whole; i++) {
        const example e = dataset_get(d, list[i]);
        items[i] = (item){.tokens = pack_group_tokens(&e, false), .place = i};
    }
    if (whole) fill(out, items, heap, list, n);
    free(items);
    free(heap);
    if (whole) return CUDPO_OK;
    deal_free(out);
    return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld examples", (long long)n);
}

void deal_free(deal *d)
{
    free(d->example);
    free(d->begin);
    free(d->tokens);
    *d = (deal){0};
}
