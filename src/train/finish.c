/* finish.c - what came of a step: its metrics, and whether it may count. */
#include "train/device.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <time.h>

/* What came of a step. */
static cudpo_status look_at(cudpo_trainer *t, const step_flight *f, batch_metrics *m)
{
    const step_batch *b = &f->batch;
    metrics_take_results(t->units, b->n, &t->pass, &f->results);
    for (int64_t i = 0; i < b->n; i++) {
        t->units[i].label = dataset_get(t->train.data, b->example[i]).label;
        t->units[i].kl = f->kl[i];
    }
    *m = metrics_of(t->units, b->n, t->loss, t->completions, t->rewards);
    const double loss = m->value[METRIC_LOSS], norm = (double)*f->norm;
    CUDPO_TRY(trainer_check_finite(t, b, f->step, loss, norm));
    if (f->step == 0) CUDPO_TRY(trainer_check_start(t, b, loss));
    t->last_grad_norm = norm;
    t->last_learning_rate = f->learning_rate;
    t->last_epoch = b->epoch_done;
    t->tokens_seen += b->tokens;
    /* Two steps may end before the loop looks: what was asked after one of them stays asked. */
    t->stop = t->stop || f->asked[ASKED_STOP] > 0.0f;
    t->save = t->save || f->asked[ASKED_SAVE] > 0.0f;
    t->imbalance += b->imbalance;
    t->imbalances++;
    if (t->ranks->place.size > 1)
        return gather_keep(&t->pending, f->step, b->place, t->units, b->n);
    metrics_add_step(&t->sums, m, t->units, b->n, trainer_train_batch(t), t->loss, t->completions,
                     t->rewards);
    return CUDPO_OK;
}

cudpo_status trainer_gather(cudpo_trainer *t)
{
    unit_record *all;
    int64_t count;
    if (t->ranks->place.size == 1) return CUDPO_OK;
    CUDPO_TRY(gather_records(&all, &count, &t->pending, trainer_most_units(t), t->ranks));
    for (int64_t i = 0; i < count;) {
        int64_t n = 0;
        for (; i + n < count && all[i + n].batch == all[i].batch; n++)
            t->units[n] = all[i + n].result;
        const batch_metrics m = metrics_of(t->units, n, t->loss, t->completions, t->rewards);
        metrics_add_step(&t->sums, &m, t->units, n, trainer_train_batch(t), t->loss, t->completions,
                         t->rewards);
        i += n;
    }
    free(all);
    return CUDPO_OK;
}

cudpo_status trainer_finish(cudpo_trainer *t, step_batch *b, batch_metrics *m)
{
    const int mark = (int)(t->finished % FLIGHTS);
    const step_flight *f = &t->flight[mark];
    CUDPO_REQUIRE(t->finished < t->begun);
    CUDPO_TRY(t->be->wait(t->be, mark));
    CUDPO_TRY(ranks_status(t->ranks)); /* sums that were broken off are not used */
    *b = f->batch;
    const cudpo_status status = look_at(t, f, m);
    if (status == CUDPO_OK) {
        t->finished++;
    } else {
        t->step = f->step;
        t->begun = t->finished;
    }
    return status;
}

cudpo_status trainer_step(cudpo_trainer *t, step_batch *b, batch_metrics *m)
{
    CUDPO_TRY(trainer_begin(t));
    return trainer_finish(t, b, m);
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
    CUDPO_TRY(device_check(t->be));
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
