/* evaluate.c - metrics of a whole data set, in the order of the file, averaged as TRL's evaluation loop does:
 * the loss over examples, everything else over batches. */
#include "train/trainer.h"

#include <stdlib.h>

/* This rank's n units of a batch whose normalisers are those of `loss`. */
static cudpo_status evaluate_units(cudpo_trainer *t, int64_t n, const loss_parameters *loss)
{
    for (int64_t done = 0; done < n;) {
        const int64_t taken = trainer_fill(t, t->eval.data, t->order + done, n - done);
        CUDPO_TRY(pass_upload(&t->pass));
        CUDPO_TRY(trainer_reference(t, &t->eval));
        CUDPO_TRY(trainer_labels(t, t->eval.data, done));
        CUDPO_TRY(pass_score(&t->pass, &t->policy));
        CUDPO_TRY(pass_evaluate(&t->pass, loss, t->rewards, t->traits->kl));
        metrics_take(t->units + done, &t->pass);
        done += taken;
    }
    return CUDPO_OK;
}

/* One batch of TRL's loop: units [first, first + n) of the eval set, of which this rank's results come into t->units.  Out: mine
 * how many. */
static cudpo_status evaluate_batch(cudpo_trainer *t, int64_t *mine, int64_t first, int64_t n)
{
    double unit_scale, token_scale;
    for (int64_t i = 0; i < n; i++)
        t->list[i] = first + i;
    trainer_scales(t, t->eval.data, t->list, n, &unit_scale, &token_scale);
    const loss_parameters loss = trainer_loss_parameters(t, unit_scale, token_scale);
    *mine = trainer_deal(t, t->eval.data, t->list, n, t->order, t->place);
    CUDPO_TRY(trainer_kl(t, t->kl, &t->eval, t->order, t->place, *mine, n, trainer_eval_batch(t)));
    CUDPO_TRY(evaluate_units(t, *mine, &loss));
    CUDPO_TRY(trainer_check_evaluation(t, t->order, *mine));
    /* The packs' results were waited for, and so was kl, which came before them. */
    for (int64_t i = 0; i < *mine; i++) {
        t->units[i].label = dataset_get(t->eval.data, t->order[i]).label;
        t->units[i].kl = t->kl[i];
    }
    return CUDPO_OK;
}

static void add_batch(metric_sums *sums, const cudpo_trainer *t, int64_t n)
{
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

/* Batches of records of all ranks. */
static cudpo_status add_records(metric_sums *sums, cudpo_trainer *t, buffer *own)
{
    unit_record *all;
    int64_t count;
    CUDPO_TRY(gather_records(&all, &count, own, trainer_most_units(t), t->ranks));
    for (int64_t i = 0; i < count;) {
        int64_t n = 0;
        for (; i + n < count && all[i + n].batch == all[i].batch; n++)
            t->units[n] = all[i + n].result;
        add_batch(sums, t, n);
        i += n;
    }
    free(all);
    return CUDPO_OK;
}

int64_t trainer_eval_count(const cudpo_trainer *t)
{
    const int64_t count = dataset_count(t->eval.data), B = trainer_eval_batch(t);
    return t->config->dataloader_drop_last ? count / B * B : count;
}

cudpo_status trainer_evaluate(cudpo_trainer *t, metric_sums *sums)
{
    const bool alone = t->ranks->place.size == 1;
    const int64_t B = trainer_eval_batch(t), count = trainer_eval_count(t);
    buffer own = {0};
    cudpo_status status = CUDPO_OK;
    *sums = (metric_sums){{0}, {0}};
    for (int64_t first = 0; first < count && status == CUDPO_OK; first += B) {
        const int64_t n = count - first < B ? count - first : B;
        int64_t mine = 0;
        status = evaluate_batch(t, &mine, first, n);
        if (status != CUDPO_OK) break;
        if (alone)
            add_batch(sums, t, n);
        else
            status = gather_keep(&own, first, t->place, t->units, mine);
    }
    if (status == CUDPO_OK && !alone) status = add_records(sums, t, &own);
    buffer_free(&own);
    return status;
}
