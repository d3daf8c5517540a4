/* calls.c - what becomes of calls of NCCL: none is waited for longer than a peer is, nor where the company has failed. */
#include "dist/nccl/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

double nccl_clock(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void nap(long nanoseconds)
{
    const struct timespec t = {0, nanoseconds};
    (void)nanosleep(&t, NULL);
}

cudpo_status nccl_status(const nccl *n)
{
    return n->company.status(n->company.control);
}

bool nccl_blames_peer(nccl_result r)
{
    return r == NCCL_SYSTEM_ERROR || r == NCCL_INTERNAL_ERROR || r == NCCL_REMOTE_ERROR;
}

double nccl_hearsay(const nccl *n)
{
    return n->company.timeout < 4 ? n->company.timeout / 4 : 1.0;
}

cudpo_status nccl_say(const nccl *n, const collective *what, const char *call, nccl_result r)
{
    char at[96] = "";
    if (what->op != NULL)
        snprintf(at, sizeof at, "%s %" PRId64 " of step %" PRId64 ": ", what->op, what->sequence,
                 what->step);
    char more[400] = "";
    const char *const last = n->lib.last_error(NULL);
    if (r == NCCL_IN_PROGRESS)
        snprintf(more, sizeof more, " after %g s, ddp_timeout", n->company.timeout);
    else if (last != NULL && *last != '\0')
        snprintf(more, sizeof more, ": %.300s", last);
    char where[32];
    snprintf(where, sizeof where, "NCCL on rank %d", n->table.rank);
    return cudpo_fail(CUDPO_EDEVICE, where,
                      "%s%s: %s (%d)%s; NCCL_DEBUG=INFO tells more; a run goes on from its "
                      "last checkpoint with --resume_from_checkpoint true",
                      at, call, n->lib.error_string(r), (int)r, more);
}

/* NCCL may be the first to notice a lost peer, but only control knows which, and a moment later. */
static void wait_for_reason(const nccl *n)
{
    const double until = nccl_clock() + nccl_hearsay(n);
    while (nccl_status(n) == CUDPO_OK && nccl_clock() < until)
        nap(10000000);
}

cudpo_status nccl_failed(nccl *n, const char *call, nccl_result r)
{
    if (nccl_blames_peer(r)) wait_for_reason(n);
    CUDPO_TRY(nccl_status(n));
    return nccl_say(n, &n->now, call, r);
}

static nccl_result settle(nccl *n, nccl_comm comm, double seconds)
{
    const double until = nccl_clock() + seconds;
    for (long pause = 20000;; pause = pause < 1000000 ? 2 * pause : pause) {
        nccl_result state = NCCL_IN_PROGRESS;
        const nccl_result asked = n->lib.comm_async_error(comm, &state);
        if (asked != NCCL_SUCCESS) return asked;
        if (state != NCCL_IN_PROGRESS) return state;
        if (nccl_status(n) != CUDPO_OK || nccl_clock() >= until) return NCCL_IN_PROGRESS;
        nap(pause);
    }
}

nccl_result nccl_settle(nccl *n, nccl_comm comm, nccl_result r, double seconds)
{
    if (r != NCCL_IN_PROGRESS) return r;
    atomic_store(&n->settling, true);
    r = settle(n, comm, seconds);
    atomic_store(&n->settling, false);
    return r;
}

cudpo_status nccl_remember(nccl *n, cudpo_status status)
{
    if (status != CUDPO_OK) n->broken = true;
    return status;
}
