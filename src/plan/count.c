/* count.c - from groups and packs to the numbers that the formulas are of. */
#include "backend/backend.h"
#include "plan/work.h"
#include "preference/head.h"

#include <assert.h>
#include <stdlib.h>

/* The window of those layers that have one; 0: none has. */
static int64_t window_of(const model_config *c)
{
    return model_config_window(c, c->num_hidden_layers - 1);
}

static int64_t triangle(int64_t n)
{
    return n * (n + 1) / 2;
}

/* Query i sees min(prompt + i + 1, window) keys. */
int64_t work_visible(int64_t n, int64_t first, int64_t prompt, int64_t window)
{
    if (first >= n) return 0;
    int64_t whole = n; /* queries that see everything before them */
    if (window > 0 && prompt + n > window) whole = window > prompt ? window - prompt : 0;
    const int64_t narrow = n - (whole > first ? whole : first);
    int64_t seen = narrow > 0 ? narrow * window : 0;
    if (whole > first) seen += (whole - first) * prompt + triangle(whole) - triangle(first);
    return seen;
}

/* A segment whose queries from `first` on are wanted. */
static void add_segment(work_counts *out, int64_t n, int64_t first, int64_t prompt, int64_t window)
{
    const int64_t windows[WORK_VIEWS] = {0, window};
    for (int v = 0; v < WORK_VIEWS; v++) {
        out->visible[v] += work_visible(n, 0, prompt, windows[v]);
        out->visible_wanted[v] += work_visible(n, first, prompt, windows[v]);
    }
    out->tokens += n;
    out->wanted += n - first;
}

void work_count_group(work_counts *out, const model_config *c, int64_t P, const int64_t *length,
                      int n, bool plain)
{
    const int64_t window = window_of(c);
    assert(P >= 1 && n >= 1);
    for (int i = 0; i < n; i++) {
        assert(length[i] >= 1);
        if (i == 0 || plain) add_segment(out, P, P - 1, 0, window);
        add_segment(out, length[i] - 1, 0, P, window);
        out->rows += length[i];
    }
    out->groups++;
    out->sequences += n;
    out->chunks++;
}

/* The tokens that score rows read, and what they see. */
static void add_wanted(work_counts *out, const pack *p, const char *is_wanted, int64_t window)
{
    const int64_t windows[WORK_VIEWS] = {0, window};
    for (int64_t s = 0; s < p->N; s++) {
        const int32_t *segment = p->segment + s * SEGMENT_FIELDS;
        const int64_t before = segment[SEGMENT_PROMPT_LENGTH];
        for (int64_t i = 0; i < segment[SEGMENT_LENGTH]; i++) {
            if (!is_wanted[segment[SEGMENT_BEGIN] + i]) continue;
            out->wanted++;
            for (int v = 0; v < WORK_VIEWS; v++)
                out->visible_wanted[v] += work_visible(i + 1, i, before, windows[v]);
        }
    }
}

cudpo_status work_count_pack(work_counts *out, const pack *p, const model_config *c,
                             int64_t chunk_rows)
{
    const int64_t window = window_of(c);
    if (p->G == 0) return CUDPO_OK;
    char *is_wanted = calloc((size_t)p->T, 1);
    if (is_wanted == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld tokens", (long long)p->T);
    for (int64_t s = 0; s < p->N; s++) {
        const int32_t *segment = p->segment + s * SEGMENT_FIELDS;
        const int64_t n = segment[SEGMENT_LENGTH];
        add_segment(out, n, n, segment[SEGMENT_PROMPT_LENGTH], window);
    }
    for (int64_t r = 0; r < p->R; r++)
        is_wanted[p->row_hidden[r]] = 1;
    add_wanted(out, p, is_wanted, window);
    free(is_wanted);
    out->groups += p->G;
    out->sequences += p->S;
    out->rows += p->R;
    out->chunks += head_chunks(p->sequence_begin, p->G, (int)(p->S / p->G), chunk_rows);
    return CUDPO_OK;
}

cudpo_status work_count_dataset(work_counts *out, const dataset *d, const model_config *c,
                                bool plain, bool score_prompt)
{
    pack p;
    CUDPO_TRY(pack_create(&p, 1, MAX_COMPLETIONS * dataset_longest(d), plain, score_prompt));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < dataset_count(d) && status == CUDPO_OK; i++) {
        const example e = dataset_get(d, i);
        pack_clear(&p);
        (void)pack_add(&p, &e, i); /* which has room for any */
        status = work_count_pack(out, &p, c, INT64_MAX);
    }
    pack_free(&p);
    return status;
}
