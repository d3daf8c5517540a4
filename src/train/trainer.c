/* trainer.c - opens and closes a training run: files in, memory laid out, nothing allocated after (but for a moment, where a GPU times a product). */
#include "train/trainer.h"
#include "base/log.h"
#include "train/cache_folder.h"
#include "train/device.h"
#include "train/memory.h"
#include "train/output.h"
#include "train/signals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dataset_options trainer_data_options(const cudpo_config *c, loss_kind loss, int completions)
{
    return (dataset_options){.kind = loss == LOSS_KTO ? ROW_LABEL : ROW_PAIR,
                             .chosen_only = loss == LOSS_SFT && completions == 1,
                             .max_length = c->max_length,
                             .keep_end = strcmp(c->truncation_mode, "keep_end") == 0,
                             .rules = loss == LOSS_ORPO ? RULES_ORPO : RULES_JOINED};
}

/* Where ids are cached.  A dry run writes nothing in output_dir: without a folder it does without a cache. */
static cudpo_status find_cache(char **folder, const cudpo_trainer *t)
{
    const cudpo_status status = cache_folder(folder, t->dry ? NULL : t->config->output_dir);
    if (status == CUDPO_OK || !t->dry) return status;
    cudpo_error_clear();
    return CUDPO_OK;
}

/* Of dataset_company.  A rank is silent for some seconds at the most, but while it reads or checks a whole file. */
static cudpo_status tell_ranks(void *context, void *all, const void *mine, size_t bytes)
{
    const cudpo_trainer *t = context;
    return ranks_exchange(t->ranks, all, mine, bytes, "tokenisation");
}

static double telling_period(const cudpo_config *c)
{
    const double most = 5.0;
    return c->ddp_timeout / 4.0 < most ? c->ddp_timeout / 4.0 : most;
}

static cudpo_status open_data(cudpo_trainer *t, scored_data *d, const char *path)
{
    const cudpo_config *c = t->config;
    dataset_options options = trainer_data_options(c, t->loss, t->completions);
    char *folder = NULL;
    CUDPO_TRY(find_cache(&folder, t));
    const dataset_company company = {.rank = t->ranks->place.rank,
                                     .size = t->ranks->place.size,
                                     .period = telling_period(c),
                                     .exchange = tell_ranks,
                                     .context = t};
    options.cache_dir = folder;
    options.company = &company;
    d->epoch = -1;
    const cudpo_status status = dataset_open(&d->data, path, t->tokenizer, &options);
    free(folder);
    CUDPO_TRY(status);
    if (dataset_dropped(d->data) > 0)
        log_warn("%s: %lld rows left out: their prompts alone reach max_length %lld", path,
                 (long long)dataset_dropped(d->data), (long long)c->max_length);
    return CUDPO_OK;
}

static cudpo_status open_order(cudpo_trainer *t)
{
    const char *strategy = t->config->train_sampling_strategy;
    const bool sequential =
        strategy != NULL ? strcmp(strategy, "sequential") == 0 : t->loss == LOSS_KTO;
    if (sequential) return CUDPO_OK;
    t->train.permutation =
        malloc((size_t)dataset_count(t->train.data) * sizeof *t->train.permutation);
    if (t->train.permutation == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "order of an epoch");
    return CUDPO_OK;
}

run_length trainer_length(const cudpo_config *c, int64_t count, int64_t batch)
{
    const int64_t G = c->gradient_accumulation_steps;
    const int64_t batches = c->dataloader_drop_last ? count / batch : (count + batch - 1) / batch;
    const int64_t steps = (batches + G - 1) / G;
    return (run_length){.total_steps = c->max_steps > 0
                                           ? c->max_steps
                                           : (int64_t)ceil(c->num_train_epochs * (double)steps),
                        .steps_per_epoch = steps,
                        .batches_per_epoch = batches,
                        .examples_per_epoch = c->dataloader_drop_last ? batches * batch : count};
}

static cudpo_status plan_steps(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const int64_t N = dataset_count(t->train.data), B = trainer_train_batch(t);
    const run_length run = trainer_length(c, N, B);
    if (run.examples_per_epoch == 0)
        return cudpo_fail(
            CUDPO_ECONFIG, c->train_dataset,
            "%lld examples are less than one batch of %lld, and dataloader_drop_last drops it",
            (long long)N, (long long)B);
    t->batches_per_epoch = run.batches_per_epoch;
    t->steps_per_epoch = run.steps_per_epoch;
    t->total_steps = run.total_steps;
    const double T = (double)t->total_steps;
    t->warmup_steps = (int64_t)(c->warmup_steps >= 1.0  ? c->warmup_steps
                                : c->warmup_steps > 0.0 ? ceil(T * c->warmup_steps)
                                                        : ceil(T * c->warmup_ratio));
    if (t->warmup_steps >= t->total_steps && t->warmup_steps > 0)
        log_warn("all %lld steps are warm-up (warmup_steps, warmup_ratio): learning_rate is never "
                 "reached",
                 (long long)t->total_steps);
    return CUDPO_OK;
}

/* bf16 or float32. */
static cudpo_status choose_type(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    t->type = c->bf16 > 0 || (c->bf16 < 0 && t->be->on_device) ? DTYPE_BF16 : DTYPE_F32;
    if (t->type == DTYPE_F32 || t->be->on_device) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "bf16", "the CPU computes in float32: set it to false");
}

static cudpo_status open_model(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    CUDPO_TRY(model_config_load(&t->model, c->model_name_or_path));
    CUDPO_TRY(tokenizer_load(&t->tokenizer, c->model_name_or_path));
    if (tokenizer_size(t->tokenizer) > t->model.vocab_size)
        return cudpo_fail(CUDPO_EDATA, c->model_name_or_path,
                          "the tokenizer has ids up to %lld, the model's vocab_size is %lld",
                          (long long)tokenizer_size(t->tokenizer) - 1,
                          (long long)t->model.vocab_size);
    return CUDPO_OK;
}

static cudpo_status open_files(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    CUDPO_TRY(open_model(t));
    CUDPO_TRY(open_data(t, &t->train, c->train_dataset));
    return c->eval_dataset != NULL ? open_data(t, &t->eval, c->eval_dataset) : CUDPO_OK;
}

static cudpo_status create_results(cudpo_trainer *t)
{
    const size_t n = (size_t)trainer_most_units(t), G = (size_t)t->pass.limits.groups;
    void *kl = NULL;
    CUDPO_TRY(t->be->host_alloc(t->be, &kl, n * sizeof *t->kl));
    t->kl = kl;
    t->units = calloc(n, sizeof *t->units);
    t->order = calloc(n, sizeof *t->order);
    t->place = calloc(n, sizeof *t->place);
    t->list = calloc(n, sizeof *t->list);
    t->label = calloc(G, sizeof *t->label);
    t->reference_score = calloc(G * LOSS_MAX_SEQUENCES, sizeof *t->reference_score);
    if (t->units == NULL || t->order == NULL || t->place == NULL || t->list == NULL ||
        t->label == NULL || t->reference_score == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "results of %zu units", n);
    CUDPO_TRY(deal_create(&t->deal, (int64_t)n, t->ranks->place.size));
    return trainer_kl_create(t);
}

/* Room for the results of `units` units. */
static cudpo_status create_flight(cudpo_trainer *t, step_flight *f, int64_t units)
{
    const size_t n = (size_t)units, S = n * (size_t)t->pass.sequences;
    f->order = calloc(n, sizeof *f->order);
    f->place = calloc(n, sizeof *f->place);
    f->results.rows = calloc(S, sizeof *f->results.rows);
    if (f->order == NULL || f->place == NULL || f->results.rows == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "results of %zu units", n);
    const size_t floats = n * LOSS_COLUMNS + S * (1 + ROW_STATS) + 1 + ASKED + n;
    CUDPO_TRY(t->be->host_alloc(t->be, &f->memory, floats * sizeof(float)));
    f->results.columns = f->memory;
    f->results.score = f->results.columns + n * LOSS_COLUMNS;
    f->results.sums = f->results.score + S;
    f->norm = f->results.sums + S * ROW_STATS;
    f->asked = f->norm + 1;
    f->kl = f->asked + ASKED;
    return CUDPO_OK;
}

static cudpo_status create_flights(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    for (int i = 0; i < FLIGHTS; i++)
        CUDPO_TRY(create_flight(t, &t->flight[i],
                                trainer_train_batch(t) * c->gradient_accumulation_steps));
    return CUDPO_OK;
}

static void destroy_flights(cudpo_trainer *t)
{
    if (t->be != NULL) (void)t->be->sync(t->be); /* a step that failed may have copies under way */
    for (int i = 0; i < FLIGHTS; i++) {
        step_flight *f = &t->flight[i];
        if (t->be != NULL) t->be->host_free(t->be, f->memory);
        free(f->results.rows);
        free(f->place);
        free(f->order);
    }
}

/* Cached scores take the place of the resident reference. */
static cudpo_status precompute(cudpo_trainer *t)
{
    if (!t->rewards || !t->config->precompute_ref_log_probs) return CUDPO_OK;
    CUDPO_TRY(trainer_precompute(t, &t->train));
    if (t->eval.data != NULL) CUDPO_TRY(trainer_precompute(t, &t->eval));
    model_weights_destroy(&t->reference);
    return CUDPO_OK;
}

cudpo_status trainer_stopped(const cudpo_trainer *t)
{
    return cudpo_fail(CUDPO_ESTOPPED, t->config->output_dir,
                      "stopped by a signal before the first step of this run: run the same command "
                      "again");
}

/* What decides the numbers, and which collectives follow one another. */
static cudpo_status rank_settings(hash128 *out, const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const hash128 run = trainer_run(t);
    const int64_t numbers[] = {c->zero_stage, c->logging_steps, c->logging_first_step,
                               c->eval_steps, c->eval_on_start, c->save_steps};
    const char *const words[] = {c->eval_strategy, c->save_strategy,
                                 c->ddp_backend == NULL ? "" : c->ddp_backend};
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    hash_add(h, &run, sizeof run);
    if (t->eval.data != NULL) {
        const hash128 rows = dataset_fingerprint(t->eval.data);
        hash_add(h, &rows, sizeof rows);
    }
    hash_add(h, &c->ddp_bucket_cap_mb, sizeof c->ddp_bucket_cap_mb);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        hash_add_int(h, numbers[i]);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        hash_add_string(h, words[i]);
    *out = hash_end(h);
    return CUDPO_OK;
}

/* All ranks are to train the same weights on the same data with the same settings. */
static cudpo_status check_ranks(const cudpo_trainer *t)
{
    const placement *p = &t->ranks->place;
    hash128 mine;
    if (p->size == 1) return CUDPO_OK;
    CUDPO_TRY(rank_settings(&mine, t));
    hash128 *all = calloc((size_t)p->size, sizeof *all);
    if (all == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)p->size);
    cudpo_status status =
        control_exchange(t->ranks->company, all, &mine, sizeof mine, "check of settings");
    for (int32_t r = 1; r < p->size && status == CUDPO_OK; r++)
        if (memcmp(&all[r], &all[0], sizeof mine) != 0)
            status = cudpo_fail(CUDPO_ECONFIG, t->config->output_dir,
                                "rank %d has another model, other data or other settings than rank "
                                "0: start all ranks with the same command and the same files",
                                (int)r);
    free(all);
    return status;
}

#define STAGE(call) \
    if (status == CUDPO_OK) status = signals_stop_wanted() ? trainer_stopped(t) : (call)

/* What adds up gradients, once all that takes long before the first step is done. */
static cudpo_status connect_ranks(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const double megabytes = c->ddp_bucket_cap_mb > 0.0 ? c->ddp_bucket_cap_mb : REDUCER_MEGABYTES;
    CUDPO_TRY(ranks_connect(&t->communicator, t->ranks, t->be));
    t->reducer = reducer_of(t->communicator, t->gradient.all, megabytes, t->zero);
    return CUDPO_OK;
}

bool trainer_can_share(int64_t ranks)
{
    return ranks <= CHECKPOINT_SHARDS;
}

static cudpo_status check_share(const cudpo_config *c, int64_t ranks)
{
    if (c->zero_stage == 0 || trainer_can_share(ranks)) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "zero_stage",
                      "1 is for at most %d ranks, and these are %lld: set it to 0",
                      CHECKPOINT_SHARDS, (long long)ranks);
}

static cudpo_status share_out(cudpo_trainer *t, bool train)
{
    const cudpo_config *c = t->config;
    const placement *p = &t->ranks->place;
    t->zero = train && c->zero_stage == 1 && p->size > 1;
    if (!t->zero) return CUDPO_OK;
    CUDPO_TRY(check_share(c, p->size));
    t->share = communicator_share(model_config_parameters(&t->model), p->size, p->rank);
    return CUDPO_OK;
}

/* The device, what is free on it, and who follows the parts of steps on it. */
static cudpo_status open_device(cudpo_trainer *t)
{
    CUDPO_TRY(
        device_open(&t->be, t->config->device, t->ranks->place.local_rank, t->config->output_dir));
    parts_follow(&t->parts, t->be);
    return t->be->available_memory(t->be, &t->free_at_open);
}

/* What is to be done, before any of the device's memory is asked for.  In: made  NULL: model and data are files. */
static cudpo_status prepare(cudpo_trainer *t, bool train, const made_run *made)
{
    const cudpo_config *config = t->config;
    cudpo_status status = CUDPO_OK;
    t->traits = loss_traits_find(config->loss_type, &t->loss);
    if (t->traits == NULL || !schedule_find(config->lr_scheduler_type, &t->schedule))
        status =
            cudpo_fail(CUDPO_ECONFIG, "config", "loss_type %s, lr_scheduler_type %s: not known",
                       config->loss_type, config->lr_scheduler_type);
    if (status == CUDPO_OK) {
        t->rewards = t->traits->reference || config->ref_model_name_or_path != NULL;
        /* With a reference, supervised training reports rewards, and those need both completions. */
        t->completions = t->loss == LOSS_SFT && t->rewards ? 2 : t->traits->completions;
    }
    STAGE(choose_type(t));
    log_alike(true); /* all ranks read the same files */
    if (made == NULL) STAGE(open_files(t));
    if (train && made == NULL) STAGE(trainer_recall_ranks(t));
    STAGE(plan_steps(t));
    if (status == CUDPO_OK && t->eval.data != NULL && trainer_eval_count(t) == 0)
        log_warn(
            "%s is less than one batch, and dataloader_drop_last drops it: nothing is evaluated",
            config->eval_dataset);
    log_alike(false);
    STAGE(open_order(t));
    return status;
}

/* In: ranks  NULL: this process alone. */
static cudpo_status create(cudpo_trainer **out, const cudpo_config *config, const run_ranks *ranks)
{
    cudpo_trainer *t = calloc(1, sizeof *t);
    *out = t;
    if (t == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "trainer");
    t->config = config;
    t->alone = ranks_alone(config);
    t->ranks = ranks != NULL ? ranks : &t->alone;
    t->batch_ranks = t->ranks->place.size;
    return CUDPO_OK;
}

cudpo_status trainer_prepare(cudpo_trainer **out, const cudpo_config *config, backend *be,
                             int64_t ranks)
{
    cudpo_trainer *t;
    *out = NULL;
    CUDPO_TRY(create(&t, config, NULL));
    t->be = be;
    t->dry = true;
    t->batch_ranks = ranks;
    cudpo_status status = check_share(config, ranks);
    if (status == CUDPO_OK) status = prepare(t, false, NULL);
    if (status == CUDPO_OK)
        *out = t;
    else
        cudpo_trainer_close(t);
    return status;
}

/* In: made  NULL: model and data are files. */
static cudpo_status open_run(cudpo_trainer **out, const cudpo_config *config,
                             const run_ranks *ranks, bool train, const made_run *made)
{
    cudpo_trainer *t;
    *out = NULL;
    cudpo_status status = create(&t, config, ranks);
    if (status != CUDPO_OK) {
        if (made != NULL) dataset_close(made->data);
        return status;
    }
    if (made != NULL) {
        t->model = *made->model;
        t->train = (scored_data){.data = made->data, .epoch = -1};
    }
    status = open_device(t);
    STAGE(prepare(t, train, made));
    STAGE(share_out(t, train));
    STAGE(memory_plan(&t->memory, t, train));
    STAGE(trainer_load_models(t, train, made));
    if (train) STAGE(check_ranks(t));
    STAGE(pass_create(&t->pass, t->be, &t->model, &t->memory.limits));
    STAGE(create_results(t));
    if (train && made == NULL) STAGE(output_recall(t));
    if (train && made == NULL) STAGE(trainer_recall_packs(t));
    STAGE(precompute(t));
    if (train) STAGE(trainer_create_optimizer(t));
    if (train) STAGE(create_flights(t));
    if (train) STAGE(connect_ranks(t));
    STAGE(CUDPO_OK); /* a signal during the last one counts too */
    if (status != CUDPO_OK) {
        cudpo_trainer_close(t);
        return status;
    }
    *out = t;
    return CUDPO_OK;
}

#undef STAGE

cudpo_status trainer_open(cudpo_trainer **out, const cudpo_config *config, const run_ranks *ranks,
                          bool train)
{
    return open_run(out, config, ranks, train, NULL);
}

cudpo_status trainer_open_made(cudpo_trainer **out, const cudpo_config *config,
                               const run_ranks *ranks, const made_run *made)
{
    return open_run(out, config, ranks, true, made);
}

int64_t cudpo_trainer_steps(const cudpo_trainer *t)
{
    return t->total_steps;
}

static void close_data(scored_data *d)
{
    reference_cache_close(d->cache);
    free(d->permutation);
    dataset_close(d->data);
}

void cudpo_trainer_close(cudpo_trainer *t)
{
    if (t == NULL) return;
    communicator_close(t->communicator);
    destroy_flights(t);
    if (t->be != NULL) {
        t->be->free(t->be, t->norm.data);
        t->be->free(t->be, t->estimate.memory);
        t->be->host_free(t->be, t->kl);
    }
    buffer_free(&t->pending);
    free(t->estimate.host_place);
    deal_free(&t->deal);
    free(t->reference_score);
    free(t->label);
    free(t->list);
    free(t->place);
    free(t->order);
    free(t->units);
    free(t->parameters);
    free(t->from);
    pass_destroy(&t->pass);
    model_weights_destroy(&t->second);
    model_weights_destroy(&t->first);
    model_weights_destroy(&t->gradient);
    model_weights_destroy(&t->reference);
    model_weights_destroy(&t->master);
    model_weights_destroy(&t->policy);
    close_data(&t->eval);
    close_data(&t->train);
    tokenizer_free(t->tokenizer);
    parts_leave(&t->parts);
    if (t->be != NULL) t->be->close(t->be);
    free(t);
}
