/* preference_loss.h - what the CPU and the CUDA twin of backend->preference_loss share: the contract, and one unit. */
#ifndef CUDPO_KERNELS_PREFERENCE_LOSS_H
#define CUDPO_KERNELS_PREFERENCE_LOSS_H

#include "cudpo/status.h"
#include "preference/loss.h"

/* A vector without gaps, on its natural boundary: what follows reads it as an array. */
static inline bool loss_is_array(tensor t, dtype type, int64_t n)
{
    return tensor_is(t, type, n, 1) && tensor_dense(t) && (uintptr_t)t.data % sizeof(float) == 0;
}

static inline bool loss_is_array_or_absent(tensor t, dtype type, int64_t n)
{
    return !tensor_present(t) || loss_is_array(t, type, n);
}

/* Rows on their natural boundary, which may stand apart, and no more of them than 64 bits can count. */
static inline bool loss_is_columns(tensor t, int64_t G)
{
    return tensor_is(t, DTYPE_F32, G, LOSS_COLUMNS) && (uintptr_t)t.data % sizeof(float) == 0 &&
           (G == 0 || t.stride <= INT64_MAX / 16 / G);
}

/* Completions and scored prompts of a unit, by the loss's line of the table. */
static inline int loss_completions(loss_kind kind)
{
#define LOSS_LINE(kind, name, completions, ...) completions,
    static const int completions[] = {LOSS_TABLE(LOSS_LINE)};
#undef LOSS_LINE
    return completions[kind];
}
static inline int loss_prompts(loss_kind kind)
{
#define LOSS_LINE(kind, name, completions, reference, prompt, ...) prompt,
    static const bool prompt[] = {LOSS_TABLE(LOSS_LINE)};
#undef LOSS_LINE
    return prompt[kind] ? 1 : 0;
}

static inline cudpo_status loss_check_parameters(const loss_parameters *p)
{
    CUDPO_REQUIRE(p->kind < LOSS_KINDS);
    CUDPO_REQUIRE(isfinite(p->beta) && p->beta > 0.0);
    CUDPO_REQUIRE(p->label_smoothing >= 0.0 && p->label_smoothing <= 1.0);
    CUDPO_REQUIRE(isfinite(p->desirable_weight));
    CUDPO_REQUIRE(isfinite(p->undesirable_weight));
    CUDPO_REQUIRE(isfinite(p->unit_scale));
    CUDPO_REQUIRE(isfinite(p->token_scale));
    return CUDPO_OK;
}

static inline cudpo_status loss_check_overlaps(tensor coefficient, tensor columns,
                                               const loss_inputs *in)
{
    CUDPO_REQUIRE(tensor_disjoint(coefficient, columns));
    CUDPO_REQUIRE(tensor_disjoint(coefficient, in->policy) &&
                  tensor_disjoint(coefficient, in->reference) &&
                  tensor_disjoint(coefficient, in->tokens) &&
                  tensor_disjoint(coefficient, in->label) && tensor_disjoint(coefficient, in->kl));
    CUDPO_REQUIRE(tensor_disjoint(columns, in->policy) && tensor_disjoint(columns, in->reference) &&
                  tensor_disjoint(columns, in->tokens) && tensor_disjoint(columns, in->label) &&
                  tensor_disjoint(columns, in->kl));
    return CUDPO_OK;
}

/* A unit has what its loss takes; of supervised pairs, the rejected completion is rewarded too, and has no slope. */
static inline cudpo_status loss_check(const loss_outputs *out, const loss_inputs *in,
                                      const loss_parameters *p)
{
    CUDPO_REQUIRE(out != NULL);
    CUDPO_REQUIRE(in != NULL);
    CUDPO_REQUIRE(p != NULL);
    CUDPO_TRY(loss_check_parameters(p));
    CUDPO_REQUIRE(in->completions == loss_completions(p->kind) ||
                  (in->completions == 2 && p->kind == LOSS_SFT));
    CUDPO_REQUIRE(in->sequences == in->completions + loss_prompts(p->kind));
    const int64_t S = in->policy.rows, G = S / in->sequences;
    CUDPO_REQUIRE(S >= 0 && S % in->sequences == 0 && loss_is_array(in->policy, DTYPE_F32, S));
    CUDPO_REQUIRE(loss_is_array(in->tokens, DTYPE_I32, S));
    CUDPO_REQUIRE(loss_is_array_or_absent(in->reference, DTYPE_F32, S));
    CUDPO_REQUIRE(loss_is_array_or_absent(in->label, DTYPE_I32, G));
    CUDPO_REQUIRE(loss_is_array_or_absent(in->kl, DTYPE_F32, G));
    CUDPO_REQUIRE(loss_is_array(out->coefficient, DTYPE_F32, S));
    CUDPO_REQUIRE(loss_is_columns(out->columns, G));
    return loss_check_overlaps(out->coefficient, out->columns, in);
}

/* The sequence of a unit that stands at a place of loss_unit, or -1: a scored prompt is always the third, so that losses
 * can count on its place. */
LOSS_FUNCTION int loss_sequence_at(int place, const loss_inputs *in)
{
    if (place == LOSS_MAX_SEQUENCES - 1)
        return in->sequences > in->completions ? in->completions : -1;
    return place < in->completions ? place : -1;
}

/* Unit g: read, evaluate, write.  Places are counted by constants, so that a GPU keeps them in registers. */
LOSS_FUNCTION void loss_evaluate_at(const loss_outputs *out, const loss_inputs *in,
                                    const loss_parameters *p, int64_t g)
{
    const float *policy = (const float *)in->policy.data;
    const float *reference = (const float *)in->reference.data;
    const int32_t *tokens = (const int32_t *)in->tokens.data;
    const int32_t *label = (const int32_t *)in->label.data;
    const float *kl = (const float *)in->kl.data;
    float *coefficient = (float *)out->coefficient.data;
    float *columns = (float *)out->columns.data + g * out->columns.stride;
    loss_unit u;
    loss_result r;
    u.label = label == NULL || label[g] != 0;
    u.kl = kl == NULL ? 0.0 : (double)kl[g];
    for (int place = 0; place < LOSS_MAX_SEQUENCES; place++) {
        const int i = loss_sequence_at(place, in);
        const int64_t s = g * in->sequences + i;
        u.policy[place] = i < 0 ? 0.0 : (double)policy[s];
        u.reference[place] = i < 0 || reference == NULL ? 0.0 : (double)reference[s];
        u.tokens[place] = i < 0 ? 0 : tokens[s];
    }
    loss_unit_evaluate(&r, &u, p);
    for (int place = 0; place < LOSS_MAX_SEQUENCES; place++) {
        const int i = loss_sequence_at(place, in);
        if (i >= 0) coefficient[g * in->sequences + i] = (float)r.coefficient[place];
    }
    for (int i = 0; i < LOSS_COLUMNS; i++)
        columns[i] = (float)r.column[i];
}

#endif /* CUDPO_KERNELS_PREFERENCE_LOSS_H */
