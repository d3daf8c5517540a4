/* placement.h - which rank this process is and where rank 0 is to be found: what a launcher left in the environment.
 *
 * Looked for in this order: flags; torchrun; a Slurm step, and PMIx and mpirun, of which the inner one counts; Kubernetes; none
 * of them, which is one process.  The first that is whole wins, and what contradicts it is an error, never a guess.  What is
 * behind the order, and which leftovers of launchers further out are none of our business: placement.c. */
#ifndef CUDPO_DIST_PLACEMENT_H
#define CUDPO_DIST_PLACEMENT_H

#include "cudpo/ranks.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum launcher {
    LAUNCHER_NONE,
    LAUNCHER_FLAGS,
    LAUNCHER_TORCHRUN,
    LAUNCHER_SLURM,
    LAUNCHER_PMIX,
    LAUNCHER_MPI,
    LAUNCHER_KUBERNETES,
    LAUNCHERS
} launcher;
extern const char *const launcher_names[LAUNCHERS]; /* "none", "flags", "torchrun", ... */

enum { PLACEMENT_TEXT = 256, MAX_RANKS = 65536 };

typedef struct placement {
    launcher launcher;
    int32_t rank, size; /* 0 .. size-1; size 0: only PMIx knows, see placement_complete() */
    int32_t local_rank; /* among those of this node; -1: only PMIx knows */
    int32_t local_size; /* 0: not known */
    int32_t node;       /* -1: not known */
    char address[PLACEMENT_TEXT]; /* of rank 0: name or number; "": only PMIx knows, or size is 1 */
    int32_t port;                 /* 0: not known, as address */
    bool derived; /* the port is a hash that all ranks compute and nobody reserved */
    bool
        pmix; /* PMIX_* are of just these ranks: safer than a derived port, needed where port is 0 */
    char run_id
        [PLACEMENT_TEXT]; /* the same for all ranks of one attempt, or of one run where its nodes
                                     count attempts by themselves, and for no other; "": none given */
    int32_t restarts;     /* of the job, or of this node's ranks, before this attempt */
    char source[PLACEMENT_TEXT]; /* for people: "slurm step 12.0"; printable */
} placement;

/* What the command line says of it; -1 and NULL: nothing. */
typedef struct placement_wish {
    const char *launcher; /* "auto" (NULL is the same) or one of launcher_names */
    int64_t rank, world_size, local_rank;
    const char *rdzv_endpoint; /* HOST:PORT of rank 0, [HOST]:PORT where HOST has colons */
    const char *rdzv_id;       /* becomes run_id */
    int32_t gpus; /* that this machine has; -1: not known, CUDA_VISIBLE_DEVICES may say */
} placement_wish;

/* A wish as the API has it; NULL: none.  Counts the GPUs of this machine, without their driver. */
placement_wish placement_wish_of(const cudpo_ranks *ranks);

/* How variables are read: getenv() but in tests. */
typedef const char *(*placement_variable)(void *context, const char *name);

/** Find the placement of this process.
 *  Out:     out  of size 0 and no PMIx where this fails.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG naming the variable: rank not below the number of ranks, half of a set, no integer, negative,
 *           more than MAX_RANKS ranks, two sources that disagree, RANK without LOCAL_RANK where several GPUs are visible. */
CUDPO_MUST_USE cudpo_status placement_find(placement *out, const placement_wish *wish,
                                           placement_variable get, void *context);

/** Fill in what PMIx knows of a placement whose size is 0.
 *  In:      local_size 0 and node -1 where it does not.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG: as placement_find(); p is as it was then. */
CUDPO_MUST_USE cudpo_status placement_complete(placement *p, int64_t size, int64_t local_rank,
                                               int64_t local_size, int64_t node);

/* "rank 3 of 8 (slurm step 12.0), local rank 1 of 4, rank 0 at n0:23456", or "one process: ..." */
enum { PLACEMENT_SENTENCE = 3 * PLACEMENT_TEXT };
void placement_sentence(char out[PLACEMENT_SENTENCE], const placement *p);

/* getenv(), as placement_find() takes it. */
const char *placement_getenv(void *context, const char *name);

/** Host number `index` of a Slurm node list such as gpu[001-003,007],dgx-[01-02]-[1-2].
 *  Returns: CUDPO_OK; CUDPO_ECONFIG where the list makes no sense, has fewer, or the name is longer than PLACEMENT_TEXT. */
CUDPO_MUST_USE cudpo_status placement_host(char out[PLACEMENT_TEXT], const char *list,
                                           int64_t index);

#endif /* CUDPO_DIST_PLACEMENT_H */
