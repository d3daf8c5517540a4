/* made.c - one record an example. */
#include "data/made.h"
#include "base/buffer.h"
#include "base/rng.h"
#include "data/cache.h"

#include <string.h>

/* The record of example i, in `out`. */
static cudpo_status make(buffer *out, const made_examples *m, int64_t i)
{
    const example_lengths *l = &m->lengths[i];
    cache_record r = {.row = i,
                      .prompt_length = l->prompt,
                      .completions = m->completions,
                      .label = m->completions == 1 && i % 2 == 0};
    for (int32_t c = 0; c < m->completions; c++)
        r.completion_length[c] = r.stored_length[c] = l->completion[c];
    const int64_t ids = cache_record_ids_count(&r);
    const size_t size = sizeof r + (size_t)ids * sizeof(int32_t), padded = size + size % 8;
    buffer_clear(out);
    CUDPO_TRY(buffer_reserve(out, padded));
    memset(out->data, 0, padded);
    memcpy(out->data, &r, sizeof r);
    int32_t *id = (int32_t *)(void *)(out->data + sizeof r);
    for (int64_t k = 0; k < ids; k++)
        id[k] = (int32_t)rng_below(m->seed, (uint64_t)i, (uint64_t)k, m->vocabulary);
    out->size = padded;
    return CUDPO_OK;
}

static cudpo_status write_all(cache_writer *w, const made_examples *m, hash128 key)
{
    cache_totals totals = {.examples = m->count, .rows = m->count};
    buffer record = {0};
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < m->count && status == CUDPO_OK; i++) {
        status = make(&record, m, i);
        if (status == CUDPO_OK) status = cache_writer_put(w, record.data, record.size);
    }
    buffer_free(&record);
    CUDPO_TRY(status);
    return cache_writer_finish(w, &totals, key);
}

cudpo_status made_write(FILE *stream, const made_examples *made, const char *where, hash128 key)
{
    cache_writer w = {0};
    CUDPO_TRY(cache_writer_begin(&w, stream, where));
    const cudpo_status status = write_all(&w, made, key);
    cache_writer_abandon(&w);
    return status;
}
