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

cudpo_status gather_records(unit_record **all, int64_t *n, buffer *own, const run_ranks *r)
{
    const size_t size = (size_t)r->place.size;
    void *block = NULL;
    size_t *begin = calloc(size + 1, sizeof *begin);
    *all = NULL;
    *n = 0;
    if (begin == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu ranks", size);
    const cudpo_status status =
        control_collect(r->company, &block, begin, own->data, own->size, "metrics");
    if (status == CUDPO_OK) {
        *all = block;
        *n = (int64_t)(begin[size] / sizeof **all);
        if (*n > 0) qsort(*all, (size_t)*n, sizeof **all, by_place);
        own->size = 0;
    }
    free(begin);
    return status;
}
