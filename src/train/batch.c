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

deal_work trainer_work(const model_config *c)
{
    const double C = (double)c->hidden_size, L = (double)c->num_hidden_layers;
    const double Q = (double)(c->num_attention_heads * c->head_dim);
    const double KV = (double)(c->num_key_value_heads * c->head_dim);
    return (deal_work){.token = L * C * (2.0 * Q + 2.0 * KV + 3.0 * (double)c->intermediate_size),
                       .row = C * (double)c->vocab_size,
                       .pair = L * 2.0 * Q};
}

int64_t trainer_deal(cudpo_trainer *t, const dataset *d, const int64_t *list, int64_t n,
                     int64_t *order, int64_t *place)
{
    const int64_t rank = t->ranks->place.rank;
    if (t->ranks->place.size == 1) {
        for (int64_t i = 0; i < n; i++) {
            order[i] = list[i];
            if (place != NULL) place[i] = i;
        }
        return n;
    }
    const deal_work work = trainer_work(&t->model);
    deal_out(&t->deal, d, list, n, &work);
    const int64_t first = t->deal.begin[rank], mine = t->deal.begin[rank + 1] - first;
    for (int64_t i = 0; i < mine; i++) {
        order[i] = list[t->deal.place[first + i]];
        place[i] = t->deal.place[first + i];
    }
    return mine;
}

int64_t trainer_train_batch(const cudpo_trainer *t)
{
    return t->config->per_device_train_batch_size * t->batch_ranks;
}

int64_t trainer_eval_batch(const cudpo_trainer *t)
{
    return t->config->per_device_eval_batch_size * t->batch_ranks;
}

cudpo_status trainer_batch(cudpo_trainer *t, step_batch *b, int64_t *order, int64_t *place,
                           int64_t step)
{
    const int64_t accumulation = t->config->gradient_accumulation_steps;
    const int64_t count = dataset_count(t->train.data), B = trainer_train_batch(t);
    const int64_t units = B * accumulation;
    const int64_t epoch = step / t->steps_per_epoch, window = step % t->steps_per_epoch;
    const int64_t end = t->batches_per_epoch * B < count ? t->batches_per_epoch * B : count;
    const int64_t first = window * units, n = end - first < units ? end - first : units;
    int64_t *list = t->ranks->place.size == 1 ? order : t->list;

    shuffle(t, epoch);
    for (int64_t i = 0; i < n; i++)
        list[i] = t->train.permutation != NULL ? t->train.permutation[first + i] : first + i;
    *b = (step_batch){.example = order, .place = place, .all = n, .epoch = epoch};
    b->n = trainer_deal(t, t->train.data, list, n, order, place);
    b->imbalance = t->ranks->place.size == 1 ? 1.0 : deal_imbalance(&t->deal);
    const int64_t batches = window * accumulation + (n + B - 1) / B;
    b->epoch_done = (double)epoch + (double)batches / (double)t->batches_per_epoch;
    trainer_scales(t, t->train.data, list, n, &b->unit_scale, &b->token_scale);
    b->tokens = trainer_tokens(t->train.data, list, n);
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
    const int64_t step = trainer_train_batch(t) * t->config->gradient_accumulation_steps;
    const int64_t evaluated = trainer_eval_batch(t);
    return step > evaluated ? step : evaluated;
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
