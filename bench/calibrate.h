/* calibrate.h - from the times of ops to the rates that `cudpo plan` reckons with. */
#ifndef CUDPO_BENCH_CALIBRATE_H
#define CUDPO_BENCH_CALIBRATE_H

#include "bench/measure.h"
#include "plan/rates.h"

/* Bytes or operations, and the seconds that they took. */
typedef struct bench_sum {
    double work, seconds;
} bench_sum;

/* Of each kind that a plan tells apart. */
typedef struct bench_sums {
    bench_sum gemm_bf16, gemm_f32, elementwise, head, adamw;
    bench_sum attention[RATE_HEAD_DIMS], attention_backward[RATE_HEAD_DIMS];
    double launch;         /* of bench_measure_launch() */
    double bus, bus_bytes; /* of the largest all-reduce so far, in bytes a second; 0: none yet */
} bench_sums;

/** Add what a case says of a rate, if it says anything.  Of collectives those of ranks of one node do: a plan's bus is in a node. */
void bench_sums_add(bench_sums *s, const bench_case *c, const bench_result *r);

/** Write a calibration file of the device (see rates.h): what was not measured is not in it.
 *  Returns: CUDPO_OK; CUDPO_EWRITE, CUDPO_EPERM; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status bench_calibration_write(const char *path, const bench_sums *s,
                                                    const bench_ceilings *ceilings,
                                                    const backend *be);

#endif /* CUDPO_BENCH_CALIBRATE_H */
