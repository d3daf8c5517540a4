/* state.h - NCCL's communicator inside, as its files share it. */
#ifndef CUDPO_DIST_NCCL_STATE_H
#define CUDPO_DIST_NCCL_STATE_H

#include "backend/cuda/nccl.h"
#include "dist/nccl/nccl.h"
#include "dist/nccl/pending.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

typedef struct nccl {
    communicator table; /* first, so that a communicator * is a nccl * */
    nccl_company company;
    nccl_library lib;
    int device;
    cudaStream_t compute, stream; /* the backend's, and NCCL's */
    cudaEvent_t ready; /* the ops that were enqueued before the last collective are done */
    pending pending;
    pthread_mutex_t calls;   /* held by who calls NCCL with comm, but for its end */
    _Atomic(nccl_comm) comm; /* who takes it away ends it */
    sem_t ended;             /* it is no more */
    bool broken;             /* a call failed */
    atomic_bool settling;    /* the main thread asks what becomes of a call */
    collective now;          /* what the main thread is at */
    /* Of the watch: what control was told last (its op is NULL: that nothing is waited for), and when; when it first saw an
     * error of NCCL's, 0: never. */
    collective told;
    double told_at, suspected;
} nccl;

static inline nccl *nccl_of(communicator *c)
{
    return (nccl *)c;
}

/* calls.c: calls of NCCL that may be in progress or fail. */

double nccl_clock(void); /* s, of no particular origin */

CUDPO_MUST_USE cudpo_status nccl_status(const nccl *n); /* the company's */

/** What becomes of a call on comm that answered r.  NCCL_IN_PROGRESS: the company failed, or the time is over. */
nccl_result nccl_settle(nccl *n, nccl_comm comm, nccl_result r, double seconds);

/** A call of the main thread failed, or is still in progress although its time is over. */
CUDPO_MUST_USE cudpo_status nccl_failed(nccl *n, const char *call, nccl_result r);

/** The same of a call that another thread made, at once. */
CUDPO_MUST_USE cudpo_status nccl_say(const nccl *n, const collective *what, const char *call,
                                     nccl_result r);

/** May the cause be a peer that is gone?  Then control says which, within so many seconds. */
bool nccl_blames_peer(nccl_result r);
double nccl_hearsay(const nccl *n);

/** What went wrong is remembered, so that nothing else is begun. */
CUDPO_MUST_USE cudpo_status nccl_remember(nccl *n, cudpo_status status);

/* collectives.c */
void nccl_install(communicator *table);

/* watch.c: control's thread looks, and stops NCCL in another. */
cudpo_status nccl_look(void *context);
void nccl_stop(void *context);

/** End the communicator, if stop() has not: well, with the peers where they come soon, or by an abort.
 *  Returns: false: NCCL hangs; what it uses must stay. */
bool nccl_end(nccl *n, bool aborted);

#endif /* CUDPO_DIST_NCCL_STATE_H */
