/* ceilings.c - what the machine can do: a large copy, a large product, an op with nothing to do. */
#include "bench/measure.h"
#include "bench/peak.h"

#include <math.h>

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Of four times the largest cache, 64 MB at least. */
static void make_copy(bench_case *c, const backend *be)
{
    const int64_t rows = larger((int64_t)(4 * be->cache), 64 << 20) / 4096;
    c->bytes = 2.0 * (double)rows * 4096;
    bench_add(c, BENCH_IN, DTYPE_F32, rows, 1024, 1);
    bench_add(c, BENCH_OUT, DTYPE_F32, rows, 1024, 1);
}
static cudpo_status call_copy(bench_run *r)
{
    return r->be->copy(r->be, r->t[1], r->t[0]);
}

static const bench_op copy_op = {"copy", "", 0, NULL, call_copy, NULL, NULL};

/* Of a few numbers. */
static void make_smallest(bench_case *c)
{
    c->bytes = 3.0 * 64 * 4;
    bench_add(c, BENCH_INOUT, DTYPE_F32, 1, 64, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, 1, 64, 1);
}
static cudpo_status call_add(bench_run *r)
{
    return r->be->add(r->be, r->t[0], r->t[1]);
}

static const bench_op smallest_op = {"add", "", 0, NULL, call_add, NULL, NULL};

static cudpo_status time_of(double *seconds, backend *be, bench_case *c,
                            const bench_settings *settings)
{
    bench_settings alone = *settings;
    bench_result r;
    alone.baseline = alone.check = false;
    const cudpo_status status = bench_measure(&r, be, c, &alone);
    *seconds = r.time.least; /* what disturbs a copy is no limit of the machine */
    return status;
}

cudpo_status bench_measure_ceilings(bench_ceilings *out, backend *be,
                                    const bench_settings *settings, bool products)
{
    double seconds = 0;
    *out = (bench_ceilings){0};
    bench_case c = {.op = &copy_op};
    make_copy(&c, be);
    cudpo_status status = time_of(&seconds, be, &c, settings);
    out->copy_gbps = c.bytes / seconds * 1e-9;
    bench_case_free(&c);
    for (int half = 0; products && status == CUDPO_OK && half < 1 + be->on_device; half++) {
        double rate = 0;
        int64_t size;
        status = bench_product_peak(&rate, &size, be, half ? DTYPE_BF16 : DTYPE_F32);
        *(half ? &out->bf16_tflops : &out->f32_tflops) = rate * 1e-12;
    }
    return status;
}

cudpo_status bench_measure_launch(double *seconds, backend *be, const bench_settings *settings)
{
    bench_case c = {.op = &smallest_op};
    make_smallest(&c);
    const cudpo_status status = time_of(seconds, be, &c, settings);
    bench_case_free(&c);
    return status;
}

double bench_least_seconds(const bench_case *c, const bench_ceilings *ceilings)
{
    if (c->ranks > 1) return ceilings->link_gbps > 0 ? c->bytes / (ceilings->link_gbps * 1e9) : 0;
    const double tflops = c->type == DTYPE_BF16 && ceilings->bf16_tflops > 0 ? ceilings->bf16_tflops
                                                                             : ceilings->f32_tflops;
    return fmax(c->bytes / (ceilings->copy_gbps * 1e9), c->flops / (tflops * 1e12));
}
