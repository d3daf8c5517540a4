/* evaluate.c - metrics of a whole data set, in the order of the file, averaged as TRL's evaluation loop does:
 * the loss over examples, everything else over batches. */
#include "train/trainer.h"

/* Units [first, first + n) of the eval set, one batch of TRL's loop. */
static cudpo_status evaluate_batch(cudpo_trainer *t, const int64_t *list, int64_t n)
{
    double unit_scale, token_scale;
    trainer_scales(t, t->eval.data, list, n, &unit_scale, &token_scale);
    const loss_parameters loss = trainer_loss_parameters(t, unit_scale, token_scale);
    for (int64_t done = 0; done < n;) {
        const int64_t taken = trainer_fill(t, t->eval.data, list + done, n - done);
        CUDPO_TRY(pass_upload(&t->pass));
        CUDPO_TRY(trainer_reference(t, &t->eval));
        CUDPO_TRY(trainer_labels(t, t->eval.data, done));
        CUDPO_TRY(pass_score(&t->pass, &t->policy));
        CUDPO_TRY(pass_evaluate(&t->pass, &loss, t->rewards, t->traits->kl));
        metrics_take(t->units + done, &t->pass);
        done += taken;
    }
    return CUDPO_OK;
}

int64_t trainer_eval_count(const cudpo_trainer *t)
{
    const int64_t count = dataset_count(t->eval.data), B = t->config->per_device_eval_batch_size;
    return t->config->dataloader_drop_last ? count / B * B : count;
}

cudpo_status trainer_evaluate(cudpo_trainer *t, metric_sums *sums)
{
    const int64_t B = t->config->per_device_eval_batch_size;
    const int64_t count = trainer_eval_count(t);
    *sums = (metric_sums){{0}, {0}};
    for (int64_t first = 0; first < count; first += B) {
        const int64_t n = count - first < B ? count - first : B;
        for (int64_t i = 0; i < n; i++)
            t->order[i] = first + i;
        CUDPO_TRY(trainer_kl(t, t->kl, &t->eval, t->order, n, B));
        CUDPO_TRY(evaluate_batch(t, t->order, n));
        CUDPO_TRY(trainer_check_evaluation(t, t->order, n));
        /* The packs' results were waited for, and so was kl, which came before them. */
        for (int64_t i = 0; i < n; i++) {
            t->units[i].label = dataset_get(t->eval.data, t->order[i]).label;
            t->units[i].kl = t->kl[i];
        }
        batch_metrics m = metrics_of(t->units, n, t->loss, t->completions, t->rewards);
        sums->sum[METRIC_LOSS] += (double)n * m.value[METRIC_LOSS];
        sums->count[METRIC_LOSS] += (double)n;
        m.value[METRIC_LOSS] = 0.0;
        metric_sums rest = {{0}, {0}};
        metrics_add(&rest, &m, 1.0);
        for (int i = METRIC_LOSS + 1; i < METRICS; i++) {
            sums->sum[i] += rest.sum[i];
            sums->count[i] += rest.count[i];
        }
    }
    return CUDPO_OK;
}
