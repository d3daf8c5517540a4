/* network.h - time of gradients on their way between GPUs, and how much of it the computation hides. */
#ifndef CUDPO_PLAN_NETWORK_H
#define CUDPO_PLAN_NETWORK_H

#include "plan/rates.h"

#include <stdint.h>

/* A number of GPUs, alike many in each node. */
typedef struct network {
    int64_t gpus, nodes;
} network;

/* GPUs of a node; of the fullest, where they do not fill all. */
int64_t network_ranks(const network *n);

/** Seconds of a reduce-scatter, or of an all-gather, of that many bytes; an all-reduce takes both. */
double network_half(const network *n, const device_rates *r, double bytes);

/* A step as the network sees it. */
typedef struct network_load {
    double bytes; /* of the gradient */
    double
        last; /* of them, those that are complete only when the backward pass is: the embedding's, the first layer's */
    double weights; /* bytes that an all-gather of updated weights moves */
    double
        forward; /* seconds of the forward pass that such an all-gather runs beside; 0: of none, as cudpo's */
    double backward; /* seconds of the last micro-batch's backward pass */
    int64_t zero_stage;
} network_load;

typedef struct network_time {
    double total;   /* of all collectives */
    double exposed; /* of it, what the step waits for */
    double tax;     /* what computation loses to the collectives beside it */
} network_time;

/** Gradients are added up bucket by bucket while the backward pass of the last micro-batch runs.  ZeRO-1: each rank gets its
 *  share of them, updates its share of the weights, and gathers the others' while the next forward pass begins. */
network_time network_step(const network *n, const device_rates *r, const network_load *load);

#endif /* CUDPO_PLAN_NETWORK_H */
