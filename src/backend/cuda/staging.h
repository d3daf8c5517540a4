/* staging.h - the way of the host's memory to the device: through pinned memory, so that the caller may go on at once. */
#ifndef CUDPO_BACKEND_CUDA_STAGING_H
#define CUDPO_BACKEND_CUDA_STAGING_H

#include "cudpo/status.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

/* A ring of segments.  Copies fill one after the other; one that is come to again is waited for, and holds nothing then
 * that is still to be copied. */
enum { STAGING_SEGMENTS = 4, STAGING_SEGMENT = 2 << 20 };

typedef struct staging {
    char *memory;
    cudaEvent_t event[STAGING_SEGMENTS]; /* the segment's copies are done */
    bool marked[STAGING_SEGMENTS];       /* its event was recorded */
    int current;
    size_t used; /* bytes of the current segment */
} staging;

/** Returns: CUDPO_OK; CUDPO_ENOMEM, CUDPO_EDEVICE: close it all the same. */
CUDPO_MUST_USE cudpo_status staging_open(staging *s);
void staging_close(staging *s); /* the stream has been waited for */

/** Enqueue a copy; `from` may be changed when this returns. */
CUDPO_MUST_USE cudpo_status staging_copy(staging *s, void *to, const void *from, size_t bytes,
                                         cudaStream_t stream);

#endif /* CUDPO_BACKEND_CUDA_STAGING_H */
