/* device.h - the backend that a command computes on. */
#ifndef CUDPO_TRAIN_DEVICE_H
#define CUDPO_TRAIN_DEVICE_H

#include "backend/backend.h"

/** See backend_open(); what the device measures once is kept in the cache folder (cache_folder()).
 *  In:      device    "auto", "cpu", "cuda"; NULL: auto.
 *           fallback  as cache_folder() takes it. */
CUDPO_MUST_USE cudpo_status device_open(backend **be, const char *device, const char *fallback);

/** No op has reported an index out of range, which would be a bug of ours: waits for the device. */
CUDPO_MUST_USE cudpo_status device_check(backend *be);

#endif /* CUDPO_TRAIN_DEVICE_H */
