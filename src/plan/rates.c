/* rates.c - what is assumed of a device.
 *
 * Rates were measured on an H200 where the README says so, and are carried over to other GPUs by the ratio of their peaks.
 * Others are assumptions, each said with its source wherever it is used; what was measured is neither assumed nor said. */
#include "plan/rates.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static const int head_dims[RATE_HEAD_DIMS] = {64, 96, 128, 256};

int rates_head_dim(int i)
{
    return head_dims[i];
}

int rates_column(int64_t head_dim)
{
    for (int i = 0; i < RATE_HEAD_DIMS; i++)
        if (head_dim <= head_dims[i]) return i;
    return RATE_HEAD_DIMS - 1;
}

/* Who is told of assumptions. */
typedef struct listener {
    void (*name)(void *context, const char *assumption);
    void *context;
} listener;

static void say(const listener *to, const char *fmt, ...) CUDPO_PRINTF(2, 3);
static void say(const listener *to, const char *fmt, ...)
{
    char line[RATE_SENTENCE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (to->name != NULL) to->name(to->context, line);
}

/* A rate that nobody measured.  Returns whether that is so. */
static bool fill(double *rate, double assumed)
{
    if (*rate > 0) return false;
    *rate = assumed;
    return true;
}

/* A rate, what to assume of it, and how to say so. */
typedef struct assumption {
    double *rate, value;
    const char *text;
} assumption;

/* Those that nobody measured, with their texts, one behind another.  Returns whether there are any. */
static bool fill_all(char text[RATE_SENTENCE], const assumption *list, size_t n)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        if (!fill(list[i].rate, list[i].value)) continue;
        used += (size_t)snprintf(text + used, RATE_SENTENCE - used, "%s%s", used > 0 ? ", " : "",
                                 list[i].text);
    }
    return used > 0;
}

/* TFLOP/s that cuBLASLt is taken to reach on an H200 with 16,896 rows, by width: narrow models have products with few tiles. */
static double gemm_of_width(int64_t width)
{
    static const double at[][2] = {{896, 600e12}, {2048, 680e12}, {4096, 720e12}};
    if (width <= 896) return at[0][1];
    for (int i = 0; i + 1 < 3; i++) {
        const double share = log((double)width / at[i][0]) / log(at[i + 1][0] / at[i][0]);
        if ((double)width <= at[i + 1][0]) return at[i][1] + share * (at[i + 1][1] - at[i][1]);
    }
    return at[2][1];
}

#define H200_PEAK 989.4e12
#define H200_BANDWIDTH 4800e9
#define H200_COPY 4264e9 /* measured; so are the shares of it below */

static void cpu_rates(device_rates *r, int column, const listener *to)
{
    const assumption list[] = {{&r->gemm_f32, 50e9, "products at 50 GFLOP/s"},
                               {&r->attention[column], 25e9, "attention at 25"},
                               {&r->attention_backward[column], 25e9, "its backward pass at 25"},
                               {&r->copy, 10e9, "a copy at 10 GB/s"},
                               {&r->elementwise, 10e9, "norms, RoPE and SwiGLU at 10 GB/s"},
                               {&r->head, 5e9, "logits at 5 GB/s"},
                               {&r->adamw, 8e9, "AdamW at 8 GB/s"},
                               {&r->launch, 2e-6, "2 us an op"},
                               {&r->bus, 5e9, "5 GB/s between ranks of a machine"},
                               {&r->nic, 1e9, "1 GB/s between machines"}};
    char text[RATE_SENTENCE];
    if (fill_all(text, list, sizeof list / sizeof *list))
        say(to, "placeholders that say nothing of this machine, to be calibrated: %s", text);
    r->latency_link = 5e-6;
    r->latency_nic = 30e-6;
}

static void products(device_rates *r, const gpu_facts *gpu, int64_t width, bool half,
                     const listener *to)
{
    if (fill(&r->gemm_bf16, gemm_of_width(width) * gpu->bf16 / H200_PEAK) && half)
        say(to,
            "products: %.0f TFLOP/s: 600, 680, 720 of 989 for widths of 896, 2048, 4096, an "
            "assumption about cuBLASLt that is yet to be measured",
            r->gemm_bf16 * 1e-12);
    if (fill(&r->gemm_f32, 0.8 * gpu->f32) && !half)
        say(to, "products in float32: %.0f TFLOP/s, 80 %% of the peak: an assumption",
            r->gemm_f32 * 1e-12);
}

/* The kernel of float32 is a plain one without tensor cores: for each of its multiply-adds it reads four bytes of shared memory,
 * which takes four times as long.  Calibrations on GPUs are of bfloat16. */
#define F32_ATTENTION 0.2

static void attention_in_f32(device_rates *r, const gpu_facts *gpu, int column, const listener *to)
{
    r->attention[column] = r->attention_backward[column] = F32_ATTENTION * gpu->f32;
    say(to,
        "attention in float32: %.0f TFLOP/s, 20 %% of the peak without tensor cores: an "
        "assumption, "
        "also where bfloat16's was measured",
        r->attention[column] * 1e-12);
}

static void attention(device_rates *r, const gpu_facts *gpu, int column, const listener *to)
{
    static const double measured[2][RATE_HEAD_DIMS] = {{238e12, 238e12, 267e12, 267e12},
                                                       {211e12, 211e12, 227e12, 227e12}};
    const double scale = gpu->bf16 / H200_PEAK;
    const bool forward = fill(&r->attention[column], measured[0][column] * scale);
    const bool backward = fill(&r->attention_backward[column], measured[1][column] * scale);
    if (forward || backward)
        say(to,
            "attention%s: 238 and 211 TFLOP/s forward and backward with heads up to 96, 267 and "
            "227 above: measured on an H200 (README), by peak",
            !backward  ? ", forward"
            : !forward ? ", backward"
                       : "");
}

/* Of ops that memory bounds. */
static void memory_rates(device_rates *r, const gpu_facts *gpu, const listener *to)
{
    char text[RATE_SENTENCE];
    if (fill(&r->copy, gpu->bandwidth * (H200_COPY / H200_BANDWIDTH)))
        say(to, "memory: copy %.0f GB/s, 89 %% of the data sheet's as measured on an H200",
            r->copy * 1e-9);
    const assumption list[] = {{&r->elementwise, 0.88 * r->copy, "norms, RoPE and SwiGLU 88 %"},
                               {&r->head, 0.90 * r->copy, "logits 90 %"},
                               {&r->adamw, 0.95 * r->copy, "AdamW 95 %"}};
    if (fill_all(text, list, sizeof list / sizeof *list))
        say(to, "memory: of a copy's rate %s (README)", text);
}

static void network_rates(device_rates *r, const gpu_facts *gpu, const listener *to)
{
    if (fill(&r->bus, 0.8 * gpu->link))
        say(to,
            "network: %.0f GB/s in a node, 80 %% of the link (360 of 450 in published runs of "
            "nccl-tests)",
            r->bus * 1e-9);
    r->nic = 0.92 * gpu->nic;
    r->latency_link = 3.4e-6;
    r->latency_nic = 14e-6;
    say(to,
        "network: %.0f GB/s a GPU between nodes, 92 %% of the NIC (46 of 50); hops of 3.4 and 14 "
        "us (NCCL's own model)",
        r->nic * 1e-9);
}

static void gpu_rates(device_rates *r, const gpu_facts *gpu, const model_config *c, dtype type,
                      const listener *to)
{
    const int column = rates_column(c->head_dim);
    products(r, gpu, c->hidden_size, type != DTYPE_F32, to);
    if (type == DTYPE_F32)
        attention_in_f32(r, gpu, column, to);
    else
        attention(r, gpu, column, to);
    memory_rates(r, gpu, to);
    if (fill(&r->launch, 2.5e-6)) say(to, "an op takes 2.5 us at least: an assumption");
    network_rates(r, gpu, to);
}

void rates_assume(device_rates *r, const gpu_facts *gpu, const model_config *c, dtype type,
                  void (*name)(void *context, const char *assumption), void *context)
{
    const listener to = {name, context};
    if (gpu->memory == 0)
        cpu_rates(r, rates_column(c->head_dim), &to);
    else
        gpu_rates(r, gpu, c, type, &to);
}

void rates_assume_host(const gpu_facts *gpu, void (*name)(void *context, const char *assumption),
                       void *context)
{
    const listener to = {name, context};
    say(&to,
        "layers of a streamed reference: %.0f GB/s from the host's memory: an assumption about "
        "PCIe",
        gpu->host * 1e-9);
}

void rates_share(device_rates *r, int64_t ranks)
{
    double *const all[] = {&r->copy, &r->gemm_bf16, &r->gemm_f32, &r->elementwise,
                           &r->head, &r->adamw,     &r->nic};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] /= (double)ranks;
    for (int i = 0; i < RATE_HEAD_DIMS; i++) {
        r->attention[i] /= (double)ranks;
        r->attention_backward[i] /= (double)ranks;
    }
}
