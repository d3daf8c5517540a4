/* device.h - the backend that a command computes on. */
#ifndef CUDPO_TRAIN_DEVICE_H
#define CUDPO_TRAIN_DEVICE_H

#include "backend/backend.h"

/* Of an output folder: what its run chose by measurement, so that it goes on with the same on any machine; and what its ranks
 * but the first chose, each in RANK.txt. */
#define DEVICE_CHOICES "gemm.txt"
#define DEVICE_RANK_CHOICES "gemm-ranks"

/** See backend_open(); what the device measures once is kept in the cache folder (cache_folder()).
 *  In:      device    "auto", "cpu", "cuda"; NULL: auto.
 *           local_rank  among the ranks of this host: its GPU is that number, modulo how many are visible.
 *           fallback  as cache_folder() takes it. */
CUDPO_MUST_USE cudpo_status device_open(backend **be, const char *device, int local_rank,
                                        const char *fallback);

/** No op has reported an index out of range, which would be a bug of ours: waits for the device. */
CUDPO_MUST_USE cudpo_status device_check(backend *be);

/** Take a rank's choices of an output folder's run, if it has any; keep them there from now on. */
CUDPO_MUST_USE cudpo_status device_recall(backend *be, const char *output_dir, int rank);
CUDPO_MUST_USE cudpo_status device_keep(backend *be, const char *output_dir, int rank);

#endif /* CUDPO_TRAIN_DEVICE_H */
