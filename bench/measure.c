/* measure.c - warm up, time, look at what came out. */
#include "bench/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LEAST_CALLS = 5, /* timed; a slow op takes as long as that */
    ROUND = 8,       /* calls that are enqueued without waiting, where there are fewer sets */
    SAMPLES = 4096
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *sample, int64_t n)
{
    qsort(sample, (size_t)n, sizeof *sample, by_value);
    return n % 2 == 1 ? sample[n / 2] : (sample[n / 2 - 1] + sample[n / 2]) / 2;
}

void bench_summarise(bench_time *t, double *sample, int64_t n)
{
    t->median = median_of(sample, n); /* sorts */
    t->least = sample[0];
    t->spread = (sample[n * 9 / 10] - sample[n / 10]) / 2;
    t->calls = n;
}

typedef cudpo_status (*bench_call)(bench_run *r);

static bool changes_operands(const bench_case *c)
{
    for (int i = 0; i < c->count; i++) {
        if (c->operand[i].role == BENCH_INOUT) return true;
    }
    return false;
}

/* Every set once, or a few times where that changes nothing and a device would run dry: enqueued one behind the other, then looked at.
 * Out: sample [*n]. */
static cudpo_status run_round(double *sample, int64_t *n, bench_sets *s, bench_call call)
{
    backend *be = s->be;
    const bool again = be->on_device && s->count < ROUND && !changes_operands(s->c);
    const int64_t calls = again ? (ROUND + s->count - 1) / s->count * s->count : s->count;
    CUDPO_TRY(bench_sets_restore(s));
    for (int64_t i = 0; i < calls; i++) {
        CUDPO_TRY(be->stamp(be, (int)(2 * i)));
        CUDPO_TRY(call(&s->run[i % s->count]));
        CUDPO_TRY(be->stamp(be, (int)(2 * i + 1)));
    }
    for (int64_t i = 0; i < calls; i++)
        CUDPO_TRY(be->elapsed(be, &sample[i], (int)(2 * i), (int)(2 * i + 1)));
    *n = calls;
    return CUDPO_OK;
}

/* Rounds until two medians in turn agree, or the time for that is over: clocks, caches and lazily loaded code. */
static cudpo_status warm_up(bench_sets *s, bench_call call, double seconds)
{
    double sample[SAMPLES], before = 0;
    const double end = seconds_now() + seconds;
    for (int64_t n, agree = 0; agree < 2;) {
        CUDPO_TRY(run_round(sample, &n, s, call));
        const double median = median_of(sample, n);
        agree = fabs(median - before) <= BENCH_SETTLED * before ? agree + 1 : 0;
        before = median;
        if (seconds_now() > end) break;
    }
    return CUDPO_OK;
}

static cudpo_status take_time(bench_time *out, bench_sets *s, bench_call call, double seconds)
{
    double sample[SAMPLES];
    int64_t calls = 0;
    CUDPO_TRY(warm_up(s, call, seconds));
    const double end = seconds_now() + seconds;
    while (calls < LEAST_CALLS || (seconds_now() < end && calls < SAMPLES - STAMPS / 2)) {
        int64_t n;
        CUDPO_TRY(run_round(sample + calls, &n, s, call));
        calls += n;
    }
    bench_summarise(out, sample, calls);
    return CUDPO_OK;
}

static bool is_output(const bench_case *c, int i)
{
    return c->operand[i].role == BENCH_OUT || c->operand[i].role == BENCH_INOUT;
}

static void free_outputs(float **host)
{
    for (int i = 0; i < BENCH_OPERANDS; i++) {
        free(host[i]);
        host[i] = NULL;
    }
}

static cudpo_status read_outputs(float **host, const bench_sets *s, int64_t set)
{
    for (int i = 0; i < s->c->count; i++) {
        if (is_output(s->c, i)) CUDPO_TRY(bench_sets_read(&host[i], s, set, i));
    }
    return CUDPO_OK;
}

/* A sum of n terms in float32 is off by some sqrt(n) roundings of what its terms come to, and the result, in its type, by
 * one more; probabilities that were rounded to bf16 in between add theirs.  Four times that is no rounding any more. */
static int64_t differing(const bench_case *c, int i, const float *got, const float *want)
{
    const bench_operand *o = &c->operand[i];
    const int64_t n = o->rows * o->cols;
    const double unit = o->type == DTYPE_BF16 ? 0x1p-8 : 0x1p-23;
    double squares = 0;
    for (int64_t j = 0; j < n; j++) {
        if (isfinite(want[j])) squares += (double)want[j] * (double)want[j];
    }
    const double size = sqrt(squares / (double)(n > 0 ? n : 1));
    const double inside = c->rounded ? 0x1p-8 : 0x1p-24 * (4 + sqrt(o->terms));
    int64_t wrong = 0;
    for (int64_t j = 0; j < n; j++) {
        const double a = (double)got[j], b = (double)want[j];
        if (a == b) continue;
        if (!(fabs(a - b) <= 4 * (unit * fabs(b) + inside * (size + fabs(b))))) wrong++;
    }
    return wrong;
}

static int64_t count_wrong(const bench_case *c, float *const *got, float *const *want, double value)
{
    int64_t wrong = 0;
    if (c->op->wrong != NULL) return c->op->wrong(c, got, value);
    for (int i = 0; i < c->count; i++) {
        if (is_output(c, i)) wrong += differing(c, i, got[i], want[i]);
    }
    return wrong;
}

/* What should come out: the CPU's op on the same numbers, or on the CPU the op in its stages. */
static cudpo_status judge(float **want, bench_sets *s)
{
    const bench_case *c = s->c;
    if (c->op->wrong != NULL) return CUDPO_OK;
    if (!s->be->on_device) {
        CUDPO_REQUIRE(c->op->plain != NULL);
        CUDPO_TRY(bench_sets_restore(s));
        CUDPO_TRY(c->op->plain(&s->run[0]));
        return read_outputs(want, s, 0);
    }
    bench_sets cpu;
    cudpo_status status = bench_sets_open(&cpu, backend_cpu(), c, 1);
    if (status == CUDPO_OK) status = c->op->call(&cpu.run[0]);
    if (status == CUDPO_OK) status = read_outputs(want, &cpu, 0);
    bench_sets_close(&cpu);
    return status;
}

/* Of the outputs that the last round left in every set. */
static cudpo_status look(int64_t *wrong, bench_sets *s)
{
    float *(*got)[BENCH_OPERANDS] = calloc((size_t)s->count, sizeof *got);
    float *want[BENCH_OPERANDS] = {0};
    cudpo_status status = got == NULL ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "outputs") : CUDPO_OK;
    for (int64_t i = 0; status == CUDPO_OK && i < s->count; i++)
        status = read_outputs(got[i], s, i);
    if (status == CUDPO_OK) status = judge(want, s);
    *wrong = 0;
    for (int64_t i = 0; status == CUDPO_OK && i < s->count; i++)
        *wrong += count_wrong(s->c, got[i], want, s->run[i].value);
    for (int64_t i = 0; got != NULL && i < s->count; i++)
        free_outputs(got[i]);
    free_outputs(want);
    free(got);
    return status;
}

static cudpo_status measure(bench_result *r, bench_sets *s, const bench_settings *settings)
{
    const bench_op *op = s->c->op;
    const double held = (double)bench_set_bytes(s->c, s->be->on_device);
    r->sets = s->count;
    /* Of a table only those rows are read that are asked for. */
    r->cached = (double)s->count * fmin(held, s->c->bytes) < 2.0 * (double)s->be->cache;
    CUDPO_TRY(take_time(&r->time, s, op->call, settings->seconds));
    if (settings->check) CUDPO_TRY(look(&r->wrong, s));
    if (settings->baseline && op->plain != NULL)
        CUDPO_TRY(take_time(&r->plain, s, op->plain, settings->seconds));
    return CUDPO_OK;
}

cudpo_status bench_measure(bench_result *r, backend *be, const bench_case *c,
                           const bench_settings *settings)
{
    bench_sets s;
    *r = (bench_result){.wrong = -1};
    CUDPO_TRY(bench_case_check(c));
    cudpo_status status = bench_sets_open(&s, be, c, BENCH_SETS);
    if (status == CUDPO_OK) status = measure(r, &s, settings);
    (void)be->sync(be); /* nothing of the sets is under way */
    bench_sets_close(&s);
    return status;
}
