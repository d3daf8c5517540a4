/* calibrate.c - sums over the ops of a kind, and their file. */
#include "bench/calibrate.h"
#include "base/file.h"
#include "bench/machine.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static void add(bench_sum *s, double work, const bench_result *r)
{
    s->work += work;
    s->seconds += r->time.median;
}

/* Ops whose bytes a plan counts as elementwise: see work.h. */
static bool is_elementwise(const char *op)
{
    static const char *const ops[] = {"add_rmsnorm", "rmsnorm", "rope", "swiglu"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (strcmp(op, ops[i]) == 0) return true;
    }
    return false;
}

/* The larger a message is, the less its latency counts. */
static void add_collective(bench_sums *s, const bench_case *c, const bench_result *r)
{
    if (strcmp(c->op->op, "all_reduce") != 0 || c->bytes <= s->bus_bytes) return;
    s->bus_bytes = c->bytes;
    s->bus = c->bytes / r->time.median;
}

/* Products of the head are like those of a trunk: the same kinds, in the same library. */
void bench_sums_add(bench_sums *s, const bench_case *c, const bench_result *r)
{
    const char *op = c->op->op;
    const bool backward = strcmp(c->op->pass, "backward") == 0;
    if (c->ranks > 1) {
        add_collective(s, c, r);
        return;
    }
    if (strcmp(op, "gemm") == 0)
        add(c->type == DTYPE_BF16 ? &s->gemm_bf16 : &s->gemm_f32, c->flops, r);
    else if (strcmp(op, "attention") == 0)
        add(&(backward ? s->attention_backward : s->attention)[rates_column(c->attention.head_dim)],
            c->flops, r);
    else if (is_elementwise(op))
        add(&s->elementwise, c->bytes, r);
    else if (strcmp(op, "token_logprob") == 0 && backward)
        add(&s->head, c->bytes, r);
    else if (strcmp(op, "adamw") == 0)
        add(&s->adamw, c->bytes, r);
}

static double rate(const bench_sum *s)
{
    return s->seconds > 0 ? s->work / s->seconds : 0;
}

cudpo_status bench_calibration_write(const char *path, const bench_sums *s,
                                     const bench_ceilings *ceilings, const backend *be)
{
    char name[128], about[160], date[32];
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%d", &utc);
    bench_device_name(name, sizeof name, be);
    snprintf(about, sizeof about, "cudpo %s, %s, cudpo bench --calibrate", CUDPO_VERSION, date);
    device_rates r = {.copy = ceilings->copy_gbps * 1e9,
                      .gemm_bf16 = rate(&s->gemm_bf16),
                      .gemm_f32 = rate(&s->gemm_f32),
                      .elementwise = rate(&s->elementwise),
                      .head = rate(&s->head),
                      .adamw = rate(&s->adamw),
                      .launch = s->launch,
                      .bus = s->bus};
    for (int i = 0; i < RATE_HEAD_DIMS; i++) {
        r.attention[i] = rate(&s->attention[i]);
        r.attention_backward[i] = rate(&s->attention_backward[i]);
    }
    buffer b = {0};
    cudpo_status status = rates_print(&b, &r, name, about);
    if (status == CUDPO_OK) status = file_write(path, b.data, b.size);
    buffer_free(&b);
    return status;
}
