/* loop.c - a whole run: steps, and between them logging, evaluation, checkpoints and signals. */
#include "base/file.h"
#include "base/log.h"
#include "train/device.h"
#include "train/output.h"
#include "train/shares.h"
#include "train/signals.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EXTRA_METRICS = 5 }; /* grad_norm, learning_rate, epoch, num_tokens, imbalance */

/* Is something due after a step that happens every `every` steps, or at the ends of epochs? */
static bool due(const cudpo_trainer *t, int64_t step, const char *strategy, int64_t every)
{
    if (strcmp(strategy, "steps") == 0) return step % every == 0 || step == t->total_steps;
    if (strcmp(strategy, "epoch") == 0)
        return step % t->steps_per_epoch == 0 || step == t->total_steps;
    return false;
}

bool trainer_saves_at(const cudpo_trainer *t, int64_t step)
{
    const cudpo_config *c = t->config;
    return step <= t->total_steps && due(t, step, c->save_strategy, c->save_steps);
}

static cudpo_status log_train(cudpo_trainer *t, metric_sink *sink)
{
    metric out[METRICS + EXTRA_METRICS];
    char text[METRICS][METRIC_NAME];
    CUDPO_TRY(trainer_gather(t));
    int64_t n = metrics_mean(out, text, &t->sums, "");
    out[n++] = (metric){"grad_norm", t->last_grad_norm};
    out[n++] = (metric){"learning_rate", t->last_learning_rate};
    out[n++] = (metric){"epoch", t->last_epoch};
    out[n++] = (metric){"num_tokens", (double)t->tokens_seen};
    if (t->ranks->place.size > 1 && t->imbalances > 0)
        out[n++] = (metric){"imbalance", t->imbalance / (double)t->imbalances};
    t->imbalance = 0.0;
    t->imbalances = 0;
    t->sums = (metric_sums){{0}, {0}};
    return sink == NULL ? CUDPO_OK : metric_sink_log(sink, t->step, out, n);
}

static cudpo_status log_eval(cudpo_trainer *t, metric_sink *sink)
{
    metric_sums sums;
    metric out[METRICS + 2];
    char text[METRICS][METRIC_NAME];
    if (trainer_eval_count(t) == 0) return CUDPO_OK; /* dataloader_drop_last leaves nothing */
    CUDPO_TRY(trainer_evaluate(t, &sums));
    int64_t n = metrics_mean(out, text, &sums, "eval_");
    if (t->loss != LOSS_ORPO) out[n++] = (metric){"eval_num_tokens", (double)t->tokens_seen};
    out[n++] = (metric){"epoch", t->last_epoch};
    return sink == NULL ? CUDPO_OK : metric_sink_log(sink, t->step, out, n);
}

/* A checkpoint vouches for the metrics up to its step, so those reach the disk first. */
static cudpo_status save(cudpo_trainer *t, metric_sink *sink)
{
    if (sink != NULL) CUDPO_TRY(metric_sink_sync(sink));
    return trainer_save(t);
}

static bool log_due(const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    return t->step % c->logging_steps == 0 || (c->logging_first_step && t->step == 1) ||
           t->step == t->total_steps;
}

static bool eval_due(const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    return t->eval.data != NULL &&
           due(t, t->step, c->eval_strategy, c->eval_steps > 0 ? c->eval_steps : c->logging_steps);
}

static bool something_due(const cudpo_trainer *t)
{
    return t->step == 1 || log_due(t) || eval_due(t) || trainer_saves_at(t, t->step);
}

static cudpo_status after_step(cudpo_trainer *t, metric_sink *sink, bool asked)
{
    if (log_due(t)) CUDPO_TRY(log_train(t, sink));
    if (eval_due(t)) CUDPO_TRY(log_eval(t, sink));
    if (!asked && !trainer_saves_at(t, t->step)) return CUDPO_OK;
    return save(t, sink);
}

/* Finish steps until `left` are under way. */
static cudpo_status settle(cudpo_trainer *t, metric_sink *sink, int64_t left)
{
    while (t->begun - t->finished > left) {
        step_batch b;
        batch_metrics m;
        const int64_t step = t->flight[t->finished % FLIGHTS].step + 1;
        CUDPO_TRY(trainer_finish(t, &b, &m));
        /* Of several ranks the others' shares of the loss are not known yet: this one's stand for them. */
        if (sink != NULL && b.n > 0)
            metric_sink_progress(sink, step, m.value[METRIC_LOSS] * (double)b.all / (double)b.n,
                                 m.value[METRIC_REWARDS_ACCURACIES], b.all);
    }
    return left == 0 ? device_check(t->be) : CUDPO_OK;
}

static cudpo_status run_steps(cudpo_trainer *t, metric_sink *sink)
{
    if (t->step == 0 && t->config->eval_on_start && t->eval.data != NULL)
        CUDPO_TRY(log_eval(t, sink));
    while (t->step < t->total_steps) {
        CUDPO_TRY(trainer_begin(t));
        /* A GPU works on while the host looks at the step before. */
        const bool all = !t->be->on_device || something_due(t);
        CUDPO_TRY(settle(t, sink, all ? 0 : 1));
        const bool stop = t->stop, asked = t->save || stop;
        if (!all && !asked) continue;
        CUDPO_TRY(settle(t, sink, 0));
        CUDPO_TRY(after_step(t, sink, asked));
        if (stop && t->step < t->total_steps)
            return cudpo_fail(CUDPO_ESTOPPED, t->config->output_dir,
                              "stopped by a signal at step %lld of %lld, which is saved: run the "
                              "same command with --resume_from_checkpoint true to go on",
                              (long long)t->step, (long long)t->total_steps);
    }
    return CUDPO_OK;
}

static dtype output_type(const cudpo_trainer *t)
{
    const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < 3; i++)
        if (strcmp(t->config->dtype, dtype_name(types[i])) == 0) return types[i];
    return t->model.torch_dtype;
}

static void warn(void *context, const char *message)
{
    (void)context;
    log_warn("%s", message);
}

static cudpo_status write_model(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const model_weights *w;
    CUDPO_TRY(trainer_check_weights(t));
    CUDPO_TRY(shares_whole(&w, t, CHECKPOINT_WEIGHTS));
    if (!ranks_first(t->ranks)) return CUDPO_OK;
    CUDPO_TRY(model_folder_save(w, c->output_dir, c->model_name_or_path, output_type(t)));
    log_info("%s holds the trained model", c->output_dir);
    return CUDPO_OK;
}

/* Rank 0 alone writes: metrics, checkpoints and the model. */
static cudpo_status train(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const bool first = ranks_first(t->ranks);
    metric_sink *sink = NULL;
    bool finished = false;
    if (first) CUDPO_TRY(output_finished(&finished, t));
    CUDPO_TRY(ranks_share(t->ranks, &finished, sizeof finished, "search for a trained model"));
    if (finished) {
        log_info("%s holds the trained model already", c->output_dir);
        return CUDPO_OK;
    }
    CUDPO_TRY(trainer_resume(t));
    if (first) CUDPO_TRY(output_begin(t));
    CUDPO_TRY(ranks_meet(t->ranks, "begin of the output"));
    /* Into a folder that is the run's now. */
    CUDPO_TRY(device_keep(t->be, c->output_dir, t->ranks->place.rank));
    if (first) CUDPO_TRY(metric_sink_open(&sink, c->output_dir, t->step, t->total_steps));
    const cudpo_status status = run_steps(t, sink);
    metric_sink_close(sink);
    CUDPO_TRY(status);
    CUDPO_TRY(write_model(t));
    return ranks_meet(t->ranks, "end");
}

static cudpo_status open_and_train(const cudpo_config *config, run_ranks *ranks)
{
    cudpo_trainer *t = NULL;
    CUDPO_TRY(ranks_record(ranks));
    CUDPO_TRY(trainer_open(&t, config, ranks, true));
    const cudpo_status status = train(t);
    ranks->step = t->step;
    ranks->agreed = status == CUDPO_OK || (status == CUDPO_ESTOPPED && t->stop);
    if (status != CUDPO_OK && !ranks->agreed) ranks_fail(ranks, status);
    cudpo_trainer_close(t);
    return status;
}

static cudpo_status train_as_rank(const cudpo_config *config, run_ranks *ranks)
{
    output_folder output = {.lock = -1};
    if (ranks_first(ranks)) CUDPO_TRY(output_open(&output, config));
    cudpo_status status = signals_install(ranks->launcher);
    if (status == CUDPO_OK) {
        status = open_and_train(config, ranks);
        signals_restore(); /* a signal during the last save changes nothing: it is nearly done */
    }
    output_close(&output);
    return status;
}

cudpo_status cudpo_train_ranks(const cudpo_config *config, const cudpo_ranks *given)
{
    run_ranks ranks;
    CUDPO_TRY(cudpo_config_check(config));
    CUDPO_TRY(ranks_open(&ranks, config, given));
    log_alike(true);
    cudpo_config_advise(config, warn, NULL);
    log_alike(false);
    const cudpo_status status = train_as_rank(config, &ranks);
    return ranks_close(&ranks, status);
}

cudpo_status cudpo_train(const cudpo_config *config)
{
    return cudpo_train_ranks(config, NULL);
}

cudpo_status cudpo_trainer_open(cudpo_trainer **out, const cudpo_config *config)
{
    CUDPO_TRY(trainer_open(out, config, NULL, true));
    const cudpo_status status = trainer_resume(*out);
    if (status == CUDPO_OK) return CUDPO_OK;
    cudpo_trainer_close(*out);
    *out = NULL;
    return status;
}

cudpo_status cudpo_evaluate(char **json, const cudpo_config *config)
{
    cudpo_config c = *config; /* a shallow copy: strings stay the caller's */
    if (c.eval_dataset == NULL) c.eval_dataset = c.train_dataset;
    c.train_dataset = c.eval_dataset;
    if (c.eval_dataset == NULL)
        return cudpo_fail(CUDPO_ECONFIG, "eval_dataset", "is required: a file of preferences");
    CUDPO_TRY(cudpo_config_check(&c));
    cudpo_trainer *t = NULL;
    buffer out = {0};
    metric_sums sums;
    metric values[METRICS];
    char text[METRICS][METRIC_NAME];
    CUDPO_TRY(trainer_open(&t, &c, NULL, false));
    cudpo_status status =
        trainer_eval_count(t) > 0
            ? trainer_evaluate(t, &sums)
            : cudpo_fail(CUDPO_ECONFIG, c.eval_dataset,
                         "is less than one batch, and dataloader_drop_last drops it");
    if (status == CUDPO_OK) status = device_check(t->be);
    const int64_t n = status == CUDPO_OK ? metrics_mean(values, text, &sums, "eval_") : 0;
    if (status == CUDPO_OK) status = buffer_append(&out, "{", 1);
    for (int64_t i = 0; i < n && status == CUDPO_OK; i++) {
        status = buffer_printf(&out, "\n  \"%s\": ", values[i].name);
        if (status == CUDPO_OK) status = buffer_json_number(&out, values[i].value);
        if (status == CUDPO_OK) status = buffer_append(&out, ",", 1);
    }
    if (status == CUDPO_OK)
        status =
            buffer_printf(&out, "\n  \"examples\": %lld\n}\n", (long long)trainer_eval_count(t));
    cudpo_trainer_close(t);
    if (status != CUDPO_OK) buffer_free(&out);
    *json = out.data;
    return status;
}
