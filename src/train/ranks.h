/* ranks.h - the processes of a run: which one this is, and what it has in common with the others. */
#ifndef CUDPO_TRAIN_RANKS_H
#define CUDPO_TRAIN_RANKS_H

#include "cudpo/config.h"
#include "cudpo/ranks.h"
#include "dist/communicator.h"
#include "dist/control.h"
#include "dist/flight.h"
#include "dist/placement.h"

#include <stdbool.h>
#include <sys/types.h>

typedef struct run_ranks {
    placement place;
    control *company; /* NULL: one rank */
    flight *record;   /* NULL: one rank */
    const cudpo_config *config;
    pid_t launcher;    /* without which the ranks shall not live on; 0: none such */
    cudpo_status told; /* the failure that the others know of */
    bool agreed;       /* all ranks end now, whatever they return */
    int64_t step;      /* that this rank was at when it ended; 0: none yet */
} run_ranks;

/* A process of its own, whatever the environment says. */
run_ranks ranks_alone(const cudpo_config *c);

/** Find this process's place and join the others.  In: given  NULL: the environment decides.
 *  Returns: CUDPO_OK; as placement_find() and control_open(). */
CUDPO_MUST_USE cudpo_status ranks_open(run_ranks *r, const cudpo_config *c,
                                       const cudpo_ranks *given);

/** Begin the record of collectives, in output_dir, once rank 0 has made that and is here, too. */
CUDPO_MUST_USE cudpo_status ranks_record(run_ranks *r);

/** What the ranks add up gradients with: ddp_backend, or what suits the device. */
CUDPO_MUST_USE cudpo_status ranks_connect(communicator **out, const run_ranks *r, backend *be);

/** CUDPO_OK; else how the company failed: what a GPU left since may be anything. */
CUDPO_MUST_USE cudpo_status ranks_status(const run_ranks *r);

/** Tell the others that this rank failed, and why: its message is the thread's.  Before what they share is closed. */
void ranks_fail(run_ranks *r, cudpo_status status);

/** Leave.  Where `status` is a failure the others end with its reason, and the message names this rank.  Returns: status, or how
 *  the company failed. */
CUDPO_MUST_USE cudpo_status ranks_close(run_ranks *r, cudpo_status status);

/** `data` = rank 0's; all ranks are there.  Of one rank there is nothing to do.  `what` names it in messages. */
CUDPO_MUST_USE cudpo_status ranks_share(const run_ranks *r, void *data, size_t bytes,
                                        const char *what);
CUDPO_MUST_USE cudpo_status ranks_meet(const run_ranks *r, const char *what);

static inline bool ranks_first(const run_ranks *r)
{
    return r->place.rank == 0;
}

#endif /* CUDPO_TRAIN_RANKS_H */
