/* train.h - open a trainer, step it, close it; or run a whole job.  The command line program uses only these headers. */
#ifndef CUDPO_TRAIN_H
#define CUDPO_TRAIN_H

#include "cudpo/config.h"
#include "cudpo/ranks.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cudpo_trainer cudpo_trainer;

/** What one optimizer step did.  Means are over the pairs of the whole step. */
typedef struct cudpo_metrics {
    int64_t step;         /* 1 after the first step */
    double loss;          /* nats */
    double grad_norm;     /* L2 norm before clipping */
    double learning_rate; /* that this step used */
    double margin;        /* mean of beta * (chosen - rejected) log-ratio */
    double accuracy;      /* share of pairs with margin > 0, in [0, 1] */
    double seconds;       /* wall clock of this step */
} cudpo_metrics;

/** Load model, reference and data; tokenise or map the cache; compute the reference's log-probs where configured; resume
 *  where configured.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG, CUDPO_ENOINPUT, CUDPO_EDATA, CUDPO_ENOMEM, CUDPO_EWRITE; within cudpo_train() also
 *           CUDPO_ESTOPPED; *out is NULL then. */
CUDPO_MUST_USE cudpo_status cudpo_trainer_open(cudpo_trainer **out, const cudpo_config *config);

/** Run one optimizer step: read the next batch, score it, update the policy.
 *  Out:     m  metrics of this step; may be NULL.
 *  Returns: CUDPO_OK; CUDPO_ENUMERIC where loss or gradient is not finite: the message names step and rows, the weights
 *           are those before the step.
 *  Bitwise repeatable on a machine for the same inputs, seed and configuration. */
CUDPO_MUST_USE cudpo_status cudpo_trainer_step(cudpo_trainer *t, cudpo_metrics *m);

int64_t cudpo_trainer_steps(const cudpo_trainer *t); /* of the whole run */
void cudpo_trainer_close(cudpo_trainer *t);

/** The whole job of `cudpo train`: open, self-check, steps with logging, evaluation and checkpoints, the final model
 *  folder in output_dir.  SIGTERM, SIGINT and SIGUSR1 save at the next step boundary and end with CUDPO_ESTOPPED; a
 *  second SIGTERM or SIGINT, two seconds later or more, ends the process at once.  SIGUSR2 saves and goes on. */
CUDPO_MUST_USE cudpo_status cudpo_train(const cudpo_config *config);

/** The same as one of several ranks, each of which calls it with the same configuration.  cudpo_train() is this with `ranks`
 *  NULL: the launcher's environment decides, and without one it is a single process.  Rank 0 writes output_dir, and reads
 *  checkpoints for all.
 *  Returns: as cudpo_train(); CUDPO_ERENDEZVOUS where the ranks do not find one another; CUDPO_EPEER where another is lost;
 *           what another failed of.  Messages name the rank. */
CUDPO_MUST_USE cudpo_status cudpo_train_ranks(const cudpo_config *config, const cudpo_ranks *ranks);

/** Metrics of config's model on its eval_dataset (or, without one, train_dataset), as JSON in new memory. */
CUDPO_MUST_USE cudpo_status cudpo_evaluate(char **json, const cudpo_config *config);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_TRAIN_H */
