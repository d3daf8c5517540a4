/* step.c - one optimizer step: the path of a pair from its row to the weights.  Start reading here. */
#include "train/shares.h"
#include "train/signals.h"
#include "train/trainer.h"

/* Results of a step from unit `unit` on. */
static pass_results results_from(const cudpo_trainer *t, const step_flight *f, int64_t unit)
{
    const pass_results *r = &f->results;
    const int64_t sequence = unit * t->pass.sequences;
    return (pass_results){.columns = r->columns + unit * LOSS_COLUMNS,
                          .score = r->score + sequence,
                          .sums = r->sums + sequence * ROW_STATS,
                          .rows = r->rows + sequence};
}

/* One pack: tokens to the device, what the reference says, forward, loss, backward.  Gradients accumulate. */
static cudpo_status run_pack(cudpo_trainer *t, const step_flight *f, int64_t unit)
{
    const step_batch *b = &f->batch;
    const loss_parameters loss = trainer_loss_parameters(t, b->unit_scale, b->token_scale);
    const pass_results results = results_from(t, f, unit);
    CUDPO_TRY(pass_upload(&t->pass));
    CUDPO_TRY(trainer_reference(t, &t->train));
    CUDPO_TRY(trainer_labels(t, t->train.data, unit));
    return pass_train_later(&t->pass, &results, &t->gradient, &t->policy, &loss, t->rewards,
                            t->traits->kl);
}

/* Sums over all ranks: of gradients, and of what signals asked of any. */
static cudpo_status reduce(cudpo_trainer *t, step_flight *f)
{
    const float mine[ASKED] = {
        [ASKED_STOP] = signals_stop_wanted(), [ASKED_SAVE] = signals_save_wanted()};
    if (t->communicator->size > 1) CUDPO_TRY(backend_part(t->be, PART_REDUCE));
    CUDPO_TRY(reducer_finish(&t->reducer, &t->pass.ws));
    CUDPO_TRY(t->be->copy_in(t->be, t->asked.data, mine, sizeof mine));
    CUDPO_TRY(communicator_all_reduce(t->communicator, t->asked));
    CUDPO_TRY(communicator_join(t->communicator));
    return t->be->copy_out_later(t->be, f->asked, t->asked.data, sizeof mine);
}

/* Gradients to weights; a gradient that is no number changes nothing. */
static cudpo_status update(cudpo_trainer *t, step_flight *f)
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
                                         .seed = (uint64_t)c->seed};
    f->learning_rate = settings.learning_rate;
    CUDPO_TRY(backend_part(t->be, PART_OPTIMIZER));
    CUDPO_TRY(
        t->zero ? shares_clip(t)
                : t->be->clip(t->be, t->norm, t->factor, t->gradient.all, (float)c->max_grad_norm));
    CUDPO_TRY(t->be->copy_out_later(t->be, f->norm, t->norm.data, sizeof *f->norm));
    CUDPO_TRY(optimizer_step(t->be, t->parameters, t->parameter_count, &settings, t->factor,
                             t->step + 1));
    return t->zero ? shares_publish(t) : CUDPO_OK;
}

cudpo_status trainer_begin(cudpo_trainer *t)
{
    step_flight *f = &t->flight[t->begun % FLIGHTS];
    step_batch *b = &f->batch;
    CUDPO_REQUIRE(t->begun - t->finished < FLIGHTS);
    t->communicator->step = t->step + 1;
    CUDPO_TRY(parts_begin(&t->parts));
    /* Which pairs: a block of the epoch's permutation, whatever the size of a micro-batch. */
    CUDPO_TRY(trainer_batch(t, b, f->order, f->place, t->step));
    CUDPO_TRY(backend_part(t->be, PART_OPTIMIZER));
    CUDPO_TRY(t->be->zero(t->be, t->gradient.all));
    CUDPO_TRY(trainer_kl(t, f->kl, &t->train, b->example, b->place, b->n, b->all,
                         trainer_train_batch(t)));

    /* Pack after pack: tokens, hidden states, scores, loss, gradients; of the last, layer by layer to the other ranks. */
    for (int64_t done = 0; done < b->n;) {
        CUDPO_TRY(backend_part(t->be, PART_DATA));
        const int64_t taken = trainer_fill(t, t->train.data, b->example + done, b->n - done);
        if (done + taken == b->n) reducer_follow(&t->reducer, &t->pass.ws);
        CUDPO_TRY(run_pack(t, f, done));
        done += taken;
    }
    CUDPO_TRY(reduce(t, f));
    CUDPO_TRY(update(t, f));
    CUDPO_TRY(t->be->mark(t->be, (int)(t->begun % FLIGHTS)));
    CUDPO_TRY(parts_end(&t->parts));
    f->step = t->step++;
    t->begun++;
    return CUDPO_OK;
}
