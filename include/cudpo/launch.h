/* launch.h - the ranks of a run: started on this machine, or described in a job file for many. */
#ifndef CUDPO_LAUNCH_H
#define CUDPO_LAUNCH_H

#include "cudpo/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where something is not given, variables of a Kubeflow pod (PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE, PET_MASTER_ADDR,
 * PET_MASTER_PORT) say it, else the default does. */
typedef struct cudpo_launch_options {
    const char
        *nproc; /* ranks of this node: a number; "gpu": one for each visible GPU; "auto" (NULL
                          is the same): as "gpu", but one where there is no GPU */
    int64_t nnodes, node_rank; /* -1: not given; of one node */
    const char *rdzv_endpoint; /* HOST[:PORT] of node 0; NULL: not given, which one node need not */
    const char *rdzv_id;       /* the same on all nodes; NULL: made up, or the endpoint */
    const char *rdzv_token_file;  /* NULL: $CUDPO_RDZV_TOKEN_FILE; of one node: made up */
    const char *program;          /* NULL: this program itself; else a path or a name in $PATH */
    const char *const *arguments; /* of each rank, ended by NULL */
    int64_t max_restarts;
    double grace; /* s that ranks have to end by themselves when one has failed */
} cudpo_launch_options;

/** Start the ranks of this node, pass on signals and output until all have ended, and start them again where that is wanted.
 *
 *  Each rank finds in its environment what torchrun would say: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK,
 *  GROUP_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RUN_ID, TORCHELASTIC_RESTART_COUNT; and CUDPO_RDZV_TOKEN_FILE,
 *  and OMP_NUM_THREADS where it is not set.  On one node, port and id that were made up are others at each start.  A token that is made up has no name in any folder and is gone with this process: the path leads to
 *  an open file of its (/proc/PID/fd/N), to be opened as any regular file.
 *  Ranks are process groups of their own, without standard input; none outlives this process, whatever ends it; what a rank that was killed
 *  with it had started may.
 *  Lines of several ranks get the rank before them.
 *
 *  The process must have no other children and one thread that waits for signals: both are taken over until the end.
 *  Out:     exit_status  0: all ranks came to their end; 75: those that did not have saved; else that of the rank which
 *                        failed first, 128 + signal where a signal ended it.
 *  Returns: CUDPO_OK once ranks were started, however they ended; CUDPO_EUSAGE naming the option or variable;
 *           CUDPO_ECONFIG, where variables of a pod make no sense; CUDPO_ENOINPUT without the program; CUDPO_ENOMEM,
 *           CUDPO_EWRITE; CUDPO_ESTOPPED where a signal came before they were started. */
CUDPO_MUST_USE cudpo_status cudpo_launch(int *exit_status, const cudpo_launch_options *o);

typedef enum cudpo_job_kind {
    CUDPO_JOB_SLURM,      /* a script for sbatch */
    CUDPO_JOB_KUBERNETES, /* an Indexed Job with what belongs to it, for kubectl apply */
    CUDPO_JOB_TORCHRUN,   /* the command of each node */
} cudpo_job_kind;

typedef struct cudpo_job {
    const char *config;           /* file of keys, read by all ranks; a pod gets its content */
    const char *const *arguments; /* of `cudpo train` behind it, ended by NULL */
    const char *output_dir; /* of that run; NULL: a job of Slurm is not queued again at its limit */
    int64_t nodes;          /* 1 .. 4096 */
    int64_t gpus_per_node;  /* 0 .. 64 */
    int64_t ranks_per_node; /* 0: as many as GPUs, or 1 */
    int64_t cpus_per_rank;  /* 0: 8 beside a GPU, else 1 */
    const char *name;       /* NULL: from that of config */
    const char *program;    /* NULL: this program itself; in a pod: "cudpo" */
    /* Slurm; NULL: not given */
    const char *time, *partition, *account;
    const char
        *array;      /* task indices: each trains with its index as seed, in a folder of its own */
    const char *mpi; /* of srun; "pmix": ranks need no token then */
    /* Kubernetes; NULL: not given */
    const char *image; /* required */
    const char *claim; /* PersistentVolumeClaim, where paths of config begin */
} cudpo_job;

/** A job file, ready to be submitted, in new memory.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE naming the option; CUDPO_ENOINPUT, CUDPO_EDATA of config, which must be a JSON object;
 *           CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status cudpo_job_file(char **text, cudpo_job_kind kind, const cudpo_job *job);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_LAUNCH_H */
