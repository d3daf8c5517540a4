/* plan.c - opens a run without a device, and looks at it from all sides. */
#include "plan/plan.h"
#include "base/log.h"
#include "data/order.h"
#include "train/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *plan_limit_name(plan_limit limit)
{
    static const char *const names[] = {"none", "batch", "network", "memory"};
    return names[limit];
}

/* Defaults, and what makes no sense. */
static cudpo_status fill_options(plan *p, const cudpo_plan_options *o)
{
    cudpo_plan_options *f = &p->options;
    *f = *o;
    if (f->gpu == NULL) f->gpu = strcmp(p->config->device, "cpu") == 0 ? "cpu" : "h100";
    if (f->gpus == 0) f->gpus = 1;
    if (f->gpus < 1 || f->gpus > PLAN_GPUS)
        return cudpo_fail(CUDPO_EUSAGE, "--gpus", "%lld is not from 1 to %d", (long long)f->gpus,
                          PLAN_GPUS);
    if (f->nodes < 0 || f->nodes > f->gpus)
        return cudpo_fail(CUDPO_EUSAGE, "--nodes", "%lld nodes for %lld GPUs", (long long)f->nodes,
                          (long long)f->gpus);
    if (f->nodes == 0) {
        f->nodes = f->gpus <= PLAN_NODE ? 1 : f->gpus / PLAN_NODE;
        if (f->gpus > PLAN_NODE && f->gpus % PLAN_NODE != 0)
            return cudpo_fail(CUDPO_EUSAGE, "--gpus",
                              "%lld GPUs do not fill nodes of %d: say how many nodes with --nodes",
                              (long long)f->gpus, PLAN_NODE);
    }
    if (f->gpus % f->nodes != 0)
        return cudpo_fail(CUDPO_EUSAGE, "--nodes", "%lld GPUs can't be shared out evenly to %lld",
                          (long long)f->gpus, (long long)f->nodes);
    return gpu_find(&p->gpu, f->gpu);
}

static void note(void *context, const char *assumption)
{
    plan *p = context;
    if (p->assumptions < PLAN_ASSUMPTIONS)
        snprintf(p->assumption[p->assumptions++], PLAN_SENTENCE, "%s", assumption);
}

static cudpo_status find_rates(plan *p)
{
    p->rates = rates_assumed(p->gpu, p->t->model.hidden_size, note, p);
    if (p->options.calibration == NULL) return CUDPO_OK;
    CUDPO_TRY(rates_load(&p->rates, &p->calibrated, p->options.calibration, p->gpu));
    if (!p->calibrated)
        log_warn("%s says nothing of a device that is %s: rates are assumed",
                 p->options.calibration, p->gpu->product);
    return CUDPO_OK;
}

static cudpo_status open_order(plan *p)
{
    const cudpo_config *c = p->config;
    const int64_t n = dataset_count(p->t->train.data);
    p->order = malloc((size_t)n * sizeof *p->order);
    if (p->order == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "order of an epoch");
    for (int64_t i = 0; i < n; i++)
        p->order[i] = i;
    if (p->t->train.permutation != NULL)
        order_shuffle(p->order, n, (uint64_t)(c->data_seed >= 0 ? c->data_seed : c->seed), 0);
    return CUDPO_OK;
}

static void find_types(plan *p)
{
    const cudpo_trainer *t = p->t;
    const bool half = t->type == DTYPE_BF16;
    p->types =
        (work_types){.activation = (double)dtype_size(t->type),
                     .gradient = half && strcmp(p->config->gradient_dtype, "bfloat16") == 0 ? 2 : 4,
                     .master = half && p->config->master_weights,
                     .checkpoint = p->config->gradient_checkpointing};
    p->reference = t->rewards && !p->config->precompute_ref_log_probs;
}

/* Pairs of a step on so many GPUs. */
static int64_t pairs_of(const plan *p, int64_t gpus)
{
    return p->config->per_device_train_batch_size * p->config->gradient_accumulation_steps * gpus;
}

/* The memory of the run as it is configured, with packs for it. */
static cudpo_status open_packs(plan *p)
{
    cudpo_trainer *t = p->t;
    memory_forecast *m = &p->now.memory;
    t->shards = p->config->zero_stage > 0 ? p->options.gpus : 1;
    const cudpo_status status = memory_plan(m, t, true);
    if (status == CUDPO_ENOMEM && m->bytes > m->available)
        cudpo_error_clear();
    else
        CUDPO_TRY(status);
    return pack_create(&t->pass.pack, m->limits.groups, m->limits.tokens, false, m->limits.prompt);
}

/* What a run with other settings takes. */
static cudpo_status try_settings(plan_remedy *r, const plan *p, const cudpo_config *c,
                                 int64_t shards)
{
    cudpo_trainer *t = p->t;
    const dtype type = t->type;
    memory_forecast m;
    t->config = c;
    t->shards = shards;
    if (c->bf16 > 0) t->type = DTYPE_BF16;
    const cudpo_status status = memory_plan(&m, t, true);
    t->config = p->config;
    t->shards = 1;
    t->type = type;
    r->bytes = m.bytes;
    r->fits = status == CUDPO_OK;
    if (!r->fits && m.bytes <= m.available) return status;
    cudpo_error_clear();
    return CUDPO_OK;
}

static cudpo_status add_setting(plan_remedy *r, cudpo_config *c, const memory_remedy *m)
{
    const size_t used = strlen(r->settings);
    snprintf(r->settings + used, sizeof r->settings - used, "%s--%s %s", used > 0 ? " " : "",
             m->key, m->value);
    return cudpo_config_set(c, m->key, m->value);
}

/* Each setting alone; and all of them, one after another, until it fits, where none alone is enough. */
static cudpo_status find_remedies(plan *p)
{
    memory_remedy list[MEMORY_REMEDIES];
    const int64_t n = memory_remedies(list, p->t, &p->now.memory);
    const int64_t shards = p->config->zero_stage > 0 ? p->options.gpus : 1;
    bool enough = false;
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < n && status == CUDPO_OK; i++) {
        cudpo_config c;
        plan_remedy *r = &p->remedy[p->remedies++];
        CUDPO_TRY(config_copy(&c, p->config));
        status = add_setting(r, &c, &list[i]);
        if (status == CUDPO_OK) status = try_settings(r, p, &c, shards);
        enough = enough || r->fits;
        cudpo_config_free(&c);
    }
    CUDPO_TRY(status);
    if (shards == 1 && p->options.gpus > 1) {
        plan_remedy *r = &p->remedy[p->remedies++];
        snprintf(r->settings, sizeof r->settings, "--zero_stage 1");
        CUDPO_TRY(try_settings(r, p, p->config, p->options.gpus));
        enough = enough || r->fits;
    }
    if (enough || n < 2) return CUDPO_OK;
    cudpo_config c;
    plan_remedy *r = &p->remedy[p->remedies++];
    CUDPO_TRY(config_copy(&c, p->config));
    for (int64_t i = 0; i < n && status == CUDPO_OK && !r->fits; i++) {
        if (strcmp(list[i].key, "ref_model_offload") == 0) continue; /* no reference is less */
        status = add_setting(r, &c, &list[i]);
        if (status == CUDPO_OK) status = try_settings(r, p, &c, shards);
    }
    cudpo_config_free(&c);
    return status;
}

static double pairs_per_second(const plan_point *point)
{
    return (double)point->taken / point->step;
}

/* What costs most of what is missing from so many times the speed of one. */
static void judge(plan_point *point, const plan_point *one)
{
    const double n = (double)point->net.gpus;
    const double waiting = point->network.exposed + point->network.tax;
    const double ideal = one->step / (double)one->taken * (double)point->taken / n;
    point->efficiency = pairs_per_second(point) / (n * pairs_per_second(one));
    point->limit = !point->fits                           ? LIMIT_MEMORY
                   : point->efficiency >= 0.95            ? LIMIT_NONE
                   : waiting >= (point->step - ideal) / 2 ? LIMIT_NETWORK
                                                          : LIMIT_BATCH;
}

static network network_of(int64_t gpus)
{
    return (network){gpus, gpus <= PLAN_NODE ? 1 : gpus / PLAN_NODE};
}

static cudpo_status scale(plan *p)
{
    const network asked = {p->options.gpus, p->options.nodes};
    const int64_t pairs = pairs_of(p, p->options.gpus);
    CUDPO_TRY(plan_step(&p->same[0], p, pairs, network_of(1)));
    judge(&p->same[0], &p->same[0]);
    for (int i = 1; i < PLAN_SIZES; i++) {
        CUDPO_TRY(plan_step(&p->same[i], p, pairs, network_of((int64_t)1 << i)));
        judge(&p->same[i], &p->same[0]);
    }
    for (int i = 0; i < PLAN_SIZES; i++) {
        const int64_t gpus = (int64_t)1 << i;
        CUDPO_TRY(plan_step(&p->growing[i], p, pairs_of(p, gpus), network_of(gpus)));
        judge(&p->growing[i], &p->growing[0]);
    }
    const memory_forecast memory = p->now.memory;
    CUDPO_TRY(plan_step(&p->now, p, pairs, asked));
    p->now.memory = memory;
    p->now.fits = memory.bytes <= memory.available;
    judge(&p->now, &p->same[0]);
    return CUDPO_OK;
}

/* How often the eval set is gone through. */
static int64_t evaluations(const plan *p)
{
    const cudpo_config *c = p->config;
    if (p->t->eval.data == NULL) return 0;
    const int64_t start = c->eval_on_start ? 1 : 0;
    if (strcmp(c->eval_strategy, "epoch") == 0)
        return start + (int64_t)(c->num_train_epochs + 0.999);
    if (strcmp(c->eval_strategy, "steps") != 0) return start;
    const int64_t every = c->eval_steps > 0 ? c->eval_steps : c->logging_steps;
    return start + (p->now.steps + every - 1) / every;
}

/* What is not a step: the reference's pass over all data, and evaluations. */
static cudpo_status add_passes(plan *p)
{
    const double gpus = (double)p->options.gpus;
    const int64_t count = dataset_count(p->t->train.data);
    const bool cached = p->t->rewards && p->config->precompute_ref_log_probs;
    if (cached) p->precompute = p->now.reference / (double)p->now.taken * (double)count / gpus;
    if (p->t->eval.data != NULL) {
        double seconds;
        const int64_t n = dataset_count(p->t->eval.data), some = n < 4096 ? n : 4096;
        CUDPO_TRY(plan_score(&seconds, p, p->t->eval.data, some));
        seconds *= (double)n / (double)some / gpus;
        p->evaluation = seconds * (double)evaluations(p) * (p->reference ? 2 : 1);
        if (cached) p->precompute += seconds;
    }
    p->total = p->now.seconds + p->precompute + p->evaluation;
    return CUDPO_OK;
}

/* Of this process, which has what training has but what is counted; 0 where the system does not say.  Not the most that it
 * ever had, which a process takes over from the one that started it. */
static size_t resident(void)
{
    long long all = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL) return 0;
    const int n = fscanf(f, "%lld %lld", &all, &pages);
    fclose(f);
    return n == 2 ? (size_t)pages * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

cudpo_status plan_open(plan *p, const cudpo_config *config, const cudpo_plan_options *o)
{
    *p = (plan){.config = config};
    CUDPO_TRY(fill_options(p, o));
    p->be = gpu_stand_in(p->gpu);
    CUDPO_TRY(trainer_prepare(&p->t, config, &p->be));
    if (p->gpu->memory == 0) p->program = resident();
    CUDPO_TRY(find_rates(p));
    find_types(p);
    CUDPO_TRY(open_order(p));
    CUDPO_TRY(open_packs(p));
    CUDPO_TRY(scale(p));
    if (!p->now.fits) CUDPO_TRY(find_remedies(p));
    return add_passes(p);
}

void plan_free(plan *p)
{
    if (p->t != NULL) {
        pack_free(&p->t->pass.pack);
        cudpo_trainer_close(p->t);
    }
    free(p->order);
    p->t = NULL;
    p->order = NULL;
}

static char *take(buffer *b, cudpo_status status)
{
    char *data = status == CUDPO_OK ? b->data : NULL;
    if (status != CUDPO_OK) buffer_free(b);
    return data;
}

cudpo_status cudpo_plan(char **text, char **object, const cudpo_config *config,
                        const cudpo_plan_options *o)
{
    buffer words = {0}, numbers = {0};
    if (text != NULL) *text = NULL;
    if (object != NULL) *object = NULL;
    plan *p = malloc(sizeof *p);
    if (p == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "plan");
    cudpo_status status = plan_open(p, config, o);
    if (status == CUDPO_OK && text != NULL) status = plan_text(&words, p);
    if (status == CUDPO_OK && object != NULL) status = plan_json(&numbers, p);
    plan_free(p);
    free(p);
    char *a = take(&words, status), *b = take(&numbers, status);
    if (text != NULL) *text = a;
    if (object != NULL) *object = b;
    return status;
}
