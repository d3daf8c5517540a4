/* watch.c - what looks at NCCL beside the main thread, and how NCCL ends. */
#include "backend/cuda/runtime.h"
#include "dist/nccl/state.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
    LAST_WAIT = 5, /* s, for a call of NCCL that should end by itself */
    LONGER = 2     /* s after its timeout in which rank 0 says who is late */
};

/* Does this rank wait for others?  In a collective that the GPU has come to, or that NCCL connects ranks for.  Where the GPU
 * is busy with ops before it, or a call hangs, others wait for this rank. */
static bool waits(const nccl *n, const pending_view *view)
{
    return view->started && (view->whole || atomic_load(&n->settling));
}

static void tell_control(nccl *n, const pending_view *view)
{
    collective at = view->oldest;
    if (!waits(n, view)) {
        at = view->last;
        at.op = NULL;
    }
    if (at.op == n->told.op && at.sequence == n->told.sequence) return;
    n->company.waits(n->company.control, at.op, at.sequence, at.step);
    n->told = at;
    n->told_at = nccl_clock();
}

/* Rank 0 knows best who keeps others waiting, but may have left itself. */
static cudpo_status look_at_clock(const nccl *n)
{
    const double seconds = nccl_clock() - n->told_at;
    if (n->told.op == NULL || seconds <= n->company.timeout + LONGER) return CUDPO_OK;
    return nccl_say(n, &n->told, "on the GPU", NCCL_IN_PROGRESS);
}

/* NCCL's error, once the company had its time to know of a better reason.  A main thread that is in a call of NCCL looks
 * itself. */
static cudpo_status look_for_error(nccl *n, const collective *oldest)
{
    nccl_result r = NCCL_SUCCESS;
    if (pthread_mutex_trylock(&n->calls) != 0) return CUDPO_OK;
    const nccl_comm comm = atomic_load(&n->comm);
    const nccl_result asked = comm != NULL ? n->lib.comm_async_error(comm, &r) : NCCL_SUCCESS;
    (void)pthread_mutex_unlock(&n->calls);
    if (asked != NCCL_SUCCESS) r = asked;
    if (r == NCCL_SUCCESS || r == NCCL_IN_PROGRESS) return CUDPO_OK;
    if (n->suspected == 0) n->suspected = nccl_clock();
    if (nccl_blames_peer(r) && nccl_clock() - n->suspected < nccl_hearsay(n)) return CUDPO_OK;
    return nccl_say(n, oldest, "ncclCommGetAsyncError", r);
}

cudpo_status nccl_look(void *context)
{
    nccl *const n = context;
    pending_view view;
    (void)cudaSetDevice(n->device); /* each thread has its own, which is GPU 0 at first */
    CUDPO_TRY(pending_look(&n->pending, &view));
    tell_control(n, &view);
    CUDPO_TRY(look_at_clock(n));
    return look_for_error(n, &view.oldest);
}

void nccl_stop(void *context)
{
    nccl *const n = context;
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    /* A main thread that polls leaves at once; one that hangs inside of NCCL is what the abort is for. */
    const bool locked = pthread_mutex_timedlock(&n->calls, &until) == 0;
    const nccl_comm comm = atomic_exchange(&n->comm, NULL);
    if (locked) (void)pthread_mutex_unlock(&n->calls);
    (void)cudaSetDevice(n->device);
    if (comm != NULL) (void)n->lib.comm_abort(comm);
}

/* The end: in a thread of its own, since any call of NCCL may hang. */

typedef struct ending {
    nccl *n;
    nccl_comm comm;
    bool aborted;
} ending;

static void *end_in_thread(void *context)
{
    const ending e = *(ending *)context;
    nccl *const n = e.n;
    free(context);
    (void)cudaSetDevice(n->device);
    if (!e.aborted &&
        nccl_settle(n, e.comm, n->lib.comm_finalize(e.comm), LAST_WAIT) == NCCL_SUCCESS)
        (void)n->lib.comm_destroy(e.comm);
    else
        (void)n->lib.comm_abort(e.comm);
    (void)sem_post(&n->ended);
    return NULL;
}

static bool start_to_end(nccl *n, nccl_comm comm, bool aborted, pthread_t *thread)
{
    ending *const e = malloc(sizeof *e);
    if (e == NULL) return false;
    *e = (ending){n, comm, aborted};
    const bool started = pthread_create(thread, NULL, end_in_thread, e) == 0;
    if (!started) free(e);
    return started;
}

bool nccl_end(nccl *n, bool aborted)
{
    struct timespec until;
    pthread_t thread;
    int result;
    const nccl_comm comm = atomic_exchange(&n->comm, NULL);
    if (comm == NULL) return true;
    if (!start_to_end(n, comm, aborted, &thread)) return false;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += aborted ? LAST_WAIT : 2 * LAST_WAIT;
    do {
        result = sem_timedwait(&n->ended, &until);
    } while (result != 0 && errno == EINTR);
    if (result == 0)
        (void)pthread_join(thread, NULL);
    else
        (void)pthread_detach(thread);
    return result == 0;
}
