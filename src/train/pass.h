/* pass.h - one pack through a model: the memory for it, the way to the device, and the results on the host.
 *
 * Training, evaluation, the reference, scoring: each fills pass->pack, uploads it, and runs one of the passes below. */
#ifndef CUDPO_TRAIN_PASS_H
#define CUDPO_TRAIN_PASS_H

#include "backend/backend.h"
#include "cudpo/status.h"
#include "data/pack.h"
#include "model/model.h"
#include "preference/head.h"

#include <stdbool.h>
#include <stdint.h>

/* How large packs may get, and what is asked of them. */
typedef struct pass_limits {
    int64_t tokens;        /* of a pack: the budget, or the largest group if that is larger */
    int64_t groups;        /* of a pack */
    int64_t largest_group; /* tokens of a group at most */
    int64_t positions;     /* of the longest sequence */
    int completions;       /* of a group */
    bool prompt;           /* prompts are scored too */
    bool plain;            /* no prefix sharing */
    workspace_kind kind;   /* of model_workspace_cut() */
    dtype type;            /* of weights and activations */
} pass_limits;

typedef struct pass {
    backend *be;
    const model_config *config;
    pass_limits limits;
    int sequences; /* of a group: completions, and the prompt where it is scored */

    pack pack;         /* on the host: fill it, then pass_upload() */
    model_batch batch; /* its copy in backend memory */
    head_batch scores;
    model_workspace ws;
    head_workspace head;
    void *memory; /* of every tensor here */
    size_t bytes;

    tensor
        reference; /* [S] f32: for pass_train() and pass_evaluate(), filled by pass_set_reference() */
    tensor label; /* [G] i32: filled by pass_set_labels() */
    tensor kl;    /* [G] f32: a view of the caller's, from pass_set_labels() */
    tensor all_token, all_position, all_segments, all_wanted, all_row_hidden, all_row_label,
        all_row_sequence, all_sequence_begin,
        all_tokens;      /* as large as can be; batch and scores are their first rows */
    int32_t *wanted;     /* [T] on the host: tokens whose hidden states some score row reads */
    int32_t *place;      /* [T] where each of them stands in that list */
    int32_t *row_hidden; /* [R] the same for the token of each score row */

    /* Results on the host. */
    float *logp;    /* [R] */
    float *score;   /* [S] */
    float *sums;    /* [S,ROW_STATS] */
    float *columns; /* [G,LOSS_COLUMNS] */
} pass;

/** Bytes that pass_create() allocates, and what its ops ask of the backend at most. */
CUDPO_MUST_USE cudpo_status pass_bytes(size_t *bytes, const model_config *c,
                                       const pass_limits *limits);
workload pass_workload(const model_config *c, const pass_limits *limits);

/* Rows of logits at a time. */
int64_t pass_chunk_rows(const model_config *c, const pass_limits *limits);

/** Allocate everything for packs within the limits; nothing is allocated later.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM saying how many bytes were wanted for what. */
CUDPO_MUST_USE cudpo_status pass_create(pass *p, backend *be, const model_config *c,
                                        const pass_limits *limits);
void pass_destroy(pass *p);

/** Copy the filled pack to the backend. */
CUDPO_MUST_USE cudpo_status pass_upload(pass *p);

/** Scores and statistics of the uploaded pack under a model, on the host: logp, score, sums. */
CUDPO_MUST_USE cudpo_status pass_score(pass *p, const model_weights *w);

/** Let `score` [S] be the reference's scores of the uploaded pack. */
CUDPO_MUST_USE cudpo_status pass_set_reference(pass *p, const float *score);

/** Let these be the labels [G] of the uploaded pack, and its KL estimates: kl [G] f32, in backend memory, is read when the
 *  loss is. */
CUDPO_MUST_USE cudpo_status pass_set_labels(pass *p, const int32_t *label, tensor kl);

/* Where the results of a pack go, of host_alloc() but for rows. */
typedef struct pass_results {
    float *columns; /* [G,LOSS_COLUMNS] */
    float *score;   /* [S] */
    float *sums;    /* [S,ROW_STATS] */
    int32_t *rows;  /* [S] score rows of each sequence: at once */
} pass_results;

/** Forward, loss, backward, enqueued.  Out: results, to be waited for.  In/Out: dw, accumulated. */
CUDPO_MUST_USE cudpo_status pass_train_later(pass *p, const pass_results *results,
                                             model_weights *dw, const model_weights *w,
                                             const loss_parameters *parameters, bool use_reference,
                                             bool use_labels);

/** Scores of the uploaded pack under a model into the first S rows of `score`, f32 in backend memory; enqueued, and nothing
 *  of it comes to the host.  Into pass->reference: they are the reference's. */
CUDPO_MUST_USE cudpo_status pass_score_later(pass *p, tensor score, const model_weights *w);

/** Forward, loss, backward.  Out: score, sums, columns on the host.  In/Out: dw, accumulated.
 *  In:      use_reference, use_labels  whether the setters above were called for this pack. */
CUDPO_MUST_USE cudpo_status pass_train(pass *p, model_weights *dw, const model_weights *w,
                                       const loss_parameters *parameters, bool use_reference,
                                       bool use_labels);

/** The loss of the scores that pass_score() left.  Out: columns. */
CUDPO_MUST_USE cudpo_status pass_evaluate(pass *p, const loss_parameters *parameters,
                                          bool use_reference, bool use_labels);

#endif /* CUDPO_TRAIN_PASS_H */
