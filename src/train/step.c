/* step.c - one optimizer step: the path of a pair from its row to the weights.  Start reading here. */
#include "train/trainer.h"

#include <time.h>

/* One pack: tokens to the device, what the reference says, forward, loss, backward.  Gradients accumulate. */
static cudpo_status run_pack(cudpo_trainer *t, const step_batch *b, const float *kl)
{
    const loss_parameters loss = trainer_loss_parameters(t, b->unit_scale, b->token_scale);
    CUDPO_TRY(pass_upload(&t->pass));
    CUDPO_TRY(trainer_reference(t, &t->train));
    CUDPO_TRY(trainer_labels(t, t->train.data, kl));
    return pass_train(&t->pass, &t->gradient, &t->policy, &loss, t->rewards, t->traits->kl);
}

static cudpo_status update(cudpo_trainer *t, double norm)
{
    const cudpo_config *c = t->config;
    const double factor = schedule_factor(t->schedule, t->step, t->warmup_steps, t->total_steps,
                                          c->min_lr_rate >= 0.0 ? c->min_lr_rate
                                          : c->min_lr >= 0.0    ? c->min_lr / c->learning_rate
                                                                : 0.0);
    const optimizer_settings settings = {.learning_rate = c->learning_rate * factor,
                                         .beta1 = c->adam_beta1,
                                         .beta2 = c->adam_beta2,
                                         .epsilon = c->adam_epsilon,
                                         .weight_decay = c->weight_decay,
                                         .max_grad_norm = c->max_grad_norm,
                                         .seed = (uint64_t)c->seed};
    t->last_learning_rate = settings.learning_rate;
    return optimizer_step(t->be, t->parameters, t->policy.count, &settings, norm, t->step + 1);
}

cudpo_status trainer_step(cudpo_trainer *t, step_batch *b, batch_metrics *m)
{
    /* Which pairs: a block of the epoch's permutation, whatever the size of a micro-batch. */
    CUDPO_TRY(trainer_batch(t, b, t->step));
    CUDPO_TRY(t->be->zero(t->be, t->gradient.all));
    CUDPO_TRY(
        trainer_kl(t, t->kl, &t->train, b->example, b->n, t->config->per_device_train_batch_size));

    /* Pack after pack: tokens, hidden states, scores, loss, gradients. */
    for (int64_t done = 0; done < b->n;) {
        const int64_t taken = trainer_fill(t, t->train.data, b->example + done, b->n - done,
                                           t->config->per_device_train_batch_size);
        CUDPO_TRY(run_pack(t, b, t->kl + done));
        metrics_take(t->units + done, &t->pass);
        done += taken;
    }
    for (int64_t i = 0; i < b->n; i++) {
        t->units[i].label = dataset_get(t->train.data, b->example[i]).label;
        t->units[i].kl = t->kl[i];
    }
    *m = metrics_of(t->units, b->n, t->loss, t->completions, t->rewards);

    /* Gradients to weights, unless something went wrong on the way. */
    CUDPO_TRY(optimizer_norm(&t->last_grad_norm, t->be, t->gradient.all));
    CUDPO_TRY(trainer_check_finite(t, b, m->value[METRIC_LOSS], t->last_grad_norm));
    if (t->step == 0) CUDPO_TRY(trainer_check_start(t, b, m->value[METRIC_LOSS]));
    CUDPO_TRY(update(t, t->last_grad_norm));

    t->step++;
    t->tokens_seen += b->tokens;
    t->last_epoch = b->epoch_done;
    metrics_add_step(&t->sums, m, t->units, b->n, t->config->per_device_train_batch_size, t->loss,
                     t->completions, t->rewards);
    return CUDPO_OK;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

cudpo_status cudpo_trainer_step(cudpo_trainer *t, cudpo_metrics *m)
{
    CUDPO_REQUIRE(t->step < t->total_steps);
    const double begin = seconds_now();
    step_batch b;
    batch_metrics values;
    CUDPO_TRY(trainer_step(t, &b, &values));
    if (m == NULL) return CUDPO_OK;
    *m = (cudpo_metrics){.step = t->step,
                         .loss = values.value[METRIC_LOSS],
                         .grad_norm = t->last_grad_norm,
                         .learning_rate = t->last_learning_rate,
                         .margin = values.value[METRIC_REWARDS_MARGINS],
                         .accuracy = values.value[METRIC_REWARDS_ACCURACIES],
                         .seconds = seconds_now() - begin};
    return CUDPO_OK;
}
