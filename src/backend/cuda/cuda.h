/* cuda.h - the CUDA backend: device memory, one stream, the kernels. */
#ifndef CUDPO_BACKEND_CUDA_H
#define CUDPO_BACKEND_CUDA_H

#include "backend/backend.h"

/** Open the CUDA backend.
 *  Out:     be  to be closed by its own close().
 *  In:      options  NULL: the first device, nothing kept on disk.
 *  Returns: CUDPO_OK; CUDPO_EDEVICE where there is no usable GPU, with the reason; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status backend_cuda_open(backend **be, const backend_options *options);

/** What there is of drivers, libraries and GPUs, whether usable or not: a call of `line` for each fact. */
void backend_cuda_report(void (*line)(void *context, const char *name, const char *value),
                         void *context);

/** Version of cudpo that the backend was built with, and the bytes of its table: a program of another does not fit. */
const char *backend_cuda_version(size_t *table_bytes);

#endif /* CUDPO_BACKEND_CUDA_H */
