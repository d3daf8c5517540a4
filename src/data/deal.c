/* deal.c - longest first, to the least loaded: at most a third worse than the best way to deal. */
#include "data/deal.h"
#include "data/pack.h"

#include <stdlib.h>

struct deal_item {
    double work;
    int64_t place, rank;
};

/* Most work first; alike in the order of the list. */
static int by_work(const void *a, const void *b)
{
    const struct deal_item *x = a, *y = b;
    if (x->work != y->work) return x->work > y->work ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static int by_rank(const void *a, const void *b)
{
    const struct deal_item *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Is rank a to be served before b? */
static int before(const double *load, int64_t a, int64_t b)
{
    return load[a] != load[b] ? load[a] < load[b] : a < b;
}

/* The root of a heap of ranks got more: it goes down to where it belongs. */
static void sink(int64_t *heap, int64_t n, const double *load)
{
    for (int64_t i = 0;;) {
        int64_t least = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (before(load, heap[child], heap[least])) least = child;
        if (least == i) return;
        const int64_t held = heap[i];
        heap[i] = heap[least];
        heap[least] = held;
        i = least;
    }
}

/* Of a group as pack_add() lays it out where its completions share the prompt. */
static double work_of(const example *e, const deal_work *work)
{
    const double prompt = e->prompt_length;
    double rows = 0.0, pairs = prompt * (prompt + 1.0) / 2.0;
    for (int i = 0; i < e->completions; i++) {
        const double n = e->completion_length[i];
        rows += n;
        pairs += n * prompt + n * (n + 1.0) / 2.0;
    }
    return work->token * (double)pack_group_tokens(e, false) + work->row * rows +
           work->pair * pairs;
}

void deal_out(deal *d, const dataset *data, const int64_t *list, int64_t n, const deal_work *work)
{
    const int64_t ranks = d->ranks;
    d->n = n;
    for (int64_t i = 0; i < n; i++) {
        const example e = dataset_get(data, list[i]);
        d->item[i] = (struct deal_item){.work = work_of(&e, work), .place = i};
    }
    for (int64_t r = 0; r < ranks; r++) {
        d->heap[r] = r; /* all have nothing: in order is a heap */
        d->load[r] = 0.0;
        d->begin[r + 1] = 0;
    }
    if (ranks > 1) qsort(d->item, (size_t)n, sizeof *d->item, by_work);
    for (int64_t i = 0; i < n; i++) {
        d->item[i].rank = d->heap[0];
        d->load[d->heap[0]] += d->item[i].work;
        sink(d->heap, ranks, d->load);
    }
    if (ranks > 1) qsort(d->item, (size_t)n, sizeof *d->item, by_rank);
    for (int64_t i = 0; i < n; i++) {
        d->place[i] = d->item[i].place;
        d->begin[d->item[i].rank + 1]++;
    }
    for (int64_t r = 0; r < ranks; r++)
        d->begin[r + 1] += d->begin[r];
}

double deal_imbalance(const deal *d)
{
    double most = 0.0, sum = 0.0;
    for (int64_t r = 0; r < d->ranks; r++) {
        most = d->load[r] > most ? d->load[r] : most;
        sum += d->load[r];
    }
    return sum > 0.0 ? most * (double)d->ranks / sum : 1.0;
}

cudpo_status deal_create(deal *out, int64_t capacity, int64_t ranks)
{
    *out = (deal){.ranks = ranks, .capacity = capacity};
    CUDPO_REQUIRE(capacity >= 1 && ranks >= 1);
    out->item = malloc((size_t)capacity * sizeof *out->item);
    out->heap = malloc((size_t)ranks * sizeof *out->heap);
    out->place = malloc((size_t)capacity * sizeof *out->place);
    out->begin = calloc((size_t)ranks + 1, sizeof *out->begin);
    out->load = calloc((size_t)ranks, sizeof *out->load);
    if (out->item != NULL && out->heap != NULL && out->place != NULL && out->begin != NULL &&
        out->load != NULL)
        return CUDPO_OK;
    deal_free(out);
    return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld examples", (long long)capacity);
}

void deal_free(deal *d)
{
    free(d->item);
    free(d->heap);
    free(d->place);
    free(d->begin);
    free(d->load);
    *d = (deal){0};
}
