/* point.c - steps as they would be: real examples, dealt to ranks and packed as training packs them, and the time of each. */
#include "data/deal.h"
#include "model/offload.h"
#include "plan/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_PAIRS = 1 << 13, /* of the steps that are looked at, but one step at least */
    MOST_SCORED = 1 << 12 /* examples of the eval set that are looked at */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What a rank has to do in a step. */
typedef struct rank_work {
    cost cost;               /* without the update */
    work_counts counts;      /* of the packs that train */
    double packs, reference; /* see plan_point */
    double backward;         /* of its last pack */
} rank_work;

/* Layers that come from the host's memory: the copy of all of them takes as long as it takes. */
static double streaming(const plan *p, const plan_point *point)
{
    if (!point->memory.offload || p->gpu->host == 0) return 0;
    return (double)model_offload_host_bytes(&p->t->model, p->t->type) / p->gpu->host;
}

static cudpo_status count(work_counts *n, const plan *p, const plan_point *point)
{
    return work_count_pack(n, &p->t->pass.pack, &p->t->model,
                           pass_chunk_rows(&p->t->model, &point->memory.limits));
}

static cost_meter meter_of(const plan *p, const plan_point *point)
{
    return cost_meter_of(&point->rates, &p->t->model, p->t->type);
}

/* A forward pass over the pack, by the reference or another. */
static cudpo_status score_pack(cost *c, const plan *p, const plan_point *point)
{
    cost_meter m = meter_of(p, point);
    work_counts n = {0};
    CUDPO_TRY(count(&n, p, point));
    work_score(&p->t->model, &n, &p->types, cost_add, &m);
    *c = m.sum;
    return CUDPO_OK;
}

static void add_counts(work_counts *to, const work_counts *n)
{
    to->tokens += n->tokens;
    to->rows += n->rows;
    for (int v = 0; v < WORK_VIEWS; v++)
        to->visible[v] += n->visible[v];
}

static cudpo_status train_pack(rank_work *w, const plan *p, const plan_point *point)
{
    cost_meter m = meter_of(p, point);
    cost reference;
    work_counts n = {0};
    CUDPO_TRY(count(&n, p, point));
    add_counts(&w->counts, &n);
    CUDPO_TRY(score_pack(&reference, p, point));
    work_train(&p->t->model, &n, &p->types, p->reference, cost_add, &m);
    const double stream = streaming(p, point);
    if (p->reference && m.sum.pass[WORK_REFERENCE] < stream) m.sum.pass[WORK_REFERENCE] = stream;
    cost_accumulate(&w->cost, &m.sum, 1);
    w->reference += cost_total(&reference);
    w->packs++;
    w->backward = m.sum.pass[WORK_RECOMPUTE] + m.sum.pass[WORK_BACKWARD];
    return CUDPO_OK;
}

/* KTO's mismatched completions: forward passes of the policy and, where it is not cached, of the reference. */
static cudpo_status add_mismatched(rank_work *w, const plan *p, const plan_point *point,
                                   const int64_t *list, int64_t n)
{
    cudpo_trainer *t = p->t;
    for (int64_t done = 0; done < n;) {
        cost c;
        pack_clear(&t->pass.pack);
        for (; done < n; done++) {
            const example e = trainer_mismatched_example(t, t->train.data, list[done]);
            if (!pack_add(&t->pass.pack, &e, list[done])) break;
        }
        CUDPO_TRY(score_pack(&c, p, point));
        cost_accumulate(&w->cost, &c, p->reference ? 2 : 1);
        w->reference += cost_total(&c);
    }
    return CUDPO_OK;
}

static cudpo_status work_of(rank_work *w, const plan *p, const plan_point *point,
                            const int64_t *list, int64_t n)
{
    *w = (rank_work){0};
    if (p->t->traits->kl) CUDPO_TRY(add_mismatched(w, p, point, list, n));
    for (int64_t done = 0; done < n;) {
        done += trainer_fill(p->t, p->t->train.data, list + done, n - done);
        CUDPO_TRY(train_pack(w, p, point));
    }
    return CUDPO_OK;
}

static network_load load_of(const plan *p, const rank_work *w)
{
    const model_config *c = &p->t->model;
    const double all = (double)model_config_parameters(c), head = (double)work_head_weights(c);
    const double trunk = all - (c->tie_word_embeddings ? head : 2 * head);
    /* Gradients that are complete only when the backward pass is: the embedding's and the first layer's. */
    const double last = head + trunk / (double)c->num_hidden_layers;
    return (network_load){.bytes = work_gradient_bytes(c, &p->types),
                          .last = last * p->types.gradient,
                          .weights = all * p->types.activation,
                          .backward = w->backward,
                          .zero_stage = p->config->zero_stage};
}

/* The update of the weights, which every rank does, or a share of it. */
static double update_seconds(const plan *p, const plan_point *point)
{
    cost_meter m = meter_of(p, point);
    work_update(&p->t->model, &p->types, p->config->zero_stage > 0 ? point->net.gpus : 1, cost_add,
                &m);
    return m.sum.pass[WORK_OPTIMIZER];
}

/* One step of examples of a list, dealt: added to the point's sums.  In: mine [n] room for those of a rank. */
static cudpo_status add_step(plan_point *point, const plan *p, const deal *d, const int64_t *list,
                             int64_t *mine)
{
    const double update = update_seconds(p, point);
    rank_work slowest = {0};
    work_counts all = {0};
    for (int64_t r = 0; r < d->ranks; r++) {
        rank_work w;
        const int64_t n = d->begin[r + 1] - d->begin[r];
        if (n == 0) continue;
        for (int64_t i = 0; i < n; i++)
            mine[i] = list[d->place[d->begin[r] + i]];
        CUDPO_TRY(work_of(&w, p, point, mine, n));
        if (cost_total(&w.cost) > cost_total(&slowest.cost)) slowest = w;
        add_counts(&all, &w.counts);
        point->packs += w.packs;
        point->reference += w.reference;
    }
    const network_load load = load_of(p, &slowest);
    const network_time t = network_step(&point->net, &point->rates, &load);
    slowest.cost.pass[WORK_OPTIMIZER] += update;
    slowest.cost.kind[WORK_ADAMW] += update;
    slowest.cost.memory += update;
    cost_accumulate(&point->slowest, &slowest.cost, 1);
    point->network.total += t.total;
    point->network.exposed += t.exposed;
    point->network.tax += t.tax;
    point->imbalance += deal_imbalance(d);
    point->tokens += (double)all.tokens;
    point->useful += work_useful(&p->t->model, &all, p->reference ? 1 : 0);
    return CUDPO_OK;
}

static void take_mean(plan_point *point, double n)
{
    cost mean = {0};
    cost_accumulate(&mean, &point->slowest, 1 / n);
    point->slowest = mean;
    double *const sums[] = {&point->network.total, &point->network.exposed, &point->network.tax,
                            &point->imbalance,     &point->packs,           &point->tokens,
                            &point->useful,        &point->reference};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        *sums[i] /= n;
}

/* Seconds of all steps: one at the end of an epoch may be short, and takes less, but for the update and the network. */
static double run_seconds(const plan_point *point, const plan *p, const run_length *run)
{
    const int64_t epochs = run->total_steps / run->steps_per_epoch;
    const double an_epoch = (double)run->examples_per_epoch;
    const double rest = (double)(run->total_steps % run->steps_per_epoch) * (double)point->taken;
    const double examples = (double)epochs * an_epoch + fmin(rest, an_epoch);
    const double tokens = p->tokens / (double)dataset_count(p->t->train.data) * examples;
    const double always =
        point->slowest.pass[WORK_OPTIMIZER] + point->network.exposed + point->network.tax;
    return (double)run->total_steps * always + (point->step - always) * tokens / point->tokens;
}

cudpo_status plan_memory(memory_forecast *m, bool *fits, const plan *p)
{
    const cudpo_status status = memory_plan(m, p->t, true);
    if (p->gpu->memory == 0) m->available = p->be.memory;
    *fits = status == CUDPO_OK && m->bytes <= m->available;
    if (status != CUDPO_ENOMEM || m->bytes <= m->available) return status;
    cudpo_error_clear();
    return CUDPO_OK;
}

/* Rates and memory of each GPU, and a pack as large as a rank's is then.  Ranks of a CPU share what their machine has,
 * of which they know nothing: their packs are as large as one's alone. */
static cudpo_status open_point(plan_point *point, plan *p)
{
    pack *of = &p->t->pass.pack;
    point->rates = p->rates;
    if (p->gpu->memory == 0) {
        const int64_t ranks = network_ranks(&point->net);
        const size_t share = p->machine / (size_t)ranks;
        p->be.memory = share > p->program ? share - p->program : 0;
        rates_share(&point->rates, ranks);
    }
    CUDPO_TRY(plan_memory(&point->memory, &point->fits, p));
    const pass_limits *l = &point->memory.limits;
    pack_free(of);
    return pack_create(of, l->groups, l->tokens, false, l->prompt);
}

/* The mean of whole steps that are spread over an epoch. */
static cudpo_status look_at_steps(plan_point *point, const plan *p, int64_t examples_per_epoch)
{
    const deal_work work = trainer_work(&p->t->model);
    const int64_t n = point->taken, whole = examples_per_epoch / n;
    const int64_t looked_at = n < MOST_PAIRS ? least(whole, MOST_PAIRS / n) : 1;
    deal d;
    int64_t *mine = malloc((size_t)n * sizeof *mine);
    cudpo_status status = mine != NULL ? deal_create(&d, n, point->net.gpus)
                                       : cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "a step's examples");
    if (status != CUDPO_OK) {
        free(mine);
        return status;
    }
    for (int64_t i = 0; i < looked_at && status == CUDPO_OK; i++) {
        const int64_t *list = p->order + i * whole / looked_at * n;
        deal_out(&d, p->t->train.data, list, n, &work);
        status = add_step(point, p, &d, list, mine);
    }
    deal_free(&d);
    free(mine);
    take_mean(point, (double)looked_at);
    return status;
}

/* Seconds of a forward pass with log-probs over the eval set, in packs of the run, on one GPU: of all, from the first ones. */
static cudpo_status score_eval(double *seconds, const plan *p, const plan_point *point)
{
    const dataset *d = p->t->eval.data;
    const int64_t all = dataset_count(d), n = least(all, MOST_SCORED);
    *seconds = 0;
    for (int64_t i = 0; i < n;) {
        int64_t next[64];
        cost c;
        const int64_t more = least(64, n - i);
        for (int64_t k = 0; k < more; k++)
            next[k] = i + k;
        i += trainer_fill(p->t, d, next, more);
        CUDPO_TRY(score_pack(&c, p, point));
        *seconds += cost_total(&c);
    }
    *seconds *= (double)all / (double)n;
    return CUDPO_OK;
}

/* How often the eval set is gone through. */
static int64_t evaluations(const cudpo_config *c, const run_length *run)
{
    const int64_t start = c->eval_on_start ? 1 : 0;
    int64_t every = c->eval_steps > 0 ? c->eval_steps : c->logging_steps;
    if (strcmp(c->eval_strategy, "no") == 0) return start;
    if (strcmp(c->eval_strategy, "epoch") == 0) every = run->steps_per_epoch;
    return start + (run->total_steps + every - 1) / every;
}

/* What is not a step: the reference's pass over all data, and evaluations. */
static cudpo_status add_passes(plan_point *point, const plan *p, const run_length *run)
{
    const cudpo_trainer *t = p->t;
    const double gpus = (double)point->net.gpus, count = (double)dataset_count(t->train.data);
    const bool cached = t->rewards && p->config->precompute_ref_log_probs;
    if (cached) point->precompute = point->reference / (double)point->taken * count / gpus;
    if (t->eval.data != NULL) {
        double seconds;
        CUDPO_TRY(score_eval(&seconds, p, point));
        seconds /= gpus;
        point->evaluation = seconds * (double)evaluations(p->config, run) * (p->reference ? 2 : 1) *
                            (double)trainer_eval_count(t) / (double)dataset_count(t->eval.data);
        if (cached) point->precompute += seconds;
    }
    point->total = point->seconds + point->precompute + point->evaluation;
    return CUDPO_OK;
}

/* In: p  its trainer stands for a rank of this run. */
static cudpo_status fill_point(plan_point *point, plan *p, int64_t batch)
{
    const run_length run = trainer_length(p->config, dataset_count(p->t->train.data), batch);
    CUDPO_TRY(open_point(point, p));
    if (run.examples_per_epoch == 0)
        point->limit = LIMIT_DATA;
    else if (p->config->zero_stage > 0 && !trainer_can_share(point->net.gpus))
        point->limit = LIMIT_RANKS;
    if (point->limit != LIMIT_NONE) return CUDPO_OK;
    point->steps = run.total_steps;
    point->taken = least(point->pairs, run.examples_per_epoch);
    CUDPO_TRY(look_at_steps(point, p, run.examples_per_epoch));
    point->step = cost_total(&point->slowest) + point->network.exposed + point->network.tax;
    point->seconds = run_seconds(point, p, &run);
    point->fill = point->tokens / (point->packs * (double)point->memory.limits.tokens);
    return add_passes(point, p, &run);
}

cudpo_status plan_step(plan_point *point, plan *p, int64_t batch, network net)
{
    cudpo_trainer *t = p->t;
    cudpo_config c = *p->config; /* borrows its texts */
    *point = (plan_point){.net = net, .pairs = batch * c.gradient_accumulation_steps};
    c.per_device_train_batch_size = (batch + net.gpus - 1) / net.gpus;
    t->config = &c;
    t->batch_ranks = net.gpus;
    const cudpo_status status = fill_point(point, p, batch);
    t->config = p->config;
    t->batch_ranks = p->options.gpus;
    return status;
}

cudpo_status plan_steps_exactly(double seconds[], plan *p, int64_t first, int64_t n)
{
    const cudpo_config *c = p->config;
    const int64_t units = c->per_device_train_batch_size * c->gradient_accumulation_steps;
    const double update = update_seconds(p, &p->now);
    for (int64_t i = 0; i < n; i++) {
        rank_work w;
        step_batch b;
        int64_t order[4096];
        CUDPO_REQUIRE(p->options.gpus == 1 && units <= (int64_t)(sizeof order / sizeof *order));
        CUDPO_TRY(trainer_batch(p->t, &b, order, NULL, first + i));
        CUDPO_TRY(work_of(&w, p, &p->now, b.example, b.n));
        seconds[i] = cost_total(&w.cost) + update;
    }
    return CUDPO_OK;
}
