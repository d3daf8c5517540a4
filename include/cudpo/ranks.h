/* ranks.h - training by several processes: what the command line says of this one.  Without a word of it the environment of
 * torchrun, Slurm, mpirun, PMIx or Kubernetes decides. */
#ifndef CUDPO_RANKS_H
#define CUDPO_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cudpo_ranks {
    const char *
        launcher; /* NULL or "auto"; "flags", "torchrun", "slurm", "pmix", "mpi", "kubernetes", "none" */
    int64_t rank, world_size, local_rank; /* -1: not given */
    const char *rdzv_endpoint;            /* HOST:PORT of rank 0; NULL: not given */
    const char *rdzv_id;                  /* of this run and no other; NULL: not given */
    const char *
        rdzv_token_file; /* a secret that all ranks can read and others can't; NULL: $CUDPO_RDZV_TOKEN_FILE */
    bool rdzv_insecure; /* let ranks of other hosts join without a token */
} cudpo_ranks;

/* Nothing is given. */
#define CUDPO_RANKS_AUTO                          \
    {                                             \
        NULL, -1, -1, -1, NULL, NULL, NULL, false \
    }

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_RANKS_H */
