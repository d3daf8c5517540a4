/* gather.c - records are copied as they are: all ranks run the same program. */
#include "train/gather.h"

#include <stdlib.h>
#include <string.h>

cudpo_status gather_keep(buffer *own, int64_t batch, const int64_t *place, const unit_result *units,
                         int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        unit_record r;
        memset(&r, 0, sizeof r); /* its padding is sent, too */
        r.batch = batch;
        r.place = place[i];
        r.result = units[i];
        CUDPO_TRY(buffer_append(own, &r, sizeof r));
    }
    return CUDPO_OK;
}

static int by_place(const void *a, const void *b)
{
    const unit_record *x = a, *y = b;
    if (x->batch != y->batch) return x->batch < y->batch ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Each place of a batch once, and no other: callers have room for so many. */
static cudpo_status check(const unit_record *all, int64_t n, int64_t most)
{
    for (int64_t i = 0; i < n; i++)
        if (all[i].place < 0 || all[i].place >= most ||
            (i > 0 && by_place(&all[i - 1], &all[i]) == 0))
            return cudpo_fail(CUDPO_EPEER, "metrics",
                              "ranks disagree on who has unit %lld of batch %lld",
                              (long long)all[i].place, (long long)all[i].batch);
    return CUDPO_OK;
}

cudpo_status gather_records(unit_record **all, int64_t *n, buffer *own, int64_t most,
                            const run_ranks *r)
{
    const size_t size = (size_t)r->place.size;
    void *block = NULL;
    size_t *begin = calloc(size + 1, sizeof *begin);
    *all = NULL;
    *n = 0;
    if (begin == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu ranks", size);
    cudpo_status status =
        control_collect(r->company, &block, begin, own->data, own->size, "metrics");
    const size_t count = begin[size] / sizeof **all;
    free(begin);
    CUDPO_TRY(status);
    if (count > 0) qsort(block, count, sizeof **all, by_place);
    status = check(block, (int64_t)count, most);
    if (status != CUDPO_OK) {
        free(block);
        return status;
    }
    *all = block;
    *n = (int64_t)count;
    own->size = 0;
    return CUDPO_OK;
}
