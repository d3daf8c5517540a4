/* config_check.c - what no single key shows: keys that need or exclude each other, and values that tend to go wrong. */
#include "base/buffer.h"
#include "cudpo/config.h"
#include "preference/loss.h"
#include "train/config_table.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static cudpo_status impossible(const cudpo_config *c, const char *key, const char *reason)
{
    buffer where = {0};
    cudpo_status status = CUDPO_OK;
    if (c->by_hand >> config_line(config_find(key)) & 1)
        status = buffer_printf(&where, "--");
    else if (c->source != NULL)
        status = buffer_printf(&where, "%s: ", c->source);
    if (status == CUDPO_OK) status = buffer_printf(&where, "%s", key);
    status = cudpo_fail(CUDPO_ECONFIG, status == CUDPO_OK ? where.data : key, "%s", reason);
    buffer_free(&where);
    return status;
}

static bool is(const char *value, const char *wanted)
{
    return value != NULL && strcmp(value, wanted) == 0;
}

static cudpo_status check_loss(const cudpo_config *c)
{
    loss_kind kind;
    const loss_traits *loss = loss_traits_find(c->loss_type, &kind);
    if (loss == NULL) return impossible(c, "loss_type", "there is no such loss");
    if (c->label_smoothing > 0 && !is(c->loss_type, "sigmoid"))
        return impossible(c, "label_smoothing", "is only of loss_type sigmoid: set it to 0");
    if (c->ref_model_name_or_path != NULL && is(c->loss_type, "orpo"))
        return impossible(c, "ref_model_name_or_path",
                          "loss_type orpo has no reference: leave it out");
    if (c->precompute_ref_log_probs && !loss->reference)
        return impossible(c, "precompute_ref_log_probs",
                          "this loss_type has no reference: set it to false");
    if (c->ref_model_offload > 0 && !loss->reference && c->ref_model_name_or_path == NULL)
        return impossible(c, "ref_model_offload", "this loss_type has no reference: leave it out");
    if (c->ref_model_offload > 0 && c->precompute_ref_log_probs)
        return impossible(c, "ref_model_offload",
                          "precompute_ref_log_probs leaves no reference in memory: leave one out");
    if (is(c->truncation_mode, "keep_end") && (is(c->loss_type, "kto") || is(c->loss_type, "orpo")))
        return impossible(
            c, "truncation_mode",
            "loss_type kto and orpo cut completions at their end: set it to keep_start");
    if (!loss->kl) return CUDPO_OK;
    if (c->per_device_train_batch_size < 2)
        return impossible(
            c, "per_device_train_batch_size",
            "loss_type kto needs at least 2: its KL term pairs the prompts of a batch "
            "with the completions of others");
    if (c->eval_dataset != NULL && c->per_device_eval_batch_size < 2)
        return impossible(
            c, "per_device_eval_batch_size",
            "loss_type kto needs at least 2: its KL term pairs the prompts of a batch "
            "with the completions of others");
    if (is(c->train_sampling_strategy, "random"))
        return impossible(c, "train_sampling_strategy",
                          "loss_type kto reads its rows in order, as the KL term's pairs are made "
                          "before training: set it to sequential or leave it out");
    return CUDPO_OK;
}

static cudpo_status check_schedule(const cudpo_config *c)
{
    const bool min_lr = c->min_lr >= 0, rate = c->min_lr_rate >= 0;
    if (is(c->lr_scheduler_type, "cosine_with_min_lr")) {
        if (min_lr == rate)
            return impossible(
                c, "lr_scheduler_kwargs",
                "lr_scheduler_type cosine_with_min_lr needs either {\"min_lr\": R} or "
                "{\"min_lr_rate\": R}");
    } else if (min_lr || rate) {
        return impossible(c, "lr_scheduler_kwargs",
                          "is only of lr_scheduler_type cosine_with_min_lr: leave it out");
    }
    if (min_lr && c->learning_rate == 0.0)
        return impossible(c, "lr_scheduler_kwargs",
                          "min_lr is a share of learning_rate, which is 0: use min_lr_rate");
    if (c->warmup_ratio > 0 && c->warmup_steps > 0)
        return impossible(c, "warmup_ratio", "warmup_steps says the same: give one of them");
    return CUDPO_OK;
}

cudpo_status cudpo_config_check(const cudpo_config *c)
{
    if (c->model_name_or_path == NULL)
        return impossible(c, "model_name_or_path",
                          "is required: the Hugging Face folder of the model to train");
    if (c->train_dataset == NULL)
        return impossible(c, "train_dataset",
                          "is required: a .jsonl, .jsonl.gz or .json file of preferences");
    if (c->max_steps == 0)
        return impossible(c, "max_steps", "must be 1 or more, or -1 for num_train_epochs, not 0");
    if (c->bf16 > 0 && is(c->device, "cpu"))
        return impossible(c, "bf16", "the CPU computes in float32: set it to false");
    if (c->bf16 == 0 && !c->master_weights)
        return impossible(c, "master_weights", "is of bf16, which is false: leave it out");
    if (c->bf16 == 0 && !is(c->gradient_dtype, "float32"))
        return impossible(c, "gradient_dtype", "is of bf16, which is false: leave it out");
    CUDPO_TRY(check_loss(c));
    CUDPO_TRY(check_schedule(c));
    if (c->eval_dataset == NULL && !is(c->eval_strategy, "no"))
        return impossible(c, "eval_strategy", "needs an eval_dataset");
    if (c->eval_dataset == NULL && c->eval_on_start)
        return impossible(c, "eval_on_start", "needs an eval_dataset");
    return CUDPO_OK;
}

typedef struct advice {
    void (*warn)(void *context, const char *message);
    void *context;
} advice;

static void CUDPO_PRINTF(2, 3) advise(const advice *a, const char *fmt, ...)
{
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    a->warn(a->context, text);
}

/* Source of the bounds: what papers and TRL's examples train with (README, "Which loss, which values"). */
void cudpo_config_advise(const cudpo_config *c, void (*warn)(void *context, const char *message),
                         void *context)
{
    const advice a = {warn, context};
    loss_kind kind;
    if (loss_traits_find(c->loss_type, &kind) == NULL) return;
    const bool odds = kind == LOSS_ORPO;
    if (kind != LOSS_SFT && c->beta < 0.01)
        advise(&a, "beta %g is below 0.01: %s", c->beta,
               odds ? "the odds ratio hardly counts, and training tends to be supervised only"
                    : "the policy is hardly held to its reference and tends to drift into text of "
                      "no use while the loss looks well");
    if (kind != LOSS_SFT && c->beta > 1.0)
        advise(&a, "beta %g is above 1: %s", c->beta,
               odds ? "the odds ratio outweighs the likelihood of the chosen completion, which "
                      "tends to fall"
                    : "the policy is held so tightly to its reference that it tends to learn next "
                      "to nothing");
    /* A large epsilon turns AdamW into something near SGD, whose rates are of another kind. */
    if (c->learning_rate > 1e-4 && c->adam_epsilon <= 1e-5)
        advise(&a, "learning_rate %g is above 1e-4: %s", c->learning_rate,
               kind == LOSS_SFT
                   ? "right for a model that starts from random weights, but training all weights "
                     "of a trained one this fast tends to spoil it within few steps"
                   : "training all weights this fast tends to spoil the model within few steps; "
                     "usual are 1e-7 to 5e-6, for orpo up to 1e-5");
    if (c->learning_rate == 0.0) advise(&a, "learning_rate is 0: no weight will change");
    if (c->per_device_train_batch_size * c->gradient_accumulation_steps == 1)
        advise(&a, "one row to a step: gradients are so noisy that training tends to wander; usual "
                   "are 16 to 128 (per_device_train_batch_size x gradient_accumulation_steps)");
    if (c->label_smoothing > 0.3)
        advise(
            &a,
            "label_smoothing %g says that the labels are little better than chance: margins tend "
            "to stay near 0",
            c->label_smoothing);
    if (c->max_length > 0 && c->max_length < 32)
        advise(&a,
               "max_length %lld leaves little of most rows: cut completions tend to teach a model "
               "to stop early or never",
               (long long)c->max_length);
}
