/* work.h - what a training step computes and moves, by formula: operations and bytes of each op that a pack goes through.
 *
 * The formulas follow forward.c, backward.c, head.c and step.c op by op; a test runs a step on ops that count what they are
 * called with.
 *
 * Operations: 2 M N K of a product; 4 A Q of attention and 10 A Q of its backward pass, for A visible (query, key) pairs; ops
 * that are bound by memory count none.  Bytes: every float matrix that an op reads or writes, once, and a row's statistics;
 * indices, vectors of weights and rotation tables, which stay in caches, are left out. */
#ifndef CUDPO_PLAN_WORK_H
#define CUDPO_PLAN_WORK_H

#include "data/pack.h"
#include "model/config.h"

#include <stdbool.h>
#include <stdint.h>

/* Layers see all before them, or a window. */
enum { WORK_FULL, WORK_WINDOW, WORK_VIEWS };

/* A pack, or several together. */
typedef struct work_counts {
    int64_t groups;    /* G */
    int64_t sequences; /* S */
    int64_t tokens;    /* T through the trunk */
    int64_t
        wanted; /* U of them go through the whole of the last layer; 0: nothing is scored, and all do */
    int64_t rows;                       /* R through the head */
    int64_t chunks;                     /* of rows, whose logits are in memory at a time */
    int64_t visible[WORK_VIEWS];        /* A: (query, key) pairs that the mask allows */
    int64_t visible_wanted[WORK_VIEWS]; /* of them, those whose query is wanted */
} work_counts;

typedef enum work_pass {
    WORK_REFERENCE, /* the reference: trunk and head, forward */
    WORK_FORWARD,   /* the policy's trunk */
    WORK_HEAD,      /* the policy's head, forward and backward, and the loss */
    WORK_RECOMPUTE, /* of gradient_checkpointing: the layers once more */
    WORK_BACKWARD,  /* the policy's trunk */
    WORK_OPTIMIZER,
    WORK_PASSES
} work_pass;

typedef enum work_kind {
    WORK_GEMM,
    WORK_HEAD_GEMM,
    WORK_ATTENTION,
    WORK_ATTENTION_BACKWARD,
    WORK_ELEMENTWISE, /* norms, RoPE, SwiGLU, biases, gathering, zeroing */
    WORK_LOGITS,      /* the pass from logits to log-probs and gradients */
    WORK_ADAMW,
    WORK_KINDS
} work_kind;

/* An op, `times` times: operations and bytes of each. */
typedef struct work_item {
    work_pass pass;
    work_kind kind;
    double times, operations, bytes;
    double m, n, k; /* of a product; else 0 */
} work_item;

typedef void (*work_sink)(void *context, const work_item *item);

/* What decides bytes beside shapes. */
typedef struct work_types {
    double activation; /* bytes of an element of weights and activations: 2 or 4 */
    double gradient;   /* of weights' gradients: 2 or 4 */
    bool master;       /* float32 weights beside those of 2 bytes */
    bool checkpoint;   /* the backward pass computes layers again */
} work_types;

/** Add the counts of a filled pack.
 *  In:      c           its sliding window;  chunk_rows  see head_chunk_rows().
 *  Returns: CUDPO_OK; CUDPO_ENOMEM, out unchanged. */
CUDPO_MUST_USE cudpo_status work_count_pack(work_counts *out, const pack *p, const model_config *c,
                                            int64_t chunk_rows);

/** Add the counts of one group as pack_add() lays it out: a prompt of P tokens, and n completions, of which each one's last
 *  token is a label only.  One chunk.
 *  In:  length  [n], each at least 1;  plain  every completion has a prompt of its own;  P at least 1. */
void work_count_group(work_counts *out, const model_config *c, int64_t P, const int64_t *length,
                      int n, bool plain);

/** Add the counts of every example of a data set, each in a pack of its own.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status work_count_dataset(work_counts *out, const dataset *d,
                                               const model_config *c, bool plain,
                                               bool score_prompt);

/** (query, key) pairs of queries first .. n-1 of a segment of n tokens behind `prompt` others, with a window (0: none): each
 *  sees min(window, prompt + i + 1) keys. */
int64_t work_visible(int64_t n, int64_t first, int64_t prompt, int64_t window);

/** Every op of a pack in a training step: the policy's forward and backward pass, and, with `reference`, the reference's. */
void work_train(const model_config *c, const work_counts *n, const work_types *types,
                bool reference, work_sink sink, void *context);

/** Every op of a forward pass with log-probs alone, as WORK_REFERENCE. */
void work_score(const model_config *c, const work_counts *n, const work_types *types,
                work_sink sink, void *context);

/** Every op of the update: zeroing and norm of the gradient, AdamW.  `shards` optimizers have an equal share each. */
void work_update(const model_config *c, const work_types *types, int64_t shards, work_sink sink,
                 void *context);

/** Bytes of the gradient that ranks add up. */
double work_gradient_bytes(const model_config *c, const work_types *types);

/** Weights of the trunk's products, and of the head's. */
int64_t work_trunk_weights(const model_config *c);
int64_t work_head_weights(const model_config *c);

/** Operations of a training step that any implementation has to do: model FLOPs.
 *  trunk 2 Nt T (3 + e), head 2 V C R (3 + e), attention 4 A Q L (3.5 + e); e is `reference`: forward passes of a reference
 *  for each of the policy's (1; of cached log-probs 1 / epochs; 0).  No credit for padding, prompt logits and recomputation,
 *  provided that n has none; none is taken off for what the last layer leaves out either.  A layer with a window has its own A. */
double work_useful(const model_config *c, const work_counts *n, double reference);

/* Sums of items by pass and kind; `total` is {0} at first. */
typedef struct work_sum {
    double operations, bytes, calls;
} work_sum;
typedef struct work_table {
    work_sum total[WORK_PASSES][WORK_KINDS];
} work_table;
void work_add(void *table, const work_item *item); /* a work_sink */

#endif /* CUDPO_PLAN_WORK_H */
