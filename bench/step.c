/* step.c - opens a trainer on what is made for it, lets it step until times settle, and times more steps.
 *
 * A GPU is given the next step while it computes one, as in training, so a step lasts from its first stamp to that of the next
 * one, and the host's time is told apart. */
#include "bench/step.h"
#include "base/file.h"
#include "base/log.h"
#include "bench/machine.h"
#include "bench/models.h"
#include "bench/peak.h"
#include "data/lengths.h"
#include "plan/gpus.h"
#include "plan/work.h"
#include "train/cache_folder.h"
#include "train/device.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum {
    EPOCH_STEPS = 8,       /* steps of different examples, at most */
    FIXED_EPOCH_STEPS = 2, /* where lengths are fixed, and only ids differ */
    WARM_UP_LEAST = 2,     /* the first one times products, and touches memory for the first time */
    WARM_UP_MOST = 10,
    STEPS_LEAST = 5,
    STEPS_MOST = 1000,
    SEED = 1
};

static const double settled = 0.1;   /* of two steps in a row, which differ by less */
static const double patience = 30.0; /* seconds of warming up */
static const double enough = 10.0;   /* seconds to time */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- what is trained on ---- */

/* Of all ranks. */
static int64_t units_of_step(const step_result *r)
{
    const cudpo_config *c = r->config;
    return c->per_device_train_batch_size * c->gradient_accumulation_steps * r->ranks.place.size;
}

/* The tokenizer that counts: the folder that is named, or the model's own; NULL: none. */
static const char *tokenizer_of(const cudpo_bench_step *what)
{
    if (what->tokenizer != NULL || !file_is_folder(what->model)) return what->tokenizer;
    char *path = path_join(what->model, "tokenizer.json");
    const bool own = path != NULL && file_is_regular(path);
    free(path);
    return own ? what->model : NULL;
}

/* Lengths of the file's examples, as a run with this configuration has them. */
static cudpo_status read_lengths(length_list *out, step_lengths *l, const cudpo_config *c,
                                 const cudpo_bench_step *what)
{
    loss_kind loss;
    const loss_traits *traits = loss_traits_find(c->loss_type, &loss);
    dataset_options options = trainer_data_options(c, loss, traits->completions);
    tokenizer *t = NULL;
    char *folder = NULL;
    l->file = what->lengths;
    l->tokenizer = tokenizer_of(what);
    CUDPO_TRY(cache_folder(&folder, c->output_dir));
    options.cache_dir = folder;
    cudpo_status status = CUDPO_OK;
    if (l->tokenizer != NULL) status = tokenizer_load(&t, l->tokenizer);
    if (status == CUDPO_OK) status = lengths_read(out, l->file, t, &options);
    if (status == CUDPO_OK) {
        l->examples = out->count;
        l->dropped = out->dropped;
    }
    tokenizer_free(t);
    free(folder);
    return status;
}

/* Whole steps' worth of examples: of a file some that stand evenly spaced, or all again and again where a step has more. */
static cudpo_status choose_lengths(length_list *out, step_result *r, const cudpo_bench_step *what)
{
    length_list all = {0};
    step_lengths *l = &r->lengths;
    const int64_t units = units_of_step(r);
    int64_t steps = FIXED_EPOCH_STEPS;
    if (what->lengths != NULL) {
        CUDPO_TRY(read_lengths(&all, l, r->config, what));
        steps = all.count / units < 1 ? 1 : all.count / units;
        if (steps > EPOCH_STEPS) steps = EPOCH_STEPS;
    }
    *out = (length_list){.count = steps * units};
    out->lengths = calloc((size_t)out->count, sizeof *out->lengths);
    for (int64_t i = 0; i < out->count && out->lengths != NULL; i++) {
        const int32_t P = (int32_t)what->prompt, C = (int32_t)what->completion;
        out->lengths[i] = what->lengths == NULL    ? (example_lengths){P, {C, C}}
                          : out->count > all.count ? all.lengths[i % all.count]
                                                   : all.lengths[i * all.count / out->count];
    }
    lengths_free(&all);
    if (out->lengths != NULL) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "lengths of %lld examples", (long long)out->count);
}

static void summarise(step_lengths *l, const length_list *of, int completions)
{
    double prompts = 0.0, all = 0.0;
    l->taken = of->count;
    for (int64_t i = 0; i < of->count; i++) {
        const example_lengths *e = &of->lengths[i];
        prompts += e->prompt;
        if (e->prompt > l->longest_prompt) l->longest_prompt = e->prompt;
        for (int k = 0; k < completions; k++) {
            all += e->completion[k];
            if (e->completion[k] > l->longest_completion) l->longest_completion = e->completion[k];
        }
    }
    l->prompt = prompts / (double)of->count;
    l->completion = all / (double)(of->count * completions);
}

/* A data set of such examples, with random ids. */
static cudpo_status make_data(dataset **out, step_result *r, const cudpo_bench_step *what)
{
    const cudpo_config *c = r->config;
    length_list lengths = {0};
    loss_kind loss;
    const loss_traits *traits = loss_traits_find(c->loss_type, &loss);
    CUDPO_REQUIRE(traits != NULL);
    r->pairs = traits->completions == 2;
    CUDPO_TRY(choose_lengths(&lengths, r, what));
    summarise(&r->lengths, &lengths, traits->completions);
    const made_examples made = {.lengths = lengths.lengths,
                                .count = lengths.count,
                                .completions = traits->completions,
                                .vocabulary = r->model.vocab_size,
                                .seed = SEED};
    const cudpo_status status = dataset_make(out, &made);
    lengths_free(&lengths);
    return status;
}

/* ---- steps ---- */

/* Finish steps until `left` are under way.  Out: seen, [examples] how often each was in a step; NULL: not counted. */
static cudpo_status settle(step_result *r, cudpo_trainer *t, int64_t left, int64_t *seen)
{
    while (t->begun - t->finished > left) {
        step_batch b;
        batch_metrics m;
        CUDPO_TRY(trainer_finish(t, &b, &m));
        if (r->losses < STEP_LOSSES) r->loss[r->losses++] = m.value[METRIC_LOSS];
        if (seen == NULL) continue;
        r->units += b.all;
        r->tokens += b.tokens;
        for (int64_t i = 0; i < b.n; i++)
            seen[b.example[i]]++;
    }
    return CUDPO_OK;
}

/* What rank 0's clock says, on all ranks: they step together. */
static cudpo_status agree(const step_result *r, bool *more)
{
    return ranks_share(&r->ranks, more, sizeof *more, "next step");
}

/* Steps until two in a row take the same time for each of their tokens. */
static cudpo_status warm_up(step_result *r, cudpo_trainer *t)
{
    double before = 0.0, rate = 0.0, last = 0.0;
    const double start = now();
    for (r->warm_up = 0; r->warm_up < WARM_UP_MOST; r->warm_up++) {
        const double begin = now();
        const int64_t tokens = t->tokens_seen;
        bool more = r->warm_up < WARM_UP_LEAST ||
                    (fabs(rate - before) > settled * before && begin - start <= patience);
        CUDPO_TRY(agree(r, &more));
        if (!more) break;
        CUDPO_TRY(trainer_begin(t));
        CUDPO_TRY(settle(r, t, 0, NULL));
        before = rate;
        last = now() - begin;
        rate = last / (double)(t->tokens_seen - tokens);
    }
    log_info("%lld steps to warm up, %.3f s the last", (long long)r->warm_up, last);
    return CUDPO_OK;
}

/* So many steps; 0: enough of them. */
static cudpo_status timed_steps(step_result *r, cudpo_trainer *t, int64_t steps, int64_t *seen)
{
    const int64_t most = steps > 0 ? steps : STEPS_MOST, least = steps > 0 ? steps : STEPS_LEAST;
    const double begin = now();
    parts_time(&t->parts, r->times, most);
    for (;;) {
        bool more = r->steps < least || (r->steps < most && now() - begin < enough);
        CUDPO_TRY(agree(r, &more));
        if (!more) break;
        const double enqueue = now();
        CUDPO_TRY(trainer_begin(t));
        r->host[r->steps++] = now() - enqueue;
        CUDPO_TRY(settle(r, t, t->be->on_device ? 1 : 0, seen));
    }
    CUDPO_TRY(settle(r, t, 0, seen));
    r->wall = now() - begin;
    CUDPO_TRY(parts_sum(&t->parts));
    return device_check(t->be);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return (values[(n - 1) / 2] + values[n / 2]) / 2.0;
}

double step_seconds(const part_times *t)
{
    double seconds = t->between;
    for (int p = 0; p < STEP_PARTS; p++)
        seconds += t->part[p];
    return seconds;
}

static cudpo_status summarise_times(step_result *r)
{
    double *sorted = malloc((size_t)r->steps * sizeof *sorted);
    if (sorted == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "times");
    for (int64_t i = 0; i < r->steps; i++) {
        sorted[i] = step_seconds(&r->times[i]);
        r->total += sorted[i];
    }
    r->median = median_of(sorted, r->steps);
    r->least = sorted[0];
    memcpy(sorted, r->host, (size_t)r->steps * sizeof *sorted);
    r->host_median = median_of(sorted, r->steps);
    free(sorted);
    return CUDPO_OK;
}

/* Operations that the timed steps had to do, and what went through layers and head. */
static cudpo_status count_work(step_result *r, const cudpo_trainer *t, const int64_t *seen)
{
    const dataset *d = t->train.data;
    pack k;
    CUDPO_TRY(pack_create(&k, 1, dataset_longest(d), false, t->traits->prompt));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < dataset_count(d) && status == CUDPO_OK; i++) {
        const example e = dataset_get(d, i);
        work_counts one = {0};
        pack_clear(&k);
        if (!pack_add(&k, &e, i)) status = cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "example");
        if (status == CUDPO_OK) status = work_count_pack(&one, &k, &r->model, k.R);
        r->trunk_tokens += seen[i] * one.tokens;
        r->rows += seen[i] * one.rows;
        r->useful += (double)seen[i] * work_useful(&r->model, &one, r->reference ? 1.0 : 0.0);
    }
    pack_free(&k);
    return status;
}

/* What each rank did, together. */
static cudpo_status add_ranks(step_result *r)
{
    enum { SUMS = 3 + STEP_LOSSES };
    const int32_t n = r->ranks.place.size;
    double mine[SUMS] = {(double)r->trunk_tokens, (double)r->rows, r->useful};
    if (n == 1) return CUDPO_OK;
    memcpy(mine + 3, r->loss, sizeof r->loss); /* shares of a sum */
    double(*all)[SUMS] = calloc((size_t)n, sizeof *all);
    if (all == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)n);
    const cudpo_status status =
        control_exchange(r->ranks.company, all, mine, sizeof mine, "results");
    double sum[SUMS] = {0};
    for (int32_t k = 0; k < n; k++)
        for (int i = 0; i < SUMS; i++)
            sum[i] += all[k][i];
    r->trunk_tokens = (int64_t)sum[0];
    r->rows = (int64_t)sum[1];
    r->useful = sum[2];
    memcpy(r->loss, sum + 3, sizeof r->loss);
    free(all);
    return status;
}

/* Memory that the run takes now, when all of it is there. */
static cudpo_status measure_memory(step_result *r, const cudpo_trainer *t)
{
    size_t left = 0;
    struct rusage usage;
    r->memory = t->memory;
    if (t->be->on_device) {
        CUDPO_TRY(t->be->available_memory(t->be, &left));
        r->measured = t->free_at_open > left ? t->free_at_open - left : 0;
    } else if (getrusage(RUSAGE_SELF, &usage) == 0) {
        r->measured = (size_t)usage.ru_maxrss * 1024; /* Linux counts in KiB */
    }
    return CUDPO_OK;
}

static cudpo_status measure(step_result *r, cudpo_trainer *t, int64_t steps)
{
    r->times = calloc(STEPS_MOST, sizeof *r->times);
    r->host = calloc(STEPS_MOST, sizeof *r->host);
    int64_t *seen = calloc((size_t)dataset_count(t->train.data), sizeof *seen);
    cudpo_status status = CUDPO_OK;
    if (r->times == NULL || r->host == NULL || seen == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "times");
    if (status == CUDPO_OK) status = warm_up(r, t);
    if (status == CUDPO_OK) status = timed_steps(r, t, steps, seen);
    if (status == CUDPO_OK) status = summarise_times(r);
    if (status == CUDPO_OK) status = count_work(r, t, seen);
    if (status == CUDPO_OK) status = add_ranks(r);
    if (status == CUDPO_OK) status = measure_memory(r, t);
    free(seen);
    return status;
}

static cudpo_status train_and_measure(step_result *r, const cudpo_bench_step *what)
{
    cudpo_trainer *t = NULL;
    made_run made = {.model = &r->model, .seed = SEED};
    CUDPO_TRY(make_data(&made.data, r, what));
    CUDPO_TRY(trainer_open_made(&t, r->config, &r->ranks, &made));
    r->type = t->type;
    r->parameters = model_config_parameters(&r->model);
    r->reference = t->rewards && t->train.cache == NULL;
    snprintf(r->device, sizeof r->device, "%s", t->be->description);
    snprintf(r->backend, sizeof r->backend, "%s", t->be->name);
    const cudpo_status status = measure(r, t, what->steps);
    cudpo_trainer_close(t);
    return status;
}

/* Afterwards, when the memory is free again. */
static cudpo_status measure_peak(step_result *r)
{
    backend *be = NULL;
    CUDPO_TRY(device_open(&be, r->backend, r->ranks.place.local_rank, r->config->output_dir));
    const cudpo_status status = bench_product_peak(&r->product, &r->product_size, be, r->type);
    char name[128];
    int n;
    const gpu_facts *gpu = gpu_table(&n);
    bench_device_name(name, sizeof name, be);
    for (int i = 0; i < n; i++)
        if (gpu_is(&gpu[i], name)) r->peak = r->type == DTYPE_BF16 ? gpu[i].bf16 : gpu[i].f32;
    be->close(be);
    return status;
}

/* ---- the whole ---- */

static cudpo_status check(const cudpo_config *c, const cudpo_bench_step *what)
{
    if (c->ref_model_name_or_path != NULL)
        return cudpo_fail(CUDPO_ECONFIG, "ref_model_name_or_path",
                          "the reference of a benchmark is its initial policy: leave it out");
    if (what->lengths == NULL && what->tokenizer != NULL)
        return cudpo_fail(CUDPO_EUSAGE, "--tokenizer", "counts the tokens of --lengths FILE");
    if (what->prompt < 1 || what->completion < 1 || what->prompt > 1 << 24 ||
        what->completion > 1 << 24)
        return cudpo_fail(CUDPO_EUSAGE, what->completion < 1 ? "--completion" : "--prompt",
                          "%lld and %lld are no lengths of a prompt and a completion: both are 1 "
                          "to %d tokens",
                          (long long)what->prompt, (long long)what->completion, 1 << 24);
    if (what->steps < 0 || what->steps > STEPS_MOST)
        return cudpo_fail(CUDPO_EUSAGE, "--steps", "%lld is none of 0 to %d",
                          (long long)what->steps, STEPS_MOST);
    return cudpo_config_check(c);
}

static cudpo_status report(char **table, char **json, const step_result *r)
{
    buffer text = {0}, object = {0};
    cudpo_status status = step_table(&text, r);
    if (status == CUDPO_OK) status = step_json(&object, r);
    if (status != CUDPO_OK) {
        buffer_free(&text);
        buffer_free(&object);
    }
    *table = text.data;
    *json = object.data;
    return status;
}

cudpo_status cudpo_bench_step_run(char **table, char **json, const cudpo_config *config,
                                  const cudpo_bench_step *what)
{
    *table = *json = NULL;
    cudpo_config c = *config; /* a shallow copy: strings stay the caller's */
    char model[512], data[512], none[] = "no";
    CUDPO_REQUIRE(what->model != NULL);
    snprintf(model, sizeof model, "%s", what->model);
    snprintf(data, sizeof data, "%s", what->lengths != NULL ? what->lengths : "fixed lengths");
    c.model_name_or_path = model;
    c.train_dataset = data;
    c.eval_dataset = c.resume_from_checkpoint = NULL;
    c.eval_strategy = none;
    c.eval_on_start = false;
    c.max_steps = INT32_MAX; /* so the learning rate hardly moves */
    step_result r = {.config = &c, .name = what->model};
    CUDPO_TRY(check(&c, what));
    CUDPO_TRY(bench_model(&r.model, what->model));
    CUDPO_TRY(ranks_open(&r.ranks, &c, what->ranks));
    cudpo_status status = CUDPO_OK;
    if (what->file != NULL && ranks_first(&r.ranks)) status = file_check_writable(what->file);
    if (status == CUDPO_OK) status = train_and_measure(&r, what);
    if (status == CUDPO_OK && ranks_first(&r.ranks)) status = measure_peak(&r);
    if (status == CUDPO_OK && ranks_first(&r.ranks)) status = report(table, json, &r);
    if (status == CUDPO_OK) status = ranks_meet(&r.ranks, "end");
    free(r.host);
    free(r.times);
    return ranks_close(&r.ranks, status);
}

const char *cudpo_bench_model(int64_t i)
{
    return bench_model_name(i);
}
