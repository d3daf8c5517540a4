/* gpus.h - what is known of GPUs before anything is measured on one: datasheets. */
#ifndef CUDPO_PLAN_GPUS_H
#define CUDPO_PLAN_GPUS_H

#include "backend/backend.h"
#include "cudpo/status.h"

#include <stdbool.h>

/* Decimal units: GB/s = 1e9 B/s. */
typedef struct gpu_facts {
    const char *name;    /* as on the command line */
    const char *product; /* words of what the driver calls it: see gpu_is() */
    double memory;       /* bytes, as the CUDA runtime counts them */
    double bf16, f32;    /* dense FLOP/s of tensor cores, of float32 without them */
    double bandwidth;    /* B/s of its memory */
    int multiprocessors;
    double link; /* B/s to its peers in a node, each way: NVLink, or PCIe where there is none */
    double nic;  /* B/s of the network, for each GPU */
    double host; /* B/s from the host's memory */
} gpu_facts;

/* The table, and how many lines it has.  The first is the CPU of this machine, whose numbers are 0. */
const gpu_facts *gpu_table(int *n);

/** Of that name, whatever its case.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE: the names that are known, and the one that was probably meant. */
CUDPO_MUST_USE cudpo_status gpu_find(const gpu_facts **out, const char *name);

/** Whether a driver's name of a device, such as "NVIDIA H100 80GB HBM3", is that of the product: it holds its words, behind which
 *  stand only those of its memory.  A variant (H100 PCIe, H100 NVL, RTX 4090 Laptop GPU, a part of a GPU) has a data sheet of its
 *  own, as has GH200. */
bool gpu_is(const gpu_facts *gpu, const char *name);

/* A backend that has such a GPU's memory and asks for the same working memory, and can do nothing.  That of the CPU does not say
 * how much is available, as in training. */
backend gpu_stand_in(const gpu_facts *gpu);

#endif /* CUDPO_PLAN_GPUS_H */
