/* batch.c - which examples make a step, and what their loss is divided by. */
#include "data/order.h"
#include "train/trainer.h"

/* The order of an epoch, computed once per epoch. */
static void shuffle(cudpo_trainer *t, int64_t epoch)
{
    scored_data *d = &t->train;
    if (d->permutation == NULL || d->epoch == epoch) return;
    const cudpo_config *c = t->config;
    order_shuffle(d->permutation, dataset_count(d->data),
                  (uint64_t)(c->data_seed >= 0 ? c->data_seed : c->seed), epoch);
    d->epoch = epoch;
}

cudpo_status trainer_batch(cudpo_trainer *t, step_batch *b, int64_t *order, int64_t step)
{
    const cudpo_config *c = t->config;
    const int64_t count = dataset_count(t->train.data), B = c->per_device_train_batch_size;
    const int64_t units = B * c->gradient_accumulation_steps;
    const int64_t epoch = step / t->steps_per_epoch, window = step % t->steps_per_epoch;
    const int64_t end = t->batches_per_epoch * B < count ? t->batches_per_epoch * B : count;
    const int64_t first = window * units, n = end - first < units ? end - first : units;

    shuffle(t, epoch);
    for (int64_t i = 0; i < n; i++)
        order[i] = t->train.permutation != NULL ? t->train.permutation[first + i] : first + i;
    *b = (step_batch){.example = order, .n = n, .epoch = epoch};
    const int64_t batches = window * c->gradient_accumulation_steps + (n + B - 1) / B;
    b->epoch_done = (double)epoch + (double)batches / (double)t->batches_per_epoch;
    trainer_scales(t, t->train.data, b->example, n, &b->unit_scale, &b->token_scale);
    b->tokens = trainer_tokens(t->train.data, b->example, n);
    return CUDPO_OK;
}

int64_t trainer_fill(cudpo_trainer *t, const dataset *d, const int64_t *list, int64_t n)
{
    pack_clear(&t->pass.pack);
    int64_t taken = 0;
    while (taken < n) {
        const example e = dataset_get(d, list[taken]);
        if (!pack_add(&t->pass.pack, &e, list[taken])) break;
        taken++;
    }
    return taken;
}

void trainer_scales(const cudpo_trainer *t, const dataset *d, const int64_t *list, int64_t n,
                    double *unit_scale, double *token_scale)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < n; i++) {
        const example e = dataset_get(d, list[i]);
        tokens +=
            e.completion_length[0] -
            (e.prompt_length == e.prompt_skip[0]); /* without a prompt the first is not scored */
        if (t->traits->prompt && e.prompt_length > 0) tokens += e.prompt_length - 1;
    }
    *unit_scale = 1.0 / (double)n;
    *token_scale = tokens > 0 ? 1.0 / (double)tokens : 0.0;
}

int64_t trainer_most_units(const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const int64_t step = c->per_device_train_batch_size * c->gradient_accumulation_steps;
    return step > c->per_device_eval_batch_size ? step : c->per_device_eval_batch_size;
}

int64_t trainer_tokens(const dataset *d, const int64_t *list, int64_t n)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < n; i++) {
        const example e = dataset_get(d, list[i]);
        for (int32_t k = 0; k < e.completions; k++)
            tokens += e.prompt_length - e.prompt_skip[k] + e.completion_length[k];
    }
    return tokens;
}

loss_parameters trainer_loss_parameters(const cudpo_trainer *t, double unit_scale,
                                        double token_scale)
{
    const cudpo_config *c = t->config;
    return (loss_parameters){.kind = t->loss,
                             .beta = c->beta,
                             .label_smoothing = c->label_smoothing,
                             .desirable_weight = c->desirable_weight,
                             .undesirable_weight = c->undesirable_weight,
                             .unit_scale = unit_scale,
                             .token_scale = token_scale};
}
