/* head.h - from hidden states to scores, and from scores to gradients, in one pass over the logits.
 *
 * Score rows are taken in chunks of whole units, so that the logits of one chunk are all that exist at a time.  The
 * gradient of a row's log-prob, onehot - softmax, replaces its logits at once; the coefficient of its sequence, known a
 * moment later, scales rows of width C instead of rows of width V. */
#ifndef CUDPO_PREFERENCE_HEAD_H
#define CUDPO_PREFERENCE_HEAD_H

#include "backend/backend.h"
#include "base/arena.h"
#include "cudpo/status.h"
#include "preference/loss.h"

#include <stdint.h>

/* The score rows of a pack.  See data/pack.h. */
typedef struct head_batch {
    tensor row_hidden, row_label, row_sequence; /* [R] i32 */
    tensor sequence_begin;                      /* [S+1] i32 */
    tensor tokens;                              /* [S] i32 completion tokens, scored or not */
    const int32_t *host_sequence_begin;         /* [S+1] the same on the host */
    int completions, sequences;                 /* of a unit: S = units * sequences */
} head_batch;

/* Memory of the head, and its results, which hold until the next call. */
typedef struct head_workspace {
    tensor rows,
        drows; /* [R,C] gathered hidden states; their gradient, unscaled: of the activations' type */
    tensor logits;          /* [chunk,V] f32 */
    tensor logp;            /* [R] f32 log-prob of each label, nats */
    tensor stats;           /* [R,ROW_STATS] f32 */
    tensor scores;          /* [S] f32 sum of a sequence's log-probs */
    tensor sums;            /* [S,ROW_STATS] f32 sums of a sequence's statistics */
    tensor coefficient;     /* [S] f32 */
    tensor row_scale;       /* [R] f32 of token_logprob's gradient */
    tensor row_coefficient; /* [R] f32, times row_scale */
    tensor columns;         /* [G,LOSS_COLUMNS] f32 */
} head_workspace;

/* Rows of logits at a time: `budget` bytes of them, but at least the largest unit. */
int64_t head_chunk_rows(int64_t budget, int64_t vocab, int64_t largest_unit);

/* Chunks of up to `rows` that so many units are cut into; sequence_begin [units * sequences + 1]. */
int64_t head_chunks(const int32_t *sequence_begin, int64_t units, int sequences, int64_t rows);

/** Cut a workspace from an arena (a dry run counts).  In: the activations' type; capacities: score rows R, sequences S,
 *  units G. */
void head_workspace_cut(head_workspace *ws, arena *a, dtype type, int64_t R, int64_t S, int64_t G,
                        int64_t C, int64_t V, int64_t chunk_rows);

/** Score without gradients.
 *  Out:     ws->logp, stats, scores, sums.
 *  In:      hidden [T,C], head [V,C]. */
CUDPO_MUST_USE cudpo_status head_score(head_workspace *ws, backend *be, const head_batch *b,
                                       tensor hidden, tensor head);

/** Score, evaluate the loss, and run the head's backward pass.
 *  Out:     ws->logp, stats, scores, sums, coefficient, columns;  dhidden [T,C], overwritten.
 *  In/Out:  dhead [V,C], accumulated.
 *  In:      reference [S], label [G], kl [G]: each may be absent, see loss_inputs. */
CUDPO_MUST_USE cudpo_status head_loss(head_workspace *ws, tensor dhidden, tensor dhead, backend *be,
                                      const head_batch *b, tensor hidden, tensor head,
                                      tensor reference, tensor label, tensor kl,
                                      const loss_parameters *parameters);

/** The loss alone, of scores that head_score() left: for evaluation.  Out: ws->coefficient, columns. */
CUDPO_MUST_USE cudpo_status head_evaluate(head_workspace *ws, backend *be, const head_batch *b,
                                          tensor reference, tensor label, tensor kl,
                                          const loss_parameters *parameters);

#endif /* CUDPO_PREFERENCE_HEAD_H */
