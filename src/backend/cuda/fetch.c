/* fetch.c - the stream of copies, and the events by which it and the stream of ops wait for one another.
 *
 * A wait is for the last record of an event before it, so one event of the ops is enough for all fetches. */
#include "backend/cuda/fetch.h"
#include "backend/cuda/runtime.h"

cudpo_status fetcher_open(fetcher *f)
{
    *f = (fetcher){0};
    CUDA_TRY(cudaStreamCreateWithFlags(&f->stream, cudaStreamNonBlocking));
    CUDA_TRY(cudaEventCreateWithFlags(&f->idle, cudaEventDisableTiming));
    for (int i = 0; i < FETCHES; i++) {
        CUDA_TRY(cudaEventCreateWithFlags(&f->there[i], cudaEventDisableTiming));
    }
    return CUDPO_OK;
}

void fetcher_close(fetcher *f)
{
    if (f->stream != NULL) (void)cudaStreamSynchronize(f->stream);
    for (int i = 0; i < FETCHES; i++) {
        if (f->there[i] != NULL) (void)cudaEventDestroy(f->there[i]);
    }
    if (f->idle != NULL) (void)cudaEventDestroy(f->idle);
    if (f->stream != NULL) (void)cudaStreamDestroy(f->stream);
    *f = (fetcher){0};
}

cudpo_status fetcher_fetch(fetcher *f, int slot, void *dst, const void *host, size_t bytes,
                           cudaStream_t ops)
{
    CUDA_TRY(cudaEventRecord(f->idle, ops));
    CUDA_TRY(cudaStreamWaitEvent(f->stream, f->idle, 0)); /* they may still read dst */
    CUDA_TRY(cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, f->stream));
    CUDA_TRY(cudaEventRecord(f->there[slot], f->stream));
    return CUDPO_OK;
}

cudpo_status fetcher_arrived(fetcher *f, int slot, cudaStream_t ops)
{
    CUDA_TRY(cudaStreamWaitEvent(ops, f->there[slot], 0));
    return CUDPO_OK;
}
