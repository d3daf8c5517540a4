/* plan.c - opens a run without a device, and looks at it from all sides. */
#include "plan/plan.h"
#include "base/log.h"
#include "data/order.h"
#include "train/config_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *plan_limit_name(plan_limit limit)
{
    static const char *const names[] = {"none", "batch", "network", "cores",
                                        "data", "ranks", "memory"};
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
    p->node = f->nodes > 0 ? f->gpus / f->nodes : PLAN_NODE;
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
    assert(p->assumptions < PLAN_ASSUMPTIONS);
    snprintf(p->assumption[p->assumptions++], RATE_SENTENCE, "%s", assumption);
}

static cudpo_status find_rates(plan *p)
{
    if (p->options.calibration != NULL)
        CUDPO_TRY(rates_load(&p->rates, &p->calibrated, p->options.calibration, p->gpu));
    if (p->options.calibration != NULL && !p->calibrated)
        log_warn("%s says nothing of a device that is %s: rates are assumed",
                 p->options.calibration, p->gpu->product);
    rates_assume(&p->rates, p->gpu, &p->t->model, p->t->type, note, p);
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
    for (int64_t i = 0; i < n; i++) {
        const example e = dataset_get(p->t->train.data, i);
        p->tokens += (double)pack_group_tokens(&e, false);
    }
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

/* What a run with other settings takes. */
static cudpo_status try_settings(plan_remedy *r, const plan *p, const cudpo_config *c)
{
    cudpo_trainer *t = p->t;
    const dtype type = t->type;
    memory_forecast m;
    t->config = c;
    if (c->bf16 > 0) t->type = DTYPE_BF16;
    const cudpo_status status = plan_memory(&m, &r->fits, p);
    t->config = p->config;
    t->type = type;
    r->bytes = m.bytes + p->program;
    return status;
}

static cudpo_status add_setting(plan_remedy *r, cudpo_config *c, const memory_remedy *m)
{
    const size_t used = strlen(r->settings);
    snprintf(r->settings + used, sizeof r->settings - used, "%s--%s %s", used > 0 ? " " : "",
             m->key, m->value);
    return cudpo_config_set(c, m->key, m->value);
}

/* Those settings, one after another, until it fits. */
static cudpo_status add_remedy(plan *p, const memory_remedy *list, int64_t n)
{
    cudpo_config c;
    plan_remedy *r = &p->remedy[p->remedies++];
    CUDPO_TRY(config_copy(&c, p->config));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < n && status == CUDPO_OK && !r->fits; i++) {
        status = add_setting(r, &c, &list[i]);
        if (status == CUDPO_OK) status = try_settings(r, p, &c);
    }
    cudpo_config_free(&c);
    return status;
}

/* Each setting alone; and several, where none alone is enough. */
static cudpo_status find_remedies(plan *p)
{
    memory_remedy list[MEMORY_REMEDIES];
    const int64_t n = memory_remedies(list, p->t, &p->now.memory);
    int64_t together = 0;
    bool enough = false;
    for (int64_t i = 0; i < n; i++) {
        CUDPO_TRY(add_remedy(p, &list[i], 1));
        enough = enough || p->remedy[i].fits;
    }
    for (int64_t i = 0; i < n; i++) /* no reference is less than one that is streamed */
        if (strcmp(list[i].key, "ref_model_offload") != 0) list[together++] = list[i];
    return !enough && together > 1 ? add_remedy(p, list, together) : CUDPO_OK;
}

static double pairs_per_second(const plan_point *point)
{
    return (double)point->taken / point->step;
}

/* What costs most of what is missing from so many times the speed of one. */
static plan_limit limit_of(const plan_point *point, const plan_point *one, bool shared)
{
    const double ideal =
        one->step / (double)one->taken * (double)point->taken / (double)point->net.gpus;
    const double lost = point->step - ideal;
    const double sharing = shared ? ideal * (double)(network_ranks(&point->net) - 1) : 0;
    if (!point->fits) return LIMIT_MEMORY;
    if (point->efficiency >= 0.95) return LIMIT_NONE;
    if (sharing >= lost / 2) return LIMIT_CORES;
    return point->network.exposed + point->network.tax >= lost / 2 ? LIMIT_NETWORK : LIMIT_BATCH;
}

static void judge(plan_point *point, const plan *p, const plan_point *one)
{
    if (point->steps == 0) return; /* there is no such run, and its limit says why */
    point->efficiency = pairs_per_second(point) / ((double)point->net.gpus * pairs_per_second(one));
    point->limit = limit_of(point, one, p->gpu->memory == 0);
}

/* In nodes as full as those of the run. */
static network network_of(const plan *p, int64_t gpus)
{
    return (network){gpus, (gpus + p->node - 1) / p->node};
}

static cudpo_status scale(plan *p)
{
    const network asked = {p->options.gpus, p->options.nodes};
    const int64_t batch = trainer_train_batch(p->t), each = batch / asked.gpus;
    for (int i = 0; i < PLAN_SIZES; i++) {
        CUDPO_TRY(plan_step(&p->same[i], p, batch, network_of(p, (int64_t)1 << i)));
        judge(&p->same[i], p, &p->same[0]);
    }
    for (int i = 0; i < PLAN_SIZES; i++) {
        const int64_t gpus = (int64_t)1 << i;
        CUDPO_TRY(plan_step(&p->growing[i], p, each * gpus, network_of(p, gpus)));
        judge(&p->growing[i], p, &p->growing[0]);
    }
    CUDPO_TRY(plan_step(&p->now, p, batch, asked)); /* the last one, whose pack stays */
    judge(&p->now, p, &p->same[0]);
    return CUDPO_OK;
}

/* Rates that only some runs have a use for are said to be assumed where one of those printed does. */
static void note_streaming(plan *p)
{
    bool streamed = p->now.memory.offload;
    for (int i = 0; i < PLAN_SIZES; i++) {
        streamed = streamed || (p->same[i].steps > 0 && p->same[i].memory.offload) ||
                   (p->growing[i].steps > 0 && p->growing[i].memory.offload);
    }
    if (streamed && p->gpu->memory > 0) rates_assume_host(p->gpu, note, p);
}

int64_t plan_devices(const plan *p, const network *net)
{
    return p->gpu->memory == 0 ? net->nodes : net->gpus;
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
    p->machine = p->be.memory;
    CUDPO_TRY(trainer_prepare(&p->t, config, &p->be, p->options.gpus));
    if (p->gpu->memory == 0) p->program = resident();
    CUDPO_TRY(find_rates(p));
    find_types(p);
    CUDPO_TRY(open_order(p));
    CUDPO_TRY(scale(p));
    note_streaming(p);
    return p->now.fits ? CUDPO_OK : find_remedies(p);
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
