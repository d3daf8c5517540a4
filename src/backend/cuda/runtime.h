/* runtime.h - calls of the CUDA runtime whose failure is ours. */
#ifndef CUDPO_BACKEND_CUDA_RUNTIME_H
#define CUDPO_BACKEND_CUDA_RUNTIME_H

#include "cudpo/status.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

/** Returns: CUDPO_ENOMEM or CUDPO_EDEVICE, with the call, the reason and what helps in the message. */
cudpo_status cuda_failed(const char *where, const char *call, cudaError_t error);

/** What a person can do where a call failed for no reason of memory: the end of a message. */
const char *cuda_device_remedy(void);

/* Return the failure of a call of the CUDA runtime to our caller. */
#define CUDA_TRY(call)                                                                      \
    do {                                                                                    \
        const cudaError_t cuda_error_ = (call);                                             \
        if (cuda_error_ != cudaSuccess) return cuda_failed(CUDPO_HERE, #call, cuda_error_); \
    } while (0)

#endif /* CUDPO_BACKEND_CUDA_RUNTIME_H */
