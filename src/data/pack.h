/* pack.h - a micro-batch without padding: groups one after another, each with its prompt once.
 *
 *   tokens   | prompt 0 | chosen 0 | rejected 0 | prompt 1 | chosen 1 | ...
 *   position   0 .. P-1   P ..       P ..         0 ..
 *
 * A score row asks the model for the log-prob of one label: the first token of every completion is predicted by the
 * last prompt token (one score row per completion, sharing that hidden row), the others by the token before.
 * The last token of a completion is a label only: nothing follows it, so it is no token of the pack (unless it is
 * all that its group has).  Without a prompt the first token is not scored.  Where a completion has unscored tokens (see
 * example), its rows begin behind them, and those of chosen are rows of the prompt's sequence.  Score rows stand by
 * sequence: rows sequence_begin[s] .. sequence_begin[s+1]-1 belong to sequence s. */
#ifndef CUDPO_DATA_PACK_H
#define CUDPO_DATA_PACK_H

#include "cudpo/status.h"
#include "data/dataset.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pack {
    int64_t G, S, T, R, N; /* groups, sequences, tokens, score rows, segments in use */
    int32_t *token;        /* [T] */
    int32_t *position;     /* [T] */
    int32_t *segment;    /* [N,4] begin, length, prompt_begin, prompt_length: see backend/backend.h.
                            * An empty prompt or completion has none. */
    int32_t *row_hidden; /* [R] token index whose hidden state predicts the label */
    int32_t *row_label;  /* [R] token id */
    int32_t *row_sequence;   /* [R] */
    int32_t *sequence_begin; /* [S+1] */
    /* [S] what TRL divides by: tokens after truncation, scored or not; with score_prompt, as ORPO does, the scored ones, at
     * least 1. */
    int32_t *sequence_tokens;
    int64_t *group_example; /* [G] index into the dataset, as given to pack_add() */
    bool plain; /* no sharing: each completion has a prompt of its own (for comparison) */
    bool
        score_prompt; /* the prompt of a group is a sequence too, after its completions (ORPO's NLL): its
                        * rows predict tokens 1 .. P-1 of the prompt, where plain of the first copy */
    int64_t capacity_G, capacity_T; /* as created, or less */
} pack;

/** An empty pack.
 *  In:      max_groups, max_tokens  >= 1: how much it can hold.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, CUDPO_ENOMEM: *out is {0}. */
CUDPO_MUST_USE cudpo_status pack_create(pack *out, int64_t max_groups, int64_t max_tokens,
                                        bool plain, bool score_prompt);
void pack_free(pack *p);
void pack_clear(pack *p); /* empty, capacity kept */

/* True, having added it, where the group still fits; else the pack is unchanged.  A group that does not fit an empty
 * pack is a caller's bug, and so is one with another number of completions than those before it.
 * Where truncation from the front left the completions different prompts, the group is laid out plain. */
bool pack_add(pack *p, const example *e, int64_t index);

/* Tokens that a group will take: its prompt, and all but the last of each completion (as above). */
int64_t pack_group_tokens(const example *e, bool plain);

/* Sequences of a group: its completions, then its prompt where score_prompt.  All groups of a pack have as many:
 * sequence s of group g is g * pack_sequences(..) + s. */
int64_t pack_sequences(const example *e, bool score_prompt);

#endif /* CUDPO_DATA_PACK_H */
