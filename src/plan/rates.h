/* rates.h - how fast a device does what training asks of it: assumed from its data sheet, or as measured there.
 *
 * A calibration file is what `cudpo bench --calibrate FILE` writes:
 *
 *   {"format": "cudpo calibration 1",
 *    "devices": {
 *      "NVIDIA H200": {
 *        "about": "any text: versions, date, commit",
 *        "copy_gbps": 4264,                                    a copy of more than the caches hold: bytes read and written
 *        "gemm_tflops": {"bfloat16": 690, "float32": 52},      products of a trunk's shapes, forward and backward
 *        "attention_tflops": {"64": {"forward": 238, "backward": 211}, "128": {"forward": 267, "backward": 227}},
 *                                                              by head dim, of a GPU in bfloat16; operations as in work.h
 *        "elementwise_gbps": 3900,                             norms, RoPE, SwiGLU: bytes as in work.h, over their time
 *        "head_gbps": 3800,                                    the pass over logits with gradients
 *        "adamw_gbps": 4050,
 *        "launch_us": 2.5,                                     the least time that an op takes
 *        "network_bus_gbps": 360}}}                            of a reduce-scatter in a node, as nccl-tests counts it
 *
 * Every field is optional: what a device lacks is assumed.  A device's key is the name that its driver gives it, or "cpu"; it
 * serves the GPU that gpu_is() finds in it.  Unknown keys are errors. */
#ifndef CUDPO_PLAN_RATES_H
#define CUDPO_PLAN_RATES_H

#include "base/buffer.h"
#include "cudpo/status.h"
#include "model/config.h"
#include "plan/gpus.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    RATE_HEAD_DIMS = 4, /* 64, 96, 128, 256 */
    RATE_SENTENCE = 400 /* bytes that an assumption takes at the most */
};

/* In SI units: operations and bytes a second, seconds.  0: unknown. */
typedef struct device_rates {
    double copy;
    double gemm_bf16, gemm_f32;
    double attention[RATE_HEAD_DIMS], attention_backward[RATE_HEAD_DIMS];
    double elementwise, head, adamw;
    double launch;
    double bus;                       /* in a node */
    double nic;                       /* each GPU's to other nodes */
    double latency_link, latency_nic; /* of a hop of a collective */
} device_rates;

/* The head dim of each column. */
int rates_head_dim(int i);
/* The column that serves a head dim: that of the next larger one. */
int rates_column(int64_t head_dim);

/** Assume what is 0 for a run of that model and type; of the CPU what little can be said without measuring.
 *  In/Out:  r     as measured, or 0: of attention, the column of the model's head dim is filled in.
 *  In:      name  where not NULL, is called with each assumption and its source. */
void rates_assume(device_rates *r, const gpu_facts *gpu, const model_config *c, dtype type,
                  void (*name)(void *context, const char *assumption), void *context);

/** The assumption about what a streamed reference's layers come at, which is gpu->host: of a GPU, where some run has one. */
void rates_assume_host(const gpu_facts *gpu, void (*name)(void *context, const char *assumption),
                       void *context);

/** What one of several ranks has of a machine whose cores, memory and NIC they share.  The bus stays: it is measured between
 *  ranks that share them. */
void rates_share(device_rates *r, int64_t ranks);

/** What a calibration file says of a device, over the rates that are there; *found: it says anything.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA naming file, device and key. */
CUDPO_MUST_USE cudpo_status rates_load(device_rates *rates, bool *found, const char *path,
                                       const gpu_facts *gpu);

/** A calibration file of one device, from what is not 0. */
CUDPO_MUST_USE cudpo_status rates_print(buffer *b, const device_rates *rates, const char *device,
                                        const char *about);

#endif /* CUDPO_PLAN_RATES_H */
