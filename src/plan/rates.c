/* rates.c - what is assumed of a device.
 *
 * Rates were measured on an H200 where the README says so, and are carried over to other GPUs by the ratio of their peaks.
 * Others are assumptions, each said with its source wherever it is used. */
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

typedef void (*namer)(void *context, const char *assumption);

static void say(namer name, void *context, const char *fmt, ...) CUDPO_PRINTF(3, 4);
static void say(namer name, void *context, const char *fmt, ...)
{
    char line[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (name != NULL) name(context, line);
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

/* A core does a vector of fused multiply-adds, and half of that is common. */
static device_rates cpu_rates(namer name, void *context)
{
    say(name, context,
        "CPU: 50 GFLOP/s, 10 GB/s: placeholders that say nothing of this machine; calibrate it");
    device_rates r = {.copy = 10e9,
                      .gemm_f32 = 50e9,
                      .elementwise = 10e9,
                      .head = 5e9,
                      .adamw = 8e9,
                      .launch = 2e-6,
                      .bus = 5e9,
                      .nic = 1e9,
                      .latency_link = 5e-6,
                      .latency_nic = 30e-6};
    for (int i = 0; i < RATE_HEAD_DIMS; i++)
        r.attention[i] = r.attention_backward[i] = 25e9;
    return r;
}

static void attention_rates(device_rates *r, double scale)
{
    static const double forward[RATE_HEAD_DIMS] = {238e12, 238e12, 267e12, 267e12};
    static const double backward[RATE_HEAD_DIMS] = {211e12, 211e12, 227e12, 227e12};
    for (int i = 0; i < RATE_HEAD_DIMS; i++) {
        r->attention[i] = forward[i] * scale;
        r->attention_backward[i] = backward[i] * scale;
    }
}

device_rates rates_assumed(const gpu_facts *gpu, int64_t hidden_size, namer name, void *context)
{
    if (gpu->memory == 0) return cpu_rates(name, context);
    const double scale = gpu->bf16 / H200_PEAK;
    device_rates r = {.gemm_bf16 = gemm_of_width(hidden_size) * scale, .gemm_f32 = gpu->f32 * 0.8};
    attention_rates(&r, scale);
    r.copy = gpu->bandwidth * (H200_COPY / H200_BANDWIDTH);
    r.elementwise = 0.88 * r.copy;
    r.head = 0.90 * r.copy;
    r.adamw = 0.95 * r.copy;
    r.launch = 2.5e-6;
    r.bus = 0.8 * gpu->link;
    r.nic = 0.92 * gpu->nic;
    r.latency_link = 3.4e-6;
    r.latency_nic = 14e-6;
    say(name, context,
        "products: %.0f TFLOP/s: 600, 680, 720 of 989 for widths of 896, 2048, 4096, an assumption "
        "about cuBLASLt that is yet to be measured",
        r.gemm_bf16 * 1e-12);
    say(name, context,
        "attention: 238 and 211 TFLOP/s forward and backward with heads up to 96, 267 and 227 "
        "above: "
        "measured on an H200 (README), by peak");
    say(name, context,
        "memory: copy %.0f GB/s, 89 %% of the data sheet's as measured on an H200; of it norms, "
        "RoPE "
        "and SwiGLU 88 %%, logits 90 %%, AdamW 95 %% (README)",
        r.copy * 1e-9);
    say(name, context, "an op takes 2.5 us at least: an assumption");
    say(name, context,
        "layers of a streamed reference: %.0f GB/s from the host's memory: an assumption about "
        "PCIe",
        gpu->host * 1e-9);
    say(name, context,
        "network: %.0f GB/s in a node, 80 %% of the link (360 of 450 in published runs of "
        "nccl-tests), "
        "%.0f GB/s a GPU between nodes, 92 %% of the NIC (46 of 50); hops of 3.4 and 14 us (NCCL's "
        "own "
        "model)",
        r.bus * 1e-9, r.nic * 1e-9);
    return r;
}
