/* fetch.h - copies of pinned memory to the device, in a stream of their own beside that of the ops. */
#ifndef CUDPO_BACKEND_CUDA_FETCH_H
#define CUDPO_BACKEND_CUDA_FETCH_H

#include "backend/backend.h"

#include <cuda_runtime_api.h>

typedef struct fetcher {
    cudaStream_t stream;
    cudaEvent_t idle;           /* the ops that were enqueued before the last fetch are done */
    cudaEvent_t there[FETCHES]; /* the slot's last copy is done */
} fetcher;

/** Returns: CUDPO_OK; CUDPO_ENOMEM, CUDPO_EDEVICE: close it all the same. */
CUDPO_MUST_USE cudpo_status fetcher_open(fetcher *f);
void fetcher_close(fetcher *f);

/** Enqueue a copy behind all that `ops` has been given so far. */
CUDPO_MUST_USE cudpo_status fetcher_fetch(fetcher *f, int slot, void *dst, const void *host,
                                          size_t bytes, cudaStream_t ops);

/** What `ops` is given from now on comes behind the slot's last copy. */
CUDPO_MUST_USE cudpo_status fetcher_arrived(fetcher *f, int slot, cudaStream_t ops);

#endif /* CUDPO_BACKEND_CUDA_FETCH_H */
