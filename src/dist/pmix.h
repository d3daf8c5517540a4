/* pmix.h - what the launcher's PMIx server knows and passes on: ranks, and short texts from one rank to the others.
 *
 * Slurm (srun --mpi=pmix) and Open MPI's mpirun have such a server on each node, and let only processes of the same user and job
 * talk to it.  libpmix.so.2 is opened when it is needed; a build without its header knows only that it is not available. */
#ifndef CUDPO_DIST_PMIX_H
#define CUDPO_DIST_PMIX_H

#include "cudpo/status.h"
#include "dist/placement.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Has this build PMIx's header? */
bool pmix_is_built(void);

typedef struct pmix pmix;

/** Connect to the server of this node.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS: no library, or no server; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status pmix_open(pmix **out);

int32_t pmix_rank(const pmix *p);

/* Disconnect: a process that ends without it is one that crashed, to the launcher.  NULL is fine. */
void pmix_close(pmix *p);

/** Leave a text, for other ranks to get behind the next fence. */
CUDPO_MUST_USE cudpo_status pmix_put(pmix *p, const char *key, const char *text);

/** Wait for all ranks, for `seconds`, or until `stopped` says to give up (NULL: never).
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS; CUDPO_ESTOPPED. */
CUDPO_MUST_USE cudpo_status pmix_fence(pmix *p, double seconds, bool (*stopped)(void));

/** What a rank left.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS: nothing, or more than fits. */
CUDPO_MUST_USE cudpo_status pmix_get(pmix *p, char *out, size_t size, int32_t rank,
                                     const char *key);

/** Complete a placement whose number of ranks only PMIx knows (size is 0): size, rank, node, and those of this node.  Others are
 *  left as they are.
 *  Out:     session  for control_open(), whose company keeps it; NULL where PMIx was not asked.  A process has but one: whoever leaves PMIx
 *                    and comes again is, to a fence of the others, a rank that was lost.
 *  Returns: CUDPO_OK; as pmix_open(); CUDPO_ECONFIG as placement_complete(), and where PMIx calls this process another rank. */
CUDPO_MUST_USE cudpo_status pmix_complete(placement *place, pmix **session);

#endif /* CUDPO_DIST_PMIX_H */
