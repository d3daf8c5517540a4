/* pack.c - lays groups out as tokens, segments and score rows. */
#include "data/pack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENT_WORDS = 4 }; /* begin, length, prompt_begin, prompt_length */

/* Completions share a prompt only where they see the same part of it: truncation from the front may cut it at
 * another place for each. */
static bool shares_prompt(const example *e, bool plain)
{
    if (plain || e->completions == 1) return !plain;
    return e->prompt_skip[0] == e->prompt_skip[1];
}

/* Tokens of completion c that the model reads: not the last, which is a label only, unless there is no other. */
static int32_t read_of(const example *e, int32_t c)
{
    const int32_t n = e->completion_length[c];
    const bool alone = n == 1 && e->prompt_length == e->prompt_skip[c];
    return n == 0 || alone ? n : n - 1;
}

int64_t pack_group_tokens(const example *e, bool plain)
{
    const bool shared = shares_prompt(e, plain);
    int64_t tokens = 0;
    for (int32_t c = 0; c < e->completions; c++) {
        if (c == 0 || !shared) tokens += e->prompt_length - e->prompt_skip[c];
        tokens += read_of(e, c);
    }
    return tokens;
}

int64_t pack_sequences(const example *e, bool score_prompt)
{
    return e->completions + score_prompt;
}

static cudpo_status alloc_words(int32_t **out, int64_t n)
{
    *out = malloc((size_t)n * sizeof **out);
    return *out != NULL ? CUDPO_OK
                        : cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld words", (long long)n);
}

/* A token is the label of at most one score row, and at most one label of a sequence is not a token of the pack, so
 * R <= T + S.  Segments: a prompt and a completion each at most. */
static cudpo_status alloc_all(pack *p)
{
    const int64_t G = p->capacity_G, T = p->capacity_T, S = G * (MAX_COMPLETIONS + 1), R = T + S;
    CUDPO_TRY(alloc_words(&p->token, T));
    CUDPO_TRY(alloc_words(&p->position, T));
    CUDPO_TRY(alloc_words(&p->segment, G * 2 * MAX_COMPLETIONS * SEGMENT_WORDS));
    CUDPO_TRY(alloc_words(&p->row_hidden, R));
    CUDPO_TRY(alloc_words(&p->row_label, R));
    CUDPO_TRY(alloc_words(&p->row_sequence, R));
    CUDPO_TRY(alloc_words(&p->sequence_begin, S + 1));
    CUDPO_TRY(alloc_words(&p->sequence_tokens, S));
    p->group_example = malloc((size_t)G * sizeof *p->group_example);
    if (p->group_example == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld groups", (long long)G);
    return CUDPO_OK;
}

cudpo_status pack_create(pack *out, int64_t max_groups, int64_t max_tokens, bool plain,
                         bool score_prompt)
{
    *out = (pack){0};
    CUDPO_REQUIRE(max_groups >= 1 && max_groups <= INT32_MAX / 16);
    CUDPO_REQUIRE(max_tokens >= 1 && max_tokens <= INT32_MAX);
    pack p = {.plain = plain,
              .score_prompt = score_prompt,
              .capacity_G = max_groups,
              .capacity_T = max_tokens};
    const cudpo_status status = alloc_all(&p);
    if (status != CUDPO_OK) {
        pack_free(&p);
        return status;
    }
    pack_clear(&p);
    *out = p;
    return CUDPO_OK;
}

void pack_free(pack *p)
{
    free(p->token);
    free(p->position);
    free(p->segment);
    free(p->row_hidden);
    free(p->row_label);
    free(p->row_sequence);
    free(p->sequence_begin);
    free(p->sequence_tokens);
    free(p->group_example);
    *p = (pack){0};
}

void pack_clear(pack *p)
{
    p->G = p->S = p->T = p->R = p->N = 0;
    p->sequence_begin[0] = 0;
}

/* Tokens id[0 .. n-1] as one segment, which continues a prompt of prompt_length tokens (0: it is a prompt, or
 * there is none).  An empty run is no segment. */
static void add_segment(pack *p, const int32_t *id, int32_t n, int32_t prompt_begin,
                        int32_t prompt_length)
{
    if (n == 0) return;
    const int32_t begin = (int32_t)p->T;
    memcpy(p->token + begin, id, (size_t)n * sizeof *id);
    for (int32_t i = 0; i < n; i++)
        p->position[begin + i] = prompt_length + i;
    const int32_t segment[SEGMENT_WORDS] = {begin, n, prompt_length > 0 ? prompt_begin : begin,
                                            prompt_length};
    memcpy(p->segment + p->N * SEGMENT_WORDS, segment, sizeof segment);
    p->N++;
    p->T += n;
}

/* Labels id[0 .. n-1], of which all but perhaps the last are tokens from `begin` on; `before` is the
 * token that predicts the first, -1 where none does. */
static void add_rows(pack *p, const int32_t *id, int32_t n, int32_t begin, int32_t before)
{
    for (int32_t i = 0; i < n; i++) {
        const int32_t hidden = i == 0 ? before : begin + i - 1;
        if (hidden < 0) continue;
        p->row_hidden[p->R] = hidden;
        p->row_label[p->R] = id[i];
        p->row_sequence[p->R] = (int32_t)p->S;
        p->R++;
    }
}

/* The rows added since the sequence before are one, of n labels, those included that nothing predicts. */
static void end_sequence(pack *p, int32_t n)
{
    const int32_t rows = (int32_t)(p->R - p->sequence_begin[p->S]);
    p->sequence_tokens[p->S] = !p->score_prompt ? n : rows > 0 ? rows : 1;
    p->S++;
    p->sequence_begin[p->S] = (int32_t)p->R;
}

bool pack_add(pack *p, const example *e, int64_t index)
{
    const bool shared = shares_prompt(e, p->plain);
    assert(e->completions >= 1 && e->completions <= MAX_COMPLETIONS);
    assert(p->S == p->G * pack_sequences(e, p->score_prompt)); /* all groups have as many */
    if (p->G == p->capacity_G || pack_group_tokens(e, p->plain) > p->capacity_T - p->T) {
        assert(p->G > 0);
        return false;
    }
    const int32_t group_begin = (int32_t)p->T;
    int32_t prompt_begin = 0, prompt_length = 0, begin[MAX_COMPLETIONS], before[MAX_COMPLETIONS];
    for (int32_t c = 0; c < e->completions; c++) {
        if (c == 0 || !shared) {
            prompt_begin = (int32_t)p->T;
            prompt_length = e->prompt_length - e->prompt_skip[c];
            add_segment(p, e->prompt + e->prompt_skip[c], prompt_length, 0, 0);
        }
        begin[c] = (int32_t)p->T;
        before[c] = prompt_length > 0 ? prompt_begin + prompt_length - 1 : -1;
        add_segment(p, e->completion[c], read_of(e, c), prompt_begin, prompt_length);
        const int32_t u = e->unscored[c];
        add_rows(p, e->completion[c] + u, e->completion_length[c] - u, begin[c] + u,
                 u > 0 ? begin[c] + u - 1 : before[c]);
        end_sequence(p, e->completion_length[c] - u);
    }
    if (p->score_prompt) { /* as chosen has it */
        add_rows(p, e->prompt + e->prompt_skip[0], e->prompt_length - e->prompt_skip[0],
                 group_begin, -1);
        add_rows(p, e->completion[0], e->unscored[0], begin[0], before[0]);
        end_sequence(p, e->prompt_length - e->prompt_skip[0] + e->unscored[0]);
    }
    p->group_example[p->G] = index;
    p->G++;
    return true;
}
