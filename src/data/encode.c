/* encode.c - Source: TRL 1.16, trainer/dpo_trainer.py (tokenize_fn and DataCollatorForPreference),
 * trainer/kto_trainer.py, experimental/orpo/orpo_trainer.py (build_tokenized_answer, tokenize_row). */
#include "data/encode.h"
#include "data/cache.h"

#include <stdlib.h>
#include <string.h>

void encode_scratch_free(encode_scratch *s)
{
    buffer_free(&s->text);
    token_list_free(&s->prompt);
    for (int c = 0; c < MAX_COMPLETIONS; c++)
        token_list_free(&s->full[c]);
    *s = (encode_scratch){0};
}

void encoded_row_free(encoded_row *e)
{
    for (int c = 0; c < MAX_COMPLETIONS; c++)
        buffer_free(&e->record[c]);
    *e = (encoded_row){0};
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n >= k && memcmp(s + n - k, end, k) == 0;
}

static int64_t common_prefix(const token_list *a, const token_list *b)
{
    int64_t n = 0;
    while (n < a->n && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

static cudpo_status insert_id(token_list *list, int64_t at, int32_t id)
{
    if (list->n == list->capacity) {
        const int64_t capacity = list->capacity + list->capacity / 2 + 16;
        int32_t *ids = realloc(list->ids, (size_t)capacity * sizeof *ids);
        if (ids == NULL)
            return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld ids", (long long)capacity);
        list->ids = ids;
        list->capacity = capacity;
    }
    memmove(list->ids + at + 1, list->ids + at, (size_t)(list->n - at) * sizeof *list->ids);
    list->ids[at] = id;
    list->n++;
    return CUDPO_OK;
}

/* ids of prompt + completion, and of the text of eos where the trainer adds it as text. */
static cudpo_status encode_full(encode_scratch *s, token_list *ids, const char *prompt,
                                const char *completion, const tokenizer *t, dataset_rules rules)
{
    const char *eos = tokenizer_eos_text(t);
    buffer_clear(&s->text);
    CUDPO_TRY(buffer_append(&s->text, prompt, strlen(prompt)));
    CUDPO_TRY(buffer_append(&s->text, completion, strlen(completion)));
    if (rules == RULES_JOINED && !ends_with(completion, eos))
        CUDPO_TRY(buffer_append(&s->text, eos, strlen(eos)));
    ids->n = 0;
    return tokenizer_encode(t, ids, s->text.data, s->text.size, rules == RULES_JOINED);
}

/* Where the completion begins in full[c]. */
static int64_t find_boundary(const encode_scratch *s, int c, dataset_rules rules)
{
    const token_list *prompt = &s->prompt, *full = &s->full[c];
    const int64_t common = common_prefix(prompt, full);
    if (rules == RULES_JOINED || common == prompt->n) return common;
    /* ORPO moves the last id only, even where ids further back have merged. */
    return prompt->n - 1 < full->n ? prompt->n - 1 : full->n;
}

/* ORPO's own special ids, for n completions that begin at `boundary`, which moves behind bos. */
static cudpo_status add_special_ids(encode_scratch *s, int n, int64_t *boundary, const tokenizer *t)
{
    const int32_t bos = tokenizer_bos(t), eos = tokenizer_eos(t);
    const bool add_bos = bos >= 0 && (*boundary == 0 || s->full[0].ids[0] != bos);
    for (int c = 0; c < n; c++) {
        token_list *full = &s->full[c];
        if (full->n == *boundary || full->ids[full->n - 1] != eos)
            CUDPO_TRY(insert_id(full, full->n, eos));
        if (add_bos) CUDPO_TRY(insert_id(full, 0, bos));
    }
    *boundary += add_bos;
    return CUDPO_OK;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The record of n completions full[first], full[first + 1], .. that begin at `boundary`, the first unscored[..] ids of which
 * are no labels; *dropped, and no record, where the prompt leaves no room. */
static cudpo_status build_record(buffer *out, bool *dropped, const encode_scratch *s, int first,
                                 int n, int64_t boundary, const int64_t *unscored,
                                 const preference_row *row, bool label, const dataset_options *o)
{
    const int64_t limit = o->max_length > 0 ? o->max_length : INT32_MAX;
    int64_t prompt = boundary; /* of the completion that has the longest */
    for (int c = 0; c < n; c++)
        prompt = boundary + unscored[c] > prompt ? boundary + unscored[c] : prompt;
    *dropped = !o->keep_end && prompt >= limit;
    if (*dropped) return CUDPO_OK;

    cache_record r = {.row = row->index, .completions = n, .label = label};
    int64_t from[MAX_COMPLETIONS] = {0}, unseen = boundary; /* ids of the prompt that none sees */
    for (int c = 0; c < n; c++) {
        const int64_t length = s->full[first + c].n;
        const int64_t cut = o->keep_end && length > limit ? length - limit : 0;
        const int64_t skip = smaller(cut, boundary);
        from[c] = boundary + cut - skip;
        r.prompt_skip[c] = (int32_t)skip;
        unseen = smaller(unseen, skip);
        r.completion_length[c] = (int32_t)smaller(length - from[c], limit - (boundary - skip));
        /* Behind a shorter prompt, more of it may be wanted. */
        r.stored_length[c] = o->kind == ROW_LABEL ? (int32_t)smaller(length - from[c], limit)
                                                  : r.completion_length[c];
    }
    for (int c = 0; c < n; c++) {
        r.prompt_skip[c] -= (int32_t)unseen;
        r.unscored[c] = (int32_t)smaller(unscored[c], r.completion_length[c]);
    }
    r.prompt_length = (int32_t)(boundary - unseen);

    const size_t id = sizeof(int32_t);
    CUDPO_TRY(buffer_append(out, &r, sizeof r));
    CUDPO_TRY(buffer_append(out, s->full[first].ids + unseen, (size_t)r.prompt_length * id));
    for (int c = 0; c < n; c++)
        CUDPO_TRY(
            buffer_append(out, s->full[first + c].ids + from[c], (size_t)r.stored_length[c] * id));
    return buffer_append(out, "\0\0\0\0", out->size % 8);
}

cudpo_status encode_row(encoded_row *out, encode_scratch *s, const preference_row *row,
                        const tokenizer *t, const dataset_options *o, const char *where)
{
    const int texts = row->rejected != NULL ? 2 : 1;
    const bool unpair = texts == 2 && o->kind == ROW_LABEL && !o->chosen_only;
    int64_t boundary[MAX_COMPLETIONS] = {0}, unscored[MAX_COMPLETIONS] = {0};
    buffer_clear(&out->record[0]);
    buffer_clear(&out->record[1]);
    out->unaligned = out->dropped[0] = out->dropped[1] = false;

    s->prompt.n = 0;
    CUDPO_TRY(tokenizer_encode(t, &s->prompt, row->prompt, strlen(row->prompt),
                               o->rules == RULES_JOINED));
    for (int c = 0; c < texts; c++) {
        CUDPO_TRY(encode_full(s, &s->full[c], row->prompt, c == 0 ? row->chosen : row->rejected, t,
                              o->rules));
        if (s->full[c].n > INT32_MAX / 4) return cudpo_fail(CUDPO_EDATA, where, "row too long");
        boundary[c] = find_boundary(s, c, o->rules);
        out->unaligned = out->unaligned || common_prefix(&s->prompt, &s->full[c]) < s->prompt.n;
    }
    if (unpair) { /* each is a row of its own */
        CUDPO_TRY(build_record(&out->record[0], &out->dropped[0], s, 0, 1, boundary[0], unscored,
                               row, true, o));
        return build_record(&out->record[1], &out->dropped[1], s, 1, 1, boundary[1], unscored, row,
                            false, o);
    }
    /* A pair has one prompt: what both have in common, also where only chosen is used. */
    int64_t shared = boundary[0];
    if (texts == 2)
        shared = smaller(smaller(shared, boundary[1]), common_prefix(&s->full[0], &s->full[1]));
    const int used = o->chosen_only ? 1 : texts;
    if (o->rules ==
        RULES_ORPO) { /* the prompt is shared, but each completion has labels of its own */
        for (int c = 0; c < used; c++)
            unscored[c] = boundary[c] - shared;
        CUDPO_TRY(add_special_ids(s, used, &shared, t));
    }
    const bool label = texts == 2 || !row->labelled || row->label;
    return build_record(&out->record[0], &out->dropped[0], s, 0, used, shared, unscored, row, label,
                        o);
}
