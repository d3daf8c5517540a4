/* launchers.h - what each launcher says of this process, taken by itself.  Which one is believed: placement.c. */
#ifndef CUDPO_DIST_LAUNCHERS_H
#define CUDPO_DIST_LAUNCHERS_H

#include "dist/placement.h"
#include "dist/variables.h"

#include <stdbool.h>
#include <stdint.h>

/* A launcher's claim: rank and size, and of address and run what it knows by itself. */
typedef struct claim {
    bool whole;              /* false: that launcher left nothing here */
    const char *who;         /* "the Slurm step" */
    const char *rank, *size; /* the variables or options that say so */
    placement p;             /* local_rank -1: not said */
} claim;

/* Each reads one launcher.
 * Returns: CUDPO_OK, whole or not; CUDPO_ECONFIG: half of a set, no number, a rank that is not below the size, and the like. */
CUDPO_MUST_USE cudpo_status claim_flags(claim *out, const placement_wish *wish);
CUDPO_MUST_USE cudpo_status claim_torchrun(claim *out, const variables *v);
CUDPO_MUST_USE cudpo_status claim_slurm(claim *out, const variables *v);
CUDPO_MUST_USE cudpo_status claim_pmix(claim *out, const variables *v); /* size 0 */
CUDPO_MUST_USE cudpo_status claim_mpi(claim *out, const variables *v);
CUDPO_MUST_USE cudpo_status claim_kubernetes(claim *out, const variables *v,
                                             const placement_wish *wish);

/** Fill in rank and size, which are not taken on trust.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG naming out->rank and out->size. */
CUDPO_MUST_USE cudpo_status claim_set(claim *out, int64_t rank, int64_t size);

/** The same of local rank and size (-1 and 0: not said), which those names say. */
CUDPO_MUST_USE cudpo_status claim_set_local(claim *out, const char *rank_name, int64_t rank,
                                            const char *size_name, int64_t size);

/* Whose PMIX_* or PMI_* are these?  Slurm's own name the step that they are of. */
typedef enum kinship { KIN_NONE, KIN_STEP, KIN_OTHER_STEP, KIN_FOREIGN } kinship;
kinship launchers_pmix(const variables *v);
kinship launchers_pmi(const variables *v);

/* The id of a job's step that is one of srun's; steps from SLURM_NO_STEP on are the shells of sbatch and salloc and the like. */
#define SLURM_NO_STEP INT64_C(0xfffffff0)

/* GPUs that this process sees; -1: not known. */
int64_t launchers_gpus(const variables *v, const placement_wish *wish);

#endif /* CUDPO_DIST_LAUNCHERS_H */
