/* cuda.h - the CUDA backend: device memory, one stream, the kernels. */
#ifndef CUDPO_BACKEND_CUDA_H
#define CUDPO_BACKEND_CUDA_H

#include "backend/backend.h"

/** Open the CUDA backend on the current device.
 *  Out:     be  to be given to backend_cuda_close().
 *  Returns: CUDPO_OK; CUDPO_EDEVICE where there is no usable GPU, with the reason; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status backend_cuda_open(backend **be);
void backend_cuda_close(backend *be);

/** The bits of kernels.h that kernels have set since the last call, which waits for the stream and clears them. */
CUDPO_MUST_USE cudpo_status backend_cuda_faults(backend *be, uint32_t *bits);

#endif /* CUDPO_BACKEND_CUDA_H */
