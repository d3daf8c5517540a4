/* queued.h - a communicator for tensors in host memory whose collectives are done by a thread, one after another. */
#ifndef CUDPO_DIST_QUEUED_H
#define CUDPO_DIST_QUEUED_H

#include "dist/communicator.h"
#include "dist/queue.h"

/* How collectives are done. */
typedef struct queued_transport {
    const char *name;
    void *context;
    /* One collective, in the thread, of f32: ends soon after the company has failed, with its status. */
    cudpo_status (*work)(void *context, const queue_job *job);
    /* Behind the last collective, in the thread that opened it; `failed`: not all were done, and peers may be gone. */
    void (*close)(void *context, bool failed);
} queued_transport;

/** In:      t  copied.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM, and then the transport is still the caller's. */
CUDPO_MUST_USE cudpo_status communicator_queued(communicator **out, const queued_transport *t,
                                                backend *be, control *company, int32_t rank,
                                                int32_t size);

#endif /* CUDPO_DIST_QUEUED_H */
