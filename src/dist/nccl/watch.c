/* watch.c - what looks at NCCL beside the main thread, and how NCCL ends. */
#include "backend/cuda/runtime.h"
#include "dist/nccl/state.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

static const double LAST_WAIT = 5.0; /* s, for a call of NCCL that should end by itself */

static void tell_control(nccl *n, const collective *oldest, bool started)
{
    const int64_t waiting = started ? oldest->sequence : 0;
    if (waiting == n->told) return;
    n->company.waits(n->company.control, started ? oldest->op : NULL, waiting, oldest->step);
    n->told = waiting;
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
    if (nccl_blames_peer(r) && nccl_clock() - n->suspected < NCCL_HEARSAY) return CUDPO_OK;
    return nccl_say(n, oldest, "ncclCommGetAsyncError", r);
}

cudpo_status nccl_look(void *context)
{
    nccl *const n = context;
    collective oldest;
    bool started;
    (void)cudaSetDevice(n->device); /* each thread has its own, which is GPU 0 at first */
    CUDPO_TRY(pending_look(&n->pending, &oldest, &started));
    tell_control(n, &oldest, started);
    return look_for_error(n, &oldest);
}

/* The call that ends a communicator may hang, and so it is never the main thread's. */
static void end(nccl *n, nccl_comm comm, nccl_result (*call)(nccl_comm comm))
{
    (void)cudaSetDevice(n->device);
    (void)call(comm);
    (void)sem_post(&n->ended);
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
    if (comm != NULL) end(n, comm, n->lib.comm_abort);
}

/* The end. */

typedef struct ending {
    nccl *n;
    nccl_comm comm;
    bool abort;
} ending;

static void *end_in_thread(void *context)
{
    const ending e = *(ending *)context;
    free(context);
    end(e.n, e.comm, e.abort ? e.n->lib.comm_abort : e.n->lib.comm_destroy);
    return NULL;
}

static void start_to_end(nccl *n, nccl_comm comm, bool aborted)
{
    pthread_t thread;
    ending *const e = malloc(sizeof *e);
    if (e == NULL) return;
    *e = (ending){n, comm, aborted};
    if (pthread_create(&thread, NULL, end_in_thread, e) != 0)
        free(e);
    else
        (void)pthread_detach(thread);
}

/* false: it hangs, and what it uses must stay. */
static bool has_ended(nccl *n)
{
    struct timespec until;
    int result;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)LAST_WAIT;
    do {
        result = sem_timedwait(&n->ended, &until);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

bool nccl_end(nccl *n, bool aborted)
{
    const nccl_comm comm = atomic_exchange(&n->comm, NULL);
    if (comm != NULL) start_to_end(n, comm, aborted);
    return !n->joined || has_ended(n);
}
