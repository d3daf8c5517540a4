/* config.h - everything that a training run can be told.  Keys, meanings and defaults are those of TRL's DPOConfig (KTOConfig,
 * ORPOConfig) and transformers' TrainingArguments where they exist; README.md lists the deliberate differences. */
#ifndef CUDPO_CONFIG_H
#define CUDPO_CONFIG_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Strings are owned by the configuration; NULL where not given. */
typedef struct cudpo_config {
    /* what is trained, on what, to where */
    char *model_name_or_path;
    char *ref_model_name_or_path; /* NULL: the initial policy */
    char *train_dataset;
    char *eval_dataset; /* NULL: no evaluation */
    char *output_dir;
    char *device; /* "auto", "cpu", "cuda" */
    int64_t bf16; /* 1, 0: compute in bfloat16 or in float32; -1 (null): in bfloat16 on a GPU */
    bool master_weights;  /* of bf16: weights are updated in float32 */
    char *gradient_dtype; /* of bf16: "float32", "bfloat16" */
    char *dtype; /* of the written weights: "float32", "bfloat16", "float16", "auto" as the input */

    /* the loss */
    char *loss_type;
    double beta;
    double label_smoothing;
    double desirable_weight, undesirable_weight; /* kto */
    bool precompute_ref_log_probs;
    /* 1, 0: the reference's layers come from the host's memory, or are on the device; -1 (null): decided by what fits */
    int64_t ref_model_offload;

    /* the data */
    int64_t max_length;    /* tokens of prompt + completion; 0 (null in JSON): no limit */
    char *truncation_mode; /* "keep_start", "keep_end" */
    char *
        train_sampling_strategy; /* "random", "sequential"; NULL: what TRL's trainer of the loss does */
    bool dataloader_drop_last;

    /* the optimizer */
    double learning_rate;
    char *lr_scheduler_type;
    double min_lr, min_lr_rate; /* of lr_scheduler_kwargs; negative: not given */
    double warmup_ratio;
    double warmup_steps; /* below 1: a share of all steps, as transformers 5 reads it */
    double adam_beta1, adam_beta2, adam_epsilon, weight_decay;
    double max_grad_norm;
    double num_train_epochs;
    int64_t max_steps; /* -1: num_train_epochs decides */
    int64_t per_device_train_batch_size, per_device_eval_batch_size;
    int64_t gradient_accumulation_steps;
    int64_t max_tokens_per_pack; /* 0 (null): chosen; changes memory and speed, not results */
    bool gradient_checkpointing;

    /* several ranks */
    char *ddp_backend;        /* "nccl", "mpi", "tcp"; NULL: chosen */
    double ddp_timeout;       /* s that ranks wait for one that stands still */
    double ddp_bucket_cap_mb; /* of gradients that are added up at a time; 0 (null): 25 */
    int64_t zero_stage;       /* 1: moments and master weights are shared out */

    /* what is reported and kept */
    int64_t logging_steps;
    bool logging_first_step;
    char *eval_strategy; /* "no", "steps", "epoch" */
    int64_t eval_steps;  /* 0 (null): logging_steps */
    bool eval_on_start;
    char *save_strategy; /* "no", "steps", "epoch" */
    int64_t save_steps;
    int64_t save_total_limit; /* 0 (null): keep all */
    char *
        resume_from_checkpoint; /* a checkpoint folder; "true": the newest in output_dir; NULL: start anew */
    int64_t seed;
    int64_t data_seed; /* -1 (null): seed */
    bool
        overwrite_output_dir; /* replace another run in output_dir: its checkpoints, metrics and model are removed */

    /* For messages. */
    char *source; /* the file that was loaded last; NULL */
    uint64_t
        by_hand; /* bit i: the key of line i of the table was set by cudpo_config_set() after that */
} cudpo_config;

/** A configuration of defaults.  Free with cudpo_config_free(). */
CUDPO_MUST_USE cudpo_status cudpo_config_create(cudpo_config *c);
void cudpo_config_free(cudpo_config *c);

/** Set keys from a JSON file.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_ECONFIG as "file: key: reason": malformed JSON, an unknown key (with the key
 *           that was probably meant), a wrong type, a value out of range. */
CUDPO_MUST_USE cudpo_status cudpo_config_load(cudpo_config *c, const char *path);

/** Set one key from text, as on a command line: `--key value`.
 *  In:      value  JSON or a bare word; NULL for a flag, which means true. */
CUDPO_MUST_USE cudpo_status cudpo_config_set(cudpo_config *c, const char *key, const char *value);

/** Check what no single key shows: required keys, impossible combinations.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG naming the keys, and the file where one was loaded. */
CUDPO_MUST_USE cudpo_status cudpo_config_check(const cudpo_config *c);

/** Call `warn` for each value outside what is known to work, with what tends to happen. */
void cudpo_config_advise(const cudpo_config *c, void (*warn)(void *context, const char *message),
                         void *context);

/** All values in force as a JSON object, in new memory; NULL if memory ran out. */
char *cudpo_config_print(const cudpo_config *c);

/** One line of help per key for `--help`: calls `line` with key, default as text, meaning. */
void cudpo_config_describe(void (*line)(void *context, const char *key, const char *value,
                                        const char *meaning),
                           void *context);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_CONFIG_H */
