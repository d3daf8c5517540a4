/* run.c - ops of the table at the shapes of models, one after another. */
#include "base/file.h"
#include "base/nearest.h"
#include "bench/calibrate.h"
#include "bench/models.h"
#include "bench/report.h"
#include "cudpo/bench.h"
#include "train/device.h"

#include <string.h>

typedef struct bench_table {
    const cudpo_bench_options *options;
    void (*line)(void *context, const char *text);
    void *context;
    backend *be;
    bench_settings settings;
    bench_ceilings ceilings;
    bench_sums sums;
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

/* Each name once: ops of one name follow each other. */
const char *cudpo_bench_op(int64_t i)
{
    for (int j = 0; j < bench_op_count; j++) {
        const bool again = j > 0 && strcmp(bench_ops[j]->op, bench_ops[j - 1]->op) == 0;
        if (!again && i-- == 0) return bench_ops[j]->op;
    }
    return NULL;
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
    if (r->wrong > 0) {
        t->wrong += r->wrong;
        t->wrong_ops++;
    }
    bench_sums_add(&t->sums, c, r);
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

static cudpo_status run_shape(bench_table *t, const char *name)
{
    const cudpo_bench_options *o = t->options;
    bench_shape s = {.name = name,
                     .groups = o->groups > 0      ? o->groups
                               : t->be->on_device ? 11
                                                  : 1,
                     .length = o->length,
                     .rows = 2 * o->length,
                     .type = t->be->on_device ? DTYPE_BF16 : DTYPE_F32};
    s.tokens = 3 * s.groups * s.length;
    CUDPO_TRY(bench_model(&s.model, name));
    CUDPO_TRY(buffer_printf(&t->text, "%s", name));
    CUDPO_TRY(say(t));
    for (int i = 0; i < bench_op_count; i++) {
        if (is_chosen(o, bench_ops[i]->op)) CUDPO_TRY(run_op(t, bench_ops[i], &s));
    }
    return CUDPO_OK;
}

static cudpo_status run_table(bench_table *t)
{
    const cudpo_bench_options *o = t->options;
    CUDPO_TRY(device_open(&t->be, o->device, 0, NULL));
    CUDPO_TRY(bench_measure_ceilings(&t->ceilings, t->be, &t->settings));
    CUDPO_TRY(bench_head(&t->text, t->be, &t->ceilings));
    CUDPO_TRY(say(t));
    CUDPO_TRY(bench_json_begin(&t->json, t->be, &t->ceilings, &t->settings));
    for (int64_t i = 0; i < o->shape_count; i++)
        CUDPO_TRY(run_shape(t, o->shapes[i]));
    for (int64_t i = 0; o->shape_count == 0 && bench_model_name(i) != NULL; i++) {
        if (i == 0 || t->be->on_device) CUDPO_TRY(run_shape(t, bench_model_name(i)));
    }
    if (o->calibration != NULL)
        CUDPO_TRY(bench_calibration_write(o->calibration, &t->sums, &t->ceilings, t->be));
    if (t->wrong == 0) return device_check(t->be);
    return cudpo_fail(CUDPO_ENUMERIC, "bench", "%lld elements of the outputs of %lld ops are wrong",
                      (long long)t->wrong, (long long)t->wrong_ops);
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
    if (status == CUDPO_OK) status = run_table(&t);
    buffer_free(&t.json);
    buffer_free(&t.text);
    if (t.be != NULL) t.be->close(t.be);
    return status;
}
