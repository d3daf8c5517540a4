/* lengths.c - by a tokenizer, or by a rule of thumb. */
#include "data/lengths.h"
#include "data/block.h"
#include "data/row.h"

#include <stdlib.h>
#include <string.h>

static cudpo_status add(length_list *l, int64_t *capacity, example_lengths one)
{
    if (l->count == *capacity) {
        *capacity = *capacity > 0 ? 2 * *capacity : 1024;
        example_lengths *more = realloc(l->lengths, (size_t)*capacity * sizeof *more);
        if (more == NULL)
            return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "lengths of %lld", (long long)*capacity);
        l->lengths = more;
    }
    l->lengths[l->count++] = one;
    return CUDPO_OK;
}

static cudpo_status from_tokens(length_list *l, const char *path, const tokenizer *t,
                                const dataset_options *o)
{
    dataset *d = NULL;
    int64_t capacity = 0;
    cudpo_status status = CUDPO_OK;
    CUDPO_TRY(dataset_open(&d, path, t, o));
    l->dropped = dataset_dropped(d);
    for (int64_t i = 0; i < dataset_count(d) && status == CUDPO_OK; i++) {
        const example e = dataset_get(d, i);
        int32_t skip = e.prompt_skip[0];
        example_lengths one = {0};
        for (int32_t c = 0; c < e.completions; c++) {
            if (e.prompt_skip[c] < skip) skip = e.prompt_skip[c];
            one.completion[c] = e.completion_length[c];
        }
        one.prompt = e.prompt_length - skip;
        status = add(l, &capacity, one);
    }
    dataset_close(d);
    return status;
}

static int64_t tokens_of(const char *text)
{
    return ((int64_t)strlen(text) + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
}

static int64_t shorter(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* An example of a prompt and one or two completions, cut to max_length. */
static cudpo_status add_text(length_list *l, int64_t *capacity, const dataset_options *o,
                             const char *prompt, const char *first, const char *second)
{
    const int64_t limit = o->max_length > 0 ? o->max_length : INT32_MAX;
    int64_t P = tokens_of(prompt), C[] = {tokens_of(first) + 1, 0};
    if (second != NULL) C[1] = tokens_of(second) + 1;
    const int64_t longest = C[0] > C[1] ? C[0] : C[1];
    if (!o->keep_end && P >= limit) {
        l->dropped++;
        return CUDPO_OK;
    }
    if (o->keep_end) P = shorter(P, longest < limit ? limit - longest : 0);
    const int64_t room = o->keep_end ? limit : limit - P;
    return add(l, capacity,
               (example_lengths){
                   .prompt = (int32_t)P,
                   .completion = {(int32_t)shorter(C[0], room), (int32_t)shorter(C[1], room)}});
}

static cudpo_status add_row(length_list *l, int64_t *capacity, const dataset_options *o,
                            const preference_row *row)
{
    const bool pair = row->rejected != NULL;
    if (o->chosen_only && row->labelled && !row->label) return CUDPO_OK;
    if (pair && o->kind == ROW_PAIR && !o->chosen_only)
        return add_text(l, capacity, o, row->prompt, row->chosen, row->rejected);
    CUDPO_TRY(add_text(l, capacity, o, row->prompt, row->chosen, NULL));
    return pair && !o->chosen_only ? add_text(l, capacity, o, row->prompt, row->rejected, NULL)
                                   : CUDPO_OK;
}

static cudpo_status from_bytes(length_list *l, const char *path, const dataset_options *o)
{
    row_reader *reader = NULL;
    preference_row row;
    bool done = false;
    int64_t capacity = 0;
    CUDPO_TRY(row_reader_open(&reader, path));
    cudpo_status status = row_reader_next(reader, &row, &done);
    while (status == CUDPO_OK && !done) {
        status = dataset_check_row(&row, path, o);
        if (status == CUDPO_OK) status = add_row(l, &capacity, o, &row);
        if (status == CUDPO_OK) status = row_reader_next(reader, &row, &done);
    }
    row_reader_close(reader);
    CUDPO_TRY(status);
    if (l->count > 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, path,
                      "no example is left: %lld have a prompt that fills "
                      "max_length %lld",
                      (long long)l->dropped, (long long)o->max_length);
}

cudpo_status lengths_read(length_list *out, const char *path, const tokenizer *t,
                          const dataset_options *o)
{
    *out = (length_list){0};
    const cudpo_status status = t != NULL ? from_tokens(out, path, t, o) : from_bytes(out, path, o);
    if (status != CUDPO_OK) lengths_free(out);
    return status;
}

void lengths_free(length_list *l)
{
    free(l->lengths);
    *l = (length_list){0};
}
