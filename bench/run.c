/* run.c - ops of the table at the shapes of models, one after another; and collectives, where there are several ranks.
 *
 * An op is measured by rank 0 alone, while the others wait where the next row begins. */
#include "base/file.h"
#include "base/hash.h"
#include "base/nearest.h"
#include "bench/calibrate.h"
#include "bench/collective.h"
#include "bench/models.h"
#include "bench/report.h"
#include "cudpo/bench.h"
#include "train/device.h"
#include "train/ranks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct bench_table {
    const cudpo_bench_options *options;
    void (*line)(void *context, const char *text);
    void *context;
    run_ranks ranks;
    communicator *communicator; /* NULL: no collective is measured */
    void *left;                 /* of a collective that failed */
    backend *be;
    bench_settings settings;
    bench_ceilings ceilings;
    bench_sums sums;
    model_config *models; /* [shape_count] of the options' shapes */
    buffer json, text;
    int64_t rows, wrong, wrong_ops;
} bench_table;

static cudpo_status say(bench_table *t)
{
    t->line(t->context, t->text.data);
    buffer_clear(&t->text);
    return CUDPO_OK;
}

static bool is_chosen(const cudpo_bench_options *o, const char *op)
{
    for (int64_t i = 0; i < o->op_count; i++) {
        if (strcmp(o->ops[i], op) == 0) return true;
    }
    return o->op_count == 0;
}

static bool any_op_is_chosen(const cudpo_bench_options *o)
{
    bool any = false;
    for (int i = 0; i < bench_op_count; i++)
        any = any || is_chosen(o, bench_ops[i]->op);
    return any;
}

static bool any_collective_is_chosen(const cudpo_bench_options *o)
{
    bool any = false;
    for (int i = 0; i < bench_collective_count; i++)
        any = any || is_chosen(o, bench_collectives[i].op);
    return any;
}

/* Each name once: ops of one name follow each other. */
const char *cudpo_bench_op(int64_t i)
{
    for (int j = 0; j < bench_op_count; j++) {
        const bool again = j > 0 && strcmp(bench_ops[j]->op, bench_ops[j - 1]->op) == 0;
        if (!again && i-- == 0) return bench_ops[j]->op;
    }
    return i < bench_collective_count ? bench_collectives[i].op : NULL;
}

static cudpo_status check_ops(const cudpo_bench_options *o)
{
    enum { MOST = 64 };
    const char *names[MOST];
    int n = 0;
    for (; n < MOST && cudpo_bench_op(n) != NULL; n++)
        names[n] = cudpo_bench_op(n);
    for (int64_t i = 0; i < o->op_count; i++) {
        bool known = false;
        for (int j = 0; j < n; j++)
            known = known || strcmp(o->ops[i], names[j]) == 0;
        if (known) continue;
        const char *near = nearest_name(o->ops[i], names, n);
        return cudpo_fail(CUDPO_EUSAGE, o->ops[i],
                          "is no op%s%s%s; `cudpo bench --list` names them",
                          near == NULL ? "" : "; did you mean ", near == NULL ? "" : near,
                          near == NULL ? "" : "?");
    }
    return CUDPO_OK;
}

/* A collective that was asked for by name can be measured. */
static cudpo_status check_ranks(const bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    for (int64_t i = 0; t->ranks.place.size == 1 && i < o->op_count; i++) {
        for (int j = 0; j < bench_collective_count; j++) {
            if (strcmp(o->ops[i], bench_collectives[j].op) == 0)
                return cudpo_fail(CUDPO_EUSAGE, o->ops[i],
                                  "takes several ranks: cudpo launch --nproc 2 -- bench %s",
                                  o->ops[i]);
        }
    }
    return CUDPO_OK;
}

/* All models, before any of them is measured. */
static cudpo_status find_models(bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    t->models = calloc((size_t)o->shape_count + 1, sizeof *t->models);
    if (t->models == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "models");
    for (int64_t i = 0; i < o->shape_count; i++)
        CUDPO_TRY(bench_model(&t->models[i], o->shapes[i]));
    return CUDPO_OK;
}

/* What is going to be written can be: of the rank that writes. */
static cudpo_status check_files(const bench_table *t)
{
    const char *const files[] = {t->options->json, t->options->calibration};
    for (int i = 0; i < 2 && ranks_first(&t->ranks); i++)
        if (files[i] != NULL) CUDPO_TRY(file_check_writable(files[i]));
    return CUDPO_OK;
}

/* Ranks that measure different things would wait for one another in vain. */
static cudpo_status check_same(const bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    const run_ranks *r = &t->ranks;
    hash_state *h;
    if (r->place.size == 1) return CUDPO_OK;
    CUDPO_TRY(hash_begin(&h));
    for (int64_t i = 0; i < o->op_count; i++)
        hash_add_string(h, o->ops[i]);
    for (int64_t i = 0; i < o->shape_count; i++)
        hash_add_string(h, o->shapes[i]);
    const int64_t numbers[] = {o->op_count, o->shape_count, (int64_t)(o->seconds * 1e6),
                               o->no_check, t->be->on_device};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        hash_add_int(h, numbers[i]);
    const hash128 mine = hash_end(h);
    hash128 *all = calloc((size_t)r->place.size, sizeof *all);
    if (all == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)r->place.size);
    cudpo_status status =
        control_exchange(r->company, all, &mine, sizeof mine, "what is to be measured");
    for (int32_t k = 1; k < r->place.size && status == CUDPO_OK; k++)
        if (memcmp(&all[k], &all[0], sizeof mine) != 0)
            status = cudpo_fail(CUDPO_ECONFIG, "bench",
                                "rank %d measures something else than rank 0, or on another kind "
                                "of device: start all ranks with the same command",
                                (int)k);
    free(all);
    return status;
}

/* What there is so far, as a whole file. */
static cudpo_status write_json(const bench_table *t)
{
    buffer all = {0};
    if (t->options->json == NULL) return CUDPO_OK;
    cudpo_status status = buffer_append(&all, t->json.data, t->json.size);
    if (status == CUDPO_OK) status = buffer_printf(&all, BENCH_JSON_END);
    if (status == CUDPO_OK) status = file_write(t->options->json, all.data, all.size);
    buffer_free(&all);
    return status;
}

static cudpo_status add_row(bench_table *t, const bench_case *c, const bench_result *r)
{
    const placement *p = &t->ranks.place;
    if (r->wrong > 0) {
        t->wrong += r->wrong;
        t->wrong_ops++;
    }
    if (!ranks_first(&t->ranks)) return CUDPO_OK;
    if (c->ranks <= 1 || p->local_size == p->size) bench_sums_add(&t->sums, c, r);
    CUDPO_TRY(bench_line(&t->text, c, r, &t->ceilings));
    CUDPO_TRY(say(t));
    CUDPO_TRY(bench_json_row(&t->json, t->rows == 0, c, r, &t->ceilings));
    t->rows++;
    return write_json(t);
}

static cudpo_status run_op(bench_table *t, const bench_op *op, const bench_shape *s)
{
    bench_case c = {.op = op, .shape = s};
    bench_result r;
    cudpo_status status = op->make(&c, s);
    if (status == CUDPO_OK) status = bench_measure(&r, t->be, &c, &t->settings);
    if (status == CUDPO_OK) status = add_row(t, &c, &r);
    bench_case_free(&c);
    return status;
}

static cudpo_status run_collective(bench_table *t, const bench_op *op, const bench_shape *s,
                                   dtype type, int64_t n)
{
    const bench_case c = bench_collective_case(op, s, t->communicator, type, n);
    bench_result r;
    bool fits;
    CUDPO_TRY(bench_collective_measure(&r, &fits, &t->left, t->communicator, &c, &t->settings));
    if (fits) return add_row(t, &c, &r);
    if (!ranks_first(&t->ranks)) return CUDPO_OK;
    CUDPO_TRY(
        buffer_printf(&t->text, "%-16s %-8s %-40s does not fit into memory", op->op, "", c.text));
    return say(t);
}

/* Gradients are exchanged in float32 or, on a GPU, in bfloat16. */
static cudpo_status run_collectives(bench_table *t, const bench_shape *s)
{
    const int64_t parameters = model_config_parameters(&s->model);
    for (int i = 0; i < bench_collective_count; i++) {
        const bench_op *op = &bench_collectives[i];
        for (int half = 0; is_chosen(t->options, op->op) && half < 1 + t->be->on_device; half++) {
            const dtype type = half ? DTYPE_BF16 : DTYPE_F32;
            int64_t size[COLLECTIVE_SIZES];
            const int sizes = bench_collective_sizes(size, type, parameters);
            for (int k = 0; k < sizes; k++)
                CUDPO_TRY(run_collective(t, op, s, type, size[k]));
        }
    }
    return CUDPO_OK;
}

static cudpo_status run_shape(bench_table *t, const char *name, const model_config *model)
{
    const cudpo_bench_options *o = t->options;
    bench_shape s = {.name = name,
                     .model = *model,
                     .groups = o->groups > 0      ? o->groups
                               : t->be->on_device ? 11
                                                  : 1,
                     .length = o->length,
                     .rows = 2 * o->length,
                     .type = t->be->on_device ? DTYPE_BF16 : DTYPE_F32};
    s.tokens = 3 * s.groups * s.length;
    if (ranks_first(&t->ranks)) {
        CUDPO_TRY(buffer_printf(&t->text, "%s", name));
        CUDPO_TRY(say(t));
    }
    for (int i = 0; i < bench_op_count; i++) {
        if (!is_chosen(o, bench_ops[i]->op)) continue;
        if (ranks_first(&t->ranks)) CUDPO_TRY(run_op(t, bench_ops[i], &s));
        CUDPO_TRY(ranks_meet(&t->ranks, "next row")); /* nobody waits for longer than a row takes */
    }
    return t->communicator != NULL ? run_collectives(t, &s) : CUDPO_OK;
}

/* What goes from rank to rank is limited by the sockets; by the memory, for MPI within a node; by what nobody knows else. */
static cudpo_status connect_ranks(bench_table *t)
{
    const placement *p = &t->ranks.place;
    bench_ceilings *c = &t->ceilings;
    double rate = 0;
    c->ranks = p->size;
    if (p->size == 1 || !any_collective_is_chosen(t->options)) return CUDPO_OK;
    CUDPO_TRY(ranks_connect(&t->communicator, &t->ranks, t->be));
    c->communicator = t->communicator->name;
    if (!t->be->on_device) {
        const double all = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
        t->settings.memory = 0.75 * all / (p->local_size > 0 ? p->local_size : 1);
    }
    if (strcmp(c->communicator, "tcp") == 0) CUDPO_TRY(bench_link(&rate, t->ranks.company));
    c->link_gbps = rate * 1e-9;
    if (strcmp(c->communicator, "mpi") == 0 && p->local_size == p->size)
        c->link_gbps = c->copy_gbps / 2; /* a byte that is copied is read and written */
    return CUDPO_OK;
}

static cudpo_status run_shapes(bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    for (int64_t i = 0; i < o->shape_count; i++)
        CUDPO_TRY(run_shape(t, o->shapes[i], &t->models[i]));
    for (int64_t i = 0; o->shape_count == 0 && bench_model_name(i) != NULL; i++) {
        model_config known;
        CUDPO_TRY(bench_model(&known, bench_model_name(i)));
        if (i == 0 || t->be->on_device) CUDPO_TRY(run_shape(t, bench_model_name(i), &known));
    }
    return CUDPO_OK;
}

static cudpo_status run_table(bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    const bool first = ranks_first(&t->ranks);
    CUDPO_TRY(check_ranks(t));
    CUDPO_TRY(check_files(t));
    CUDPO_TRY(device_open(&t->be, o->device, t->ranks.place.local_rank, NULL));
    CUDPO_TRY(check_same(t));
    if (first)
        CUDPO_TRY(bench_measure_ceilings(&t->ceilings, t->be, &t->settings, any_op_is_chosen(o)));
    if (first && o->calibration != NULL && any_op_is_chosen(o))
        CUDPO_TRY(bench_measure_launch(&t->sums.launch, t->be, &t->settings));
    CUDPO_TRY(connect_ranks(t));
    if (first) {
        CUDPO_TRY(bench_head(&t->text, t->be, &t->ceilings));
        CUDPO_TRY(say(t));
        CUDPO_TRY(bench_json_begin(&t->json, t->be, &t->ceilings, &t->settings, o->command));
    }
    CUDPO_TRY(run_shapes(t));
    if (first && o->calibration != NULL)
        CUDPO_TRY(bench_calibration_write(o->calibration, &t->sums, &t->ceilings, t->be));
    CUDPO_TRY(device_check(t->be));
    int64_t counts[] = {t->wrong, t->wrong_ops};
    CUDPO_TRY(ranks_share(&t->ranks, counts, sizeof counts, "wrong elements"));
    t->ranks.agreed = true; /* on how this ends */
    if (counts[0] == 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENUMERIC, "bench", "%lld elements of the outputs of %lld ops are wrong",
                      (long long)counts[0], (long long)counts[1]);
}

static cudpo_status run_ranks_of(bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    cudpo_config c;
    CUDPO_TRY(cudpo_config_create(&c));
    cudpo_status status = CUDPO_OK;
    if (o->ddp_backend != NULL) status = cudpo_config_set(&c, "ddp_backend", o->ddp_backend);
    if (status == CUDPO_OK) status = ranks_open(&t->ranks, &c, o->ranks);
    if (status == CUDPO_OK) {
        status = run_table(t);
        if (status != CUDPO_OK && !t->ranks.agreed)
            ranks_fail(&t->ranks, status); /* before peers see the ring end */
        communicator_close(t->communicator);
        if (t->left != NULL) t->be->free(t->be, t->left);
        status = ranks_close(&t->ranks, status);
    }
    cudpo_config_free(&c);
    return status;
}

cudpo_status cudpo_bench(const cudpo_bench_options *options,
                         void (*line)(void *context, const char *text), void *context)
{
    CUDPO_REQUIRE(options != NULL && line != NULL);
    if (options->length < 2 || options->length > 1 << 16 || options->groups < 0 ||
        options->groups > 1 << 16)
        return cudpo_fail(CUDPO_EUSAGE, "bench",
                          "groups of 1 to 65536, and lengths of 2 to 65536 tokens can be measured");
    if (!(options->seconds >= 0 && options->seconds <= 3600))
        return cudpo_fail(CUDPO_EUSAGE, "bench", "%g seconds of each op can't be measured",
                          options->seconds);
    bench_table t = {.options = options,
                     .line = line,
                     .context = context,
                     .settings = {.seconds = options->seconds,
                                  .baseline = !options->no_baseline,
                                  .check = !options->no_check}};
    cudpo_status status = check_ops(options);
    if (status == CUDPO_OK) status = find_models(&t);
    if (status == CUDPO_OK) status = run_ranks_of(&t);
    free(t.models);
    buffer_free(&t.json);
    buffer_free(&t.text);
    if (t.be != NULL) t.be->close(t.be);
    return status;
}
