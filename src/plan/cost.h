/* cost.h - time of work on a device: a roofline, op by op. */
#ifndef CUDPO_PLAN_COST_H
#define CUDPO_PLAN_COST_H

#include "model/config.h"
#include "plan/rates.h"
#include "plan/work.h"

/* Seconds by part of a step, and what it was made of. */
typedef struct cost {
    double pass[WORK_PASSES]; /* seconds */
    double kind[WORK_KINDS];  /* the same seconds, by kind of op */
    double memory;            /* of them, spent in ops that memory or launching limits */
    double operations;        /* done, not only useful ones */
} cost;

/* What a sink of items needs: begin with {0} sums. */
typedef struct cost_meter {
    const device_rates *rates;
    dtype type; /* of products */
    int head_dim_column;
    cost sum;
} cost_meter;

cost_meter cost_meter_of(const device_rates *rates, const model_config *c, dtype type);

/** Seconds of an op, once. */
double cost_item(const cost_meter *m, const work_item *item);

void cost_add(void *meter, const work_item *item); /* a work_sink */

double cost_total(const cost *c);
void cost_accumulate(cost *to, const cost *from, double factor);

#endif /* CUDPO_PLAN_COST_H */
