/* trainer.h - the state of a training run, and the stages of one step as step.c calls them. */
#ifndef CUDPO_TRAIN_TRAINER_H
#define CUDPO_TRAIN_TRAINER_H

#include "backend/backend.h"
#include "cudpo/config.h"
#include "cudpo/train.h"
#include "data/deal.h"
#include "data/dataset.h"
#include "model/config.h"
#include "model/weights.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "preference/loss.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"
#include "train/gather.h"
#include "train/metrics.h"
#include "train/parts.h"
#include "train/pass.h"
#include "train/ranks.h"
#include "train/reduce.h"
#include "train/reference_cache.h"

#include <stdbool.h>
#include <stdint.h>

/* A data set and what the reference says of it. */
typedef struct scored_data {
    dataset *data;
    reference_cache *cache; /* NULL: the reference is in memory, or there is none */
    int64_t *permutation;   /* [count] of `epoch`; NULL where the order is that of the file */
    int64_t epoch;          /* -1: none yet */
} scored_data;

/* One optimizer step's examples. */
typedef struct step_batch {
    const int64_t *example; /* [n] this rank's: indices into the data set */
    const int64_t *place;   /* [n] where each stands in the step */
    int64_t n;
    int64_t all;                    /* examples of all ranks */
    double imbalance;               /* the most work that a rank has, as a multiple of the mean */
    int64_t epoch;                  /* 0-based */
    double epoch_done;              /* after this step, as TRL logs it */
    double unit_scale, token_scale; /* see loss_parameters */
    int64_t tokens;                 /* of all completions with their prompts, as TRL counts */
} step_batch;

/* A step that is under way: what it works on, and where its results go. */
typedef struct step_flight {
    step_batch batch; /* its example and place are the next two */
    int64_t *order;   /* [units of a step] */
    int64_t *place;   /* [units of a step] */
    int64_t step;     /* 0-based */
    double learning_rate;
    pass_results results; /* of all its units */
    float *norm;          /* [1] of the gradient */
    float *asked;         /* [ASKED] what ranks were asked for by signals: how many of them */
    float *kl;            /* [units of a step]; of each unit's device batch */
    void *memory;         /* of the results, norm, asked and kl; the backend's, of the host */
} step_flight;

enum { FLIGHTS = MARKS };

/* What signals ask for. */
enum { ASKED_STOP, ASKED_SAVE, ASKED };

/* KTO's estimate for the units of a step, or of an evaluation batch, in backend memory.  Absent for other losses. */
typedef struct kl_estimate {
    tensor policy,
        reference; /* [units] f32 scores of the mismatched completions of this rank's units */
    tensor kl;     /* [units] f32 of this rank's units */
    /* The same of all ranks' units, by place; where there is one rank, the same tensors. */
    tensor all_policy, all_reference, all_kl;
    tensor place; /* [units] i32; absent where there is one rank */
    void *memory;
    int32_t *host_place; /* [units] */
} kl_estimate;

/* Bytes by part. */
typedef struct memory_parts {
    size_t weights, master, reference, gradients, moments, pack, backend;
} memory_parts;

/* What a run takes of the device's memory: memory_plan(). */
typedef struct memory_forecast {
    pass_limits limits;
    bool offload; /* the layers of the reference come from the host's memory */
    bool reduced; /* packs are smaller than would suit the device, to fit its memory */
    memory_parts parts;
    size_t bytes;     /* of all parts together */
    size_t available; /* that the device can give; SIZE_MAX: unknown */
} memory_forecast;

/* What a benchmark trains: a model and data that are in no file. */
typedef struct made_run {
    const model_config *model;
    dataset *data; /* of what loss_type takes */
    uint64_t seed; /* of the weights */
} made_run;

struct cudpo_trainer {
    const cudpo_config *config;
    run_ranks alone; /* where nobody else is there: what `ranks` is then */
    const run_ranks *ranks;
    communicator *communicator; /* NULL in a dry run */
    gradient_reducer reducer;
    bool zero;        /* zero_stage 1 of several ranks: moments and master weights are shared out */
    rank_share share; /* of this rank: then, elements */
    tensor norms;     /* [ranks] f32: then, of the parts of the gradient */
    int64_t batch_ranks; /* ranks whose batches make a step: those that the run began with */
    deal deal;           /* of a step, or of an evaluation batch */
    int64_t *list;       /* [units of those] of all ranks */
    tensor asked;        /* [ASKED] f32 */
    bool stop, save;     /* what some rank was asked for, as of the last step that was finished */
    buffer
        pending; /* unit_records of steps whose metrics are not in `sums` yet; empty where there is one rank */
    double imbalance;   /* sum over steps since the last log */
    int64_t imbalances; /* how many */
    const loss_traits *traits;
    loss_kind loss;
    schedule_kind schedule;
    bool dry; /* see trainer_prepare() */
    backend *be;
    model_config model;
    tokenizer *tokenizer;
    scored_data train, eval; /* eval.data NULL: none */
    int completions;         /* of a unit */
    bool rewards;            /* a reference is there */
    size_t
        free_at_open; /* bytes of the device, before anything of this run was there; 0: unknown */
    memory_forecast memory;
    bool reference_is_policy; /* the reference is the initial policy, so step 0 can check itself */

    dtype type;                      /* of weights and activations */
    model_weights policy, reference; /* reference empty: none, or cached */
    model_weights master; /* float32, or this rank's share; empty: the policy itself is updated */
    model_weights gradient, first, second;
    hash128 policy_fingerprint;      /* of the weights that the run began with */
    hash128 reference_fingerprint;   /* of its weights; 0 where there is none */
    optimizer_parameter *parameters; /* [parameter_count] of [policy.count] */
    int64_t parameter_count;
    pass pass;
    unit_result *units;     /* [units of a step, or of an evaluation batch] */
    float *reference_score; /* [S of a pack] */
    int32_t *label;         /* [G of a pack] */
    kl_estimate estimate;
    float *kl;              /* [units of an evaluation batch], of host_alloc() */
    int64_t *order, *place; /* [units of an evaluation batch] of this rank */
    tensor norm, factor;    /* [1] f32 of the step's gradient */
    part_clock parts;       /* of the step that is being enqueued */
    step_flight flight[FLIGHTS];
    int64_t begun, finished; /* steps of this process: those between are under way */

    char *from;             /* the checkpoint that is gone on from; NULL: none, or none found yet */
    checkpoint_state saved; /* its state; on every rank where `goes_on` */
    bool goes_on;           /* from a checkpoint that rank 0 found */

    int64_t step; /* optimizer steps done, or under way */
    int64_t total_steps, steps_per_epoch, batches_per_epoch, warmup_steps;
    int64_t tokens_seen;
    metric_sums sums; /* since the last log */
    double last_grad_norm, last_learning_rate, last_epoch;
};

/** Open a run; `train` false: for evaluation only, without gradients and moments.  In: ranks  outlives it. */
CUDPO_MUST_USE cudpo_status trainer_open(cudpo_trainer **out, const cudpo_config *config,
                                         const run_ranks *ranks, bool train);

/** The same of a model and data that were made: weights are random, and nothing is read or written but the cache folder.
 *  In:  made  its data are the trainer's from here on, whether it opens or not;
 *       config  its model, data and output_dir count for nothing. */
CUDPO_MUST_USE cudpo_status trainer_open_made(cudpo_trainer **out, const cudpo_config *config,
                                              const run_ranks *ranks, const made_run *made);

/** How rows become examples for a loss whose units have so many completions; without a cache. */
dataset_options trainer_data_options(const cudpo_config *c, loss_kind loss, int completions);

/** Model config, tokenizer, data, steps and order of a run, for a plan of it: no weights, no device memory, and no file is
 *  written but the cache of ids.  The next thing that it can do is memory_plan().
 *  In:  be  stands for the device; is closed with the trainer, also where this fails;
 *       ranks  of the run, of which this is to be one: `batch_ranks`. */
CUDPO_MUST_USE cudpo_status trainer_prepare(cudpo_trainer **out, const cudpo_config *config,
                                            backend *be, int64_t ranks);

/* Whether so many ranks can share out moments, as zero_stage 1 does: a checkpoint has a file of each. */
bool trainer_can_share(int64_t ranks);

/* How long a run is, as transformers counts; a step is gradient_accumulation_steps batches, the last of an epoch maybe fewer. */
typedef struct run_length {
    int64_t total_steps, steps_per_epoch, batches_per_epoch;
    int64_t examples_per_epoch; /* 0: dataloader_drop_last drops all, and there is no run */
} run_length;

/* In: count  examples of the data;  batch  of all ranks. */
run_length trainer_length(const cudpo_config *c, int64_t count, int64_t batch);

/** What is updated, checked and saved: master weights, or the policy itself. */
model_weights *trainer_weights(cudpo_trainer *t);

/** The policy's weights from the master weights, where there are any. */
CUDPO_MUST_USE cudpo_status trainer_refresh(cudpo_trainer *t);

/* ---- load.c ---- */

/** Policy, master weights and reference.  In: made  NULL: weights come from files. */
CUDPO_MUST_USE cudpo_status trainer_load_models(cudpo_trainer *t, bool train, const made_run *made);

/** Gradients and moments, and which run of elements is updated how. */
CUDPO_MUST_USE cudpo_status trainer_create_optimizer(cudpo_trainer *t);

/** The failure of a run that a signal stopped before its first step. */
CUDPO_MUST_USE cudpo_status trainer_stopped(const cudpo_trainer *t);

/* ---- batch.c: which examples, and how they are cut into packs ---- */

/** This rank's examples of optimizer step `step` (0-based) into `order`, their places in the step into `place`, both [units of
 *  a step], and the normalisers of the whole of it. */
CUDPO_MUST_USE cudpo_status trainer_batch(cudpo_trainer *t, step_batch *b, int64_t *order,
                                          int64_t *place, int64_t step);

/* This rank's of n examples of a list, into `order` and `place`.  Returns how many. */
int64_t trainer_deal(cudpo_trainer *t, const dataset *d, const int64_t *list, int64_t n,
                     int64_t *order, int64_t *place);

/* Multiply-adds of a token, a score row and a visible pair. */
deal_work trainer_work(const model_config *c);

/* Units of a batch of all ranks: what TRL's metrics are means over, and KTO's estimate. */
int64_t trainer_train_batch(const cudpo_trainer *t);
int64_t trainer_eval_batch(const cudpo_trainer *t);

/** Fill the pack with examples [begin, n) of a list, as many as fit.  Returns how many were taken, at least 1. */
int64_t trainer_fill(cudpo_trainer *t, const dataset *d, const int64_t *list, int64_t n);

/** Normalisers of a list of examples: 1 / units, 1 / tokens of a token mean. */
void trainer_scales(const cudpo_trainer *t, const dataset *d, const int64_t *list, int64_t n,
                    double *unit_scale, double *token_scale);

/* Units of a step, or of an evaluation batch if those are more. */
int64_t trainer_most_units(const cudpo_trainer *t);

/** Tokens of a list as TRL counts them: each completion with its prompt. */
int64_t trainer_tokens(const dataset *d, const int64_t *list, int64_t n);

loss_parameters trainer_loss_parameters(const cudpo_trainer *t, double unit_scale,
                                        double token_scale);

/* ---- reference.c: what the reference says ---- */

/** Scores of the uploaded pack's sequences under the reference, in memory or cached, into t->reference_score and the pass.
 *  Nothing where the run has none. */
CUDPO_MUST_USE cudpo_status trainer_reference(cudpo_trainer *t, const scored_data *d);

/** Score a whole data set under the reference in memory and write the cache, or map one that exists.
 *  Returns: CUDPO_OK; CUDPO_ESTOPPED where a signal came in between; CUDPO_EWRITE, CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status trainer_precompute(cudpo_trainer *t, scored_data *d);

/* ---- kl.c: KTO's estimate ---- */

/** Memory for t->estimate, and how many bytes that is. */
CUDPO_MUST_USE cudpo_status trainer_kl_create(cudpo_trainer *t);
size_t trainer_kl_bytes(const cudpo_trainer *t);

/** Labels and KL of the uploaded pack to the pass; its units are `unit` and the following of those trainer_kl() saw. */
CUDPO_MUST_USE cudpo_status trainer_labels(cudpo_trainer *t, const dataset *d, int64_t unit);

/** max(0, mean log-ratio of mismatched completions) for each device batch of `all` units of all ranks, enqueued: those of this
 *  rank, list [n] at place [n], into t->estimate.kl and into kl [n] of host_alloc(), which is to be waited for.  For other losses
 *  kl is 0.  Every rank calls it. */
CUDPO_MUST_USE cudpo_status trainer_kl(cudpo_trainer *t, float *kl, const scored_data *d,
                                       const int64_t *list, const int64_t *place, int64_t n,
                                       int64_t all, int64_t device_batch);

/* The example whose completion KTO pairs with the prompt of `index`: the one before it in its block of trainer_train_batch(),
 * the first takes the last's. */
example trainer_mismatched_example(const cudpo_trainer *t, const dataset *d, int64_t index);

/* ---- step.c ---- */

/** Enqueue the next optimizer step: at most FLIGHTS may be under way. */
CUDPO_MUST_USE cudpo_status trainer_begin(cudpo_trainer *t);

/* ---- finish.c ---- */

/** Wait for the oldest step that is under way, and look at what came of it.  Out: b, valid until the next begin; m; units.
 *  Returns: CUDPO_OK; CUDPO_ENUMERIC where it went wrong: it has changed no weight, and does not count, nor does any that was
 *           begun after it; such a one may have changed weights, and so ends the run. */
CUDPO_MUST_USE cudpo_status trainer_finish(cudpo_trainer *t, step_batch *b, batch_metrics *m);

/** Metrics of steps that were finished, of all ranks, into `sums`.  Every rank calls it after the same step. */
CUDPO_MUST_USE cudpo_status trainer_gather(cudpo_trainer *t);

/** Both, of one step. */
CUDPO_MUST_USE cudpo_status trainer_step(cudpo_trainer *t, step_batch *b, batch_metrics *m);

/* ---- check.c ---- */

/** Loss and gradient norm of a step (0-based) are finite: otherwise the message names step and rows. */
CUDPO_MUST_USE cudpo_status trainer_check_finite(const cudpo_trainer *t, const step_batch *b,
                                                 int64_t step, double loss, double norm);

/** The losses of `n` evaluated units, of examples list[0 .. n-1], are finite: otherwise the message names the row. */
CUDPO_MUST_USE cudpo_status trainer_check_evaluation(const cudpo_trainer *t, const int64_t *list,
                                                     int64_t n);

/** The first step of a run whose reference is its initial policy: every reward is 0 and the loss its analytic value. */
CUDPO_MUST_USE cudpo_status trainer_check_start(const cudpo_trainer *t, const step_batch *b,
                                                double loss);

/** No weight is NaN or Inf, nor so large that it might as well be. */
CUDPO_MUST_USE cudpo_status trainer_check_weights(const cudpo_trainer *t);

/* ---- evaluate.c ---- */

/* Examples of the eval set that count: a last batch that is not full is left out with dataloader_drop_last. */
int64_t trainer_eval_count(const cudpo_trainer *t);

/** Metrics of the whole eval set, as TRL's evaluation loop averages them: to `sums`. */
CUDPO_MUST_USE cudpo_status trainer_evaluate(cudpo_trainer *t, metric_sums *sums);

/* ---- resume.c ---- */

/** Write a checkpoint of this step, unless the weights are no numbers any more (CUDPO_ENUMERIC). */
CUDPO_MUST_USE cudpo_status trainer_save(cudpo_trainer *t);

/** Where a checkpoint is gone on from: its steps are made of as many ranks' batches as they were, unless the settings make up for
 *  another number of ranks.  Before steps are counted. */
CUDPO_MUST_USE cudpo_status trainer_recall_ranks(cudpo_trainer *t);

/** Before the reference's scores are computed: packs get the size of those of the checkpoint that is gone on from.  Where
 *  there is none, or a wrong one, nothing happens: trainer_resume() says so. */
CUDPO_MUST_USE cudpo_status trainer_recall_packs(cudpo_trainer *t);

/** Go on from the checkpoint that the configuration names, if it names one and there is one. */
CUDPO_MUST_USE cudpo_status trainer_resume(cudpo_trainer *t);

/* ---- identity.c ---- */

/* What makes this run this run: data, models, and settings that decide results.  One by one, for a checkpoint; and all of it. */
void trainer_parts(checkpoint_state *s, const cudpo_trainer *t);
hash128 trainer_run(const cudpo_trainer *t);

/* ---- loop.c ---- */

/* Will the run write a checkpoint after this step? */
bool trainer_saves_at(const cudpo_trainer *t, int64_t step);

#endif /* CUDPO_TRAIN_TRAINER_H */
