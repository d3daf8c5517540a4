/* control.h - the ranks of a run as one company: how they find one another, agree on small things, and notice who is gone.
 *
 * Every rank keeps one TCP connection to rank 0 for life, and a thread that looks after it.  A peer that dies closes its
 * connection, which rank 0 sees at once and tells the others; one that stands still sends no more heartbeats, or does not
 * come where the others wait.  Whatever rank fails first, all end with its reason. */
#ifndef CUDPO_DIST_CONTROL_H
#define CUDPO_DIST_CONTROL_H

#include "cudpo/status.h"
#include "dist/placement.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct control control;

typedef struct control_options {
    const placement *place;
    const char *build; /* version: other builds are turned away */
    const char *
        token; /* secret that all ranks know; NULL: none, then only loopback is listened to, but where `open` */
    bool open;           /* without a token others than loopback may join */
    double join_timeout; /* s, until all have come */
    double peer_timeout; /* s, until a peer that stands still counts as lost: ddp_timeout */
    double
        grace; /* s between a failure and the end of the process, whatever its main thread does */
    bool (*stopped)(void); /* joining ends with CUDPO_ESTOPPED where it says so; NULL: never */
    struct pmix *session;  /* of pmix_complete(), which ends with the company; NULL: none */
} control_options;

/** Join the others; of one rank there is nothing to do.  With PMIx (see pmix.h) rank 0 listens on a free port and publishes it.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS naming the ranks that never came, or what was refused (two of one rank, another number of
 *           ranks, run id, build or token); CUDPO_ESTOPPED; CUDPO_EPERM, CUDPO_ENOMEM.  *out is NULL then. */
CUDPO_MUST_USE cudpo_status control_open(control **out, const control_options *options);

/** Say goodbye: nobody misses this rank from here on.  NULL is fine. */
void control_close(control *c);

/** This rank failed: tell the others why, unless the company has failed before, and wait until it is sent.  control_close() is still
 *  to be called, within `grace`. */
void control_abort(control *c, cudpo_status status, const char *message);

/** CUDPO_OK; else how the company failed: CUDPO_EPEER "rank 3: ..." or the status that the failing rank gave.  Cheap, from any
 *  thread. */
CUDPO_MUST_USE cudpo_status control_status(const control *c);

/* Small things, through rank 0; collective: every rank calls the same with the same `bytes`, in the same order.  `what` names
 * it in messages.  They wait for peer_timeout at most. */

/** all [size][bytes] = what each rank gave as `mine`. */
CUDPO_MUST_USE cudpo_status control_exchange(control *c, void *all, const void *mine, size_t bytes,
                                             const char *what);
/** The same of different lengths: one block, rank after rank, in new memory. Out: begin [size+1]. */
CUDPO_MUST_USE cudpo_status control_collect(control *c, void **all, size_t *begin, const void *mine,
                                            size_t bytes, const char *what);
/** data = rank 0's. */
CUDPO_MUST_USE cudpo_status control_broadcast(control *c, void *data, size_t bytes,
                                              const char *what);
CUDPO_MUST_USE cudpo_status control_barrier(control *c, const char *what);

/* 32 random bytes that rank 0 made and all ranks of this run know.  They crossed the network in plain: they keep out who can reach
 * a port, not who can listen to the wire. */
enum { CONTROL_SECRET = 32 };
const uint8_t *control_secret(const control *c);

int32_t control_rank(const control *c);
int32_t control_size(const control *c);

/* Numeric address that peers reach this rank at, for listeners of its own. */
const char *control_address(const control *c);

/* What the main thread is about to wait for: goes out with heartbeats, so that a rank which does not come can be named.
 * collective NULL: nothing more, and the other two are not looked at; sequence counts collectives of the run, from 1. */
void control_waits(control *c, const char *collective, int64_t sequence, int64_t step);

/* Something that can fail or hang beside the main thread, as NCCL does.  look() is called some ten times a second; its
 * failure is the rank's.  stop() is called once, when the company has failed.  Both run in a thread that does nothing else, so that
 * one which hangs holds up neither heartbeats nor the end of the process. */
typedef struct control_watch {
    cudpo_status (*look)(void *context);
    void (*stop)(void *context);
    void *context;
} control_watch;
/* NULL: none any more.  Returns after a look() or stop() under way: true; false where that hangs: it was waited for as long as a
 * process has to end, the watch stays, and so must all that it looks at. */
bool control_set_watch(control *c, const control_watch *watch);

#endif /* CUDPO_DIST_CONTROL_H */
