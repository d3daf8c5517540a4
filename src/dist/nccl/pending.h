/* pending.h - collectives that were given to the GPU and that it may not have done yet, as the watch looks at them.
 *
 * One thread begins them; any may look. */
#ifndef CUDPO_DIST_NCCL_PENDING_H
#define CUDPO_DIST_NCCL_PENDING_H

#include "dist/flight.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdbool.h>

enum { PENDING = 256 }; /* more than that and the host waits for the oldest */

/* A collective, for messages and the record. */
typedef struct collective {
    const char *op; /* NULL: none */
    int64_t sequence, step;
    flight *record; /* NULL: none */
} collective;

typedef struct pending_one {
    collective what;
    cudaEvent_t begin, end; /* the stream has come to it; has done it */
    bool whole;             /* end was recorded */
    bool started;           /* begin was seen */
} pending_one;

typedef struct pending {
    pthread_mutex_t lock; /* of what follows; not held in calls that may wait */
    pending_one ring[PENDING];
    collective last;     /* that is done */
    int64_t first, next; /* counted from 0: the oldest not known to be done, and the next one */
    void (*mark)(flight *f, int64_t sequence, flight_state state);
} pending;

/** In: mark  flight_mark().  Returns: CUDPO_OK; CUDPO_ENOMEM, CUDPO_EDEVICE: close it all the same. */
CUDPO_MUST_USE cudpo_status pending_open(pending *p, void (*mark)(flight *, int64_t, flight_state));
void pending_close(pending *p);

/* What the stream is given in between is that collective. */
CUDPO_MUST_USE cudpo_status pending_begin(pending *p, collective what, cudaStream_t stream);
CUDPO_MUST_USE cudpo_status pending_end(pending *p, cudaStream_t stream);

/** Let `later` wait for all that ended so far. */
CUDPO_MUST_USE cudpo_status pending_join(pending *p, cudaStream_t later);

/* How far the GPU is. */
typedef struct pending_view {
    collective oldest; /* the first that is not done; its op is NULL: there is none */
    bool whole;        /* all of it was given to the GPU */
    bool started;      /* the GPU has come to it */
    collective last;   /* the last that is done; its op is NULL: none yet */
} pending_view;

/** Look, and leave it in the record.  Returns: CUDPO_OK; CUDPO_EDEVICE: the device is lost. */
CUDPO_MUST_USE cudpo_status pending_look(pending *p, pending_view *out);

#endif /* CUDPO_DIST_NCCL_PENDING_H */
