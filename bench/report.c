/* report.c - a line and a JSON object for each case. */
#include "bench/report.h"
#include "bench/machine.h"

#include <inttypes.h>
#include <omp.h>
#include <string.h>
#include <time.h>

/* 0: nobody knows what a ceiling would be. */
static double percent(const bench_case *c, const bench_result *r, const bench_ceilings *ceilings)
{
    return 100 * bench_least_seconds(c, ceilings) / r->time.median;
}

cudpo_status bench_head(buffer *out, const backend *be, const bench_ceilings *ceilings)
{
    CUDPO_TRY(buffer_printf(out, "%s: a large copy reaches %.1f GB/s", be->description,
                            ceilings->copy_gbps));
    if (ceilings->f32_tflops > 0)
        CUDPO_TRY(buffer_printf(out, ", a large product %.2f TFLOP/s", ceilings->f32_tflops));
    if (ceilings->bf16_tflops > 0)
        CUDPO_TRY(buffer_printf(out, " in float32, %.1f in bfloat16", ceilings->bf16_tflops));
    if (ceilings->link_gbps > 0)
        CUDPO_TRY(buffer_printf(out,
                                "\n%d ranks, %s: a large message goes from one to the next "
                                "with %.2f GB/s",
                                (int)ceilings->ranks, ceilings->communicator, ceilings->link_gbps));
    return buffer_printf(out, "\n%-16s %-8s %-40s %10s %10s %9s %9s %8s %9s %6s", "op", "pass",
                         "shape", "median us", "least us", "GB/s", "TFLOP/s", "ceiling", "unfused",
                         "wrong");
}

cudpo_status bench_line(buffer *out, const bench_case *c, const bench_result *r,
                        const bench_ceilings *ceilings)
{
    const double seconds = r->time.median;
    CUDPO_TRY(buffer_printf(out, "%-16s %-8s %-40s %10.1f %10.1f %9.1f ", c->op->op, c->op->pass,
                            c->text, seconds * 1e6, r->time.least * 1e6,
                            c->bytes / seconds * 1e-9));
    CUDPO_TRY(c->flops > 0 ? buffer_printf(out, "%9.3f", c->flops / seconds * 1e-12)
                           : buffer_printf(out, "%9s", "-"));
    const double share = percent(c, r, ceilings);
    CUDPO_TRY(share > 0 ? buffer_printf(out, " %6.1f %%", share) : buffer_printf(out, " %8s", "-"));
    CUDPO_TRY(r->plain.calls > 0 ? buffer_printf(out, " %7.2f x", r->plain.median / seconds)
                                 : buffer_printf(out, " %9s", "-"));
    CUDPO_TRY(r->wrong >= 0 ? buffer_printf(out, " %6" PRId64, r->wrong)
                            : buffer_printf(out, " %6s", "-"));
    return r->cached ? buffer_printf(out, "  (in the cache)") : CUDPO_OK;
}

/* null where it is not known. */
static cudpo_status text_member(buffer *out, const char *key, const char *text)
{
    if (text == NULL) return buffer_printf(out, "\"%s\": null, ", key);
    CUDPO_TRY(buffer_printf(out, "\"%s\": ", key));
    CUDPO_TRY(buffer_json_string(out, text, strlen(text)));
    return buffer_printf(out, ", ");
}

static cudpo_status number_member(buffer *out, const char *key, double value)
{
    CUDPO_TRY(buffer_printf(out, "\"%s\": ", key));
    CUDPO_TRY(buffer_json_number(out, value));
    return buffer_printf(out, ", ");
}

static cudpo_status number_or_null(buffer *out, const char *key, bool known, double value)
{
    if (known) return number_member(out, key, value);
    return buffer_printf(out, "\"%s\": null, ", key);
}

/* Four digits after the point, as far as a clock is good for. */
static double rounded_us(double seconds)
{
    return (double)(int64_t)(seconds * 1e10 + 0.5) * 1e-4;
}

cudpo_status bench_json_begin(buffer *out, const backend *be, const bench_ceilings *ceilings,
                              const bench_settings *settings, const char *command)
{
    char date[32], processor[256];
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    bench_processor(processor, sizeof processor, "/proc/cpuinfo");
    CUDPO_TRY(buffer_printf(out, "{"));
    CUDPO_TRY(text_member(out, "version", CUDPO_VERSION));
    CUDPO_TRY(text_member(out, "date", date));
    CUDPO_TRY(text_member(out, "command", command));
    CUDPO_TRY(text_member(out, "processor", *processor != '\0' ? processor : NULL));
    CUDPO_TRY(number_member(out, "threads", omp_get_max_threads()));
    CUDPO_TRY(text_member(out, "backend", be->name));
    CUDPO_TRY(text_member(out, "device", be->description));
    CUDPO_TRY(number_member(out, "cache_bytes", (double)be->cache));
    CUDPO_TRY(number_member(out, "seconds", settings->seconds));
    CUDPO_TRY(number_member(out, "ranks", ceilings->ranks > 1 ? ceilings->ranks : 1));
    CUDPO_TRY(text_member(out, "communicator", ceilings->communicator));
    CUDPO_TRY(buffer_printf(out, "\"ceilings\": {"));
    CUDPO_TRY(number_member(out, "copy_gbps", ceilings->copy_gbps));
    CUDPO_TRY(number_member(out, "float32_tflops", ceilings->f32_tflops));
    CUDPO_TRY(number_or_null(out, "link_gbps", ceilings->link_gbps > 0, ceilings->link_gbps));
    CUDPO_TRY(buffer_printf(out, "\"bfloat16_tflops\": "));
    CUDPO_TRY(buffer_json_number(out, ceilings->bf16_tflops));
    return buffer_printf(out, "},\n\"rows\": [");
}

cudpo_status bench_json_row(buffer *out, bool first, const bench_case *c, const bench_result *r,
                            const bench_ceilings *ceilings)
{
    const double seconds = r->time.median, share = percent(c, r, ceilings);
    CUDPO_TRY(buffer_printf(out, "%s\n{", first ? "" : ","));
    CUDPO_TRY(text_member(out, "op", c->op->op));
    CUDPO_TRY(text_member(out, "pass", c->op->pass));
    CUDPO_TRY(text_member(out, "model", c->shape->name));
    CUDPO_TRY(text_member(out, "shape", c->text));
    CUDPO_TRY(text_member(out, "dtype", dtype_name(c->type)));
    CUDPO_TRY(number_member(out, "ranks", c->ranks > 1 ? c->ranks : 1));
    CUDPO_TRY(number_member(out, "median_us", rounded_us(seconds)));
    CUDPO_TRY(number_member(out, "min_us", rounded_us(r->time.least)));
    CUDPO_TRY(number_member(out, "spread_us", rounded_us(r->time.spread)));
    CUDPO_TRY(number_member(out, "calls", (double)r->time.calls));
    CUDPO_TRY(number_member(out, "sets", (double)r->sets));
    CUDPO_TRY(buffer_printf(out, "\"cached\": %s, ", r->cached ? "true" : "false"));
    CUDPO_TRY(number_member(out, "bytes", c->bytes));
    CUDPO_TRY(number_member(out, "flops", c->flops));
    CUDPO_TRY(number_member(out, "gbps", c->bytes / seconds * 1e-9));
    CUDPO_TRY(number_member(out, "tflops", c->flops / seconds * 1e-12));
    CUDPO_TRY(number_or_null(out, "percent_of_ceiling", share > 0, share));
    CUDPO_TRY(number_or_null(out, "baseline_ratio", r->plain.calls > 0, r->plain.median / seconds));
    CUDPO_TRY(buffer_printf(out, "\"wrong\": "));
    CUDPO_TRY(r->wrong >= 0 ? buffer_json_number(out, (double)r->wrong)
                            : buffer_printf(out, "null"));
    return buffer_printf(out, "}");
}
