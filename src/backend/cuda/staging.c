/* staging.c - a ring of pinned memory. */
#include "backend/cuda/staging.h"
#include "backend/cuda/runtime.h"

#include <string.h>

cudpo_status staging_open(staging *s)
{
    void *memory = NULL;
    *s = (staging){0};
    CUDA_TRY(cudaMallocHost(&memory, (size_t)STAGING_SEGMENTS * STAGING_SEGMENT));
    s->memory = memory;
    for (int i = 0; i < STAGING_SEGMENTS; i++) {
        CUDA_TRY(cudaEventCreateWithFlags(&s->event[i], cudaEventDisableTiming));
    }
    return CUDPO_OK;
}

void staging_close(staging *s)
{
    for (int i = 0; i < STAGING_SEGMENTS; i++) {
        if (s->event[i] != NULL) (void)cudaEventDestroy(s->event[i]);
    }
    if (s->memory != NULL) (void)cudaFreeHost(s->memory);
    *s = (staging){0};
}

static cudpo_status next_segment(staging *s, cudaStream_t stream)
{
    CUDA_TRY(cudaEventRecord(s->event[s->current], stream));
    s->marked[s->current] = true;
    s->current = (s->current + 1) % STAGING_SEGMENTS;
    s->used = 0;
    if (s->marked[s->current]) CUDA_TRY(cudaEventSynchronize(s->event[s->current]));
    return CUDPO_OK;
}

cudpo_status staging_copy(staging *s, void *to, const void *from, size_t bytes, cudaStream_t stream)
{
    for (size_t done = 0; done < bytes;) {
        if (s->used == STAGING_SEGMENT) CUDPO_TRY(next_segment(s, stream));
        const size_t left = STAGING_SEGMENT - s->used;
        const size_t n = bytes - done < left ? bytes - done : left;
        char *const at = s->memory + (size_t)s->current * STAGING_SEGMENT + s->used;
        memcpy(at, (const char *)from + done, n);
        CUDA_TRY(cudaMemcpyAsync((char *)to + done, at, n, cudaMemcpyHostToDevice, stream));
        s->used += n;
        done += n;
    }
    return CUDPO_OK;
}
