/* peak.h - what a device reaches, for shares of it. */
#ifndef CUDPO_BENCH_PEAK_H
#define CUDPO_BENCH_PEAK_H

#include "backend/backend.h"

/** Time square products of random matrices, each size twice the one before, until one takes long enough and is no faster.
 *  Out:     rate  operations per second of the fastest;  size  its rows and columns.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM; the backend's failures. */
CUDPO_MUST_USE cudpo_status bench_product_peak(double *rate, int64_t *size, backend *be,
                                               dtype type);

#endif /* CUDPO_BENCH_PEAK_H */
