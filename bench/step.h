/* step.h - what a benchmark of whole steps has measured. */
#ifndef CUDPO_BENCH_STEP_H_
#define CUDPO_BENCH_STEP_H_

#include "base/buffer.h"
#include "cudpo/bench_step.h"
#include "model/config.h"
#include "train/parts.h"
#include "train/ranks.h"
#include "train/trainer.h"

#include <stdbool.h>
#include <stdint.h>

enum { STEP_LOSSES = 8 };

/* Lengths in tokens. */
typedef struct step_lengths {
    const char *file;          /* NULL: fixed */
    const char *tokenizer;     /* folder; NULL: 4 bytes a token */
    int64_t examples;          /* of the file */
    int64_t dropped;           /* of it, as their prompts fill max_length */
    int64_t taken;             /* that steps were made of, evenly spaced */
    double prompt, completion; /* means of those */
    int64_t longest_prompt, longest_completion;
} step_lengths;

typedef struct step_result {
    const cudpo_config *config; /* in force */
    run_ranks ranks;
    const char *name; /* of the model */
    model_config model;
    int64_t parameters;
    char device[320], backend[16];
    dtype type;
    bool pairs;     /* units are pairs; else single completions */
    bool reference; /* a forward pass of the reference is part of the step */
    step_lengths lengths;

    int64_t warm_up, steps;
    part_times *times;                 /* [steps] */
    double *host;                      /* [steps] seconds in which the host enqueued the step */
    double median, least, host_median; /* of a step */
    double total, wall;                /* of all steps, by the device's clock and by the host's */
    int64_t units,
        tokens; /* of all steps and ranks, as all below but memory; tokens as TRL counts them, each completion with its prompt */
    int64_t trunk_tokens, rows; /* of all steps: what goes through layers and head */
    double useful;              /* operations of all steps */
    double product;             /* operations per second of a large product of matrices .. */
    int64_t product_size;       /* .. of so many rows and columns */
    double peak;                /* the same by the data sheet; 0: not known */
    memory_forecast memory;     /* by part */
    size_t measured;            /* bytes that it really took */
    double loss[STEP_LOSSES];   /* of the first steps of all, warm-up included */
    int losses;
} step_result;

/* By the device's clock, with what lies between it and the next. */
double step_seconds(const part_times *t);

/** Write the results for a person, and as JSON. */
CUDPO_MUST_USE cudpo_status step_table(buffer *out, const step_result *r);
CUDPO_MUST_USE cudpo_status step_json(buffer *out, const step_result *r);

#endif /* CUDPO_BENCH_STEP_H_ */
