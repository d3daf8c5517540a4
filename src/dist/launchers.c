/* launchers.c - the variables of torchrun, PMIx, mpirun and Kubernetes, and the options of the command line. */
#include "dist/launchers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

cudpo_status claim_set(claim *out, int64_t rank, int64_t size)
{
    if (size < 1)
        return cudpo_fail(CUDPO_ECONFIG, out->size, "is %" PRId64 ": there is at least one rank",
                          size);
    if (size > MAX_RANKS)
        return cudpo_fail(CUDPO_ECONFIG, out->size, "is %" PRId64 "; %d ranks are the most", size,
                          (int)MAX_RANKS);
    if (rank < 0 || rank >= size)
        return cudpo_fail(CUDPO_ECONFIG, out->rank,
                          "is %" PRId64 " and %s is %" PRId64 ": ranks count from 0 to %" PRId64,
                          rank, out->size, size, size - 1);
    out->whole = true;
    out->p.rank = (int32_t)rank;
    out->p.size = (int32_t)size;
    return CUDPO_OK;
}

cudpo_status claim_set_local(claim *out, const char *rank_name, int64_t rank, const char *size_name,
                             int64_t size)
{
    if (size > out->p.size)
        return cudpo_fail(CUDPO_ECONFIG, size_name,
                          "is %" PRId64 " and %s is %" PRId64 ": a node has no more than all", size,
                          out->size, (int64_t)out->p.size);
    if (size == 0 || rank >= (size > 0 ? size : out->p.size))
        return cudpo_fail(CUDPO_ECONFIG, rank_name,
                          "is %" PRId64 " and %s is %" PRId64 ": local ranks count from 0", rank,
                          size >= 0 ? size_name : out->size, size >= 0 ? size : out->p.size);
    out->p.local_rank = (int32_t)rank;
    out->p.local_size = size > 0 ? (int32_t)size : 0;
    return CUDPO_OK;
}

static cudpo_status half(const claim *c, const char *missing)
{
    return cudpo_fail(CUDPO_ECONFIG, missing,
                      "is missing, and there are others of %s: set all of them, or unset them",
                      c->who);
}

static void begin(claim *out, launcher of, const char *who, const char *rank, const char *size)
{
    *out = (claim){.who = who, .rank = rank, .size = size};
    out->p.launcher = of;
    out->p.local_rank = -1;
    out->p.node = -1;
}

cudpo_status claim_flags(claim *out, const placement_wish *wish)
{
    begin(out, LAUNCHER_FLAGS, "the command line", "--rank", "--world_size");
    if (wish->rank < 0 && wish->world_size < 0) return CUDPO_OK;
    if (wish->rank < 0) return half(out, "--rank");
    if (wish->world_size < 0) return half(out, "--world_size");
    CUDPO_TRY(claim_set(out, wish->rank, wish->world_size));
    snprintf(out->p.source, PLACEMENT_TEXT, "command line");
    return CUDPO_OK;
}

static cudpo_status other_launch(const claim *c, const char *name, int64_t value)
{
    return cudpo_fail(CUDPO_ECONFIG, "RANK",
                      "%d of %d, LOCAL_RANK %d of %d and %s %" PRId64 " are not of one launch: "
                      "unset what is left over from another",
                      (int)c->p.rank, (int)c->p.size, (int)c->p.local_rank, (int)c->p.local_size,
                      name, value);
}

/* torchrun numbers the ranks of one group after another, and each group has one at least; groups may be of several sizes.  It
 * counts the ranks of a role, too, and all ranks are of one. */
static cudpo_status check_groups(const claim *c, const variables *v, int64_t group)
{
    const placement *p = &c->p;
    const int64_t first = p->rank - p->local_rank, behind = first + p->local_size;
    int64_t groups, role, roles;
    CUDPO_TRY(variables_number(&groups, v, "GROUP_WORLD_SIZE"));
    CUDPO_TRY(variables_number(&role, v, "ROLE_RANK"));
    CUDPO_TRY(variables_number(&roles, v, "ROLE_WORLD_SIZE"));
    if (roles >= 0 && roles != p->size) return other_launch(c, "ROLE_WORLD_SIZE", roles);
    if (role >= 0 && role != p->rank) return other_launch(c, "ROLE_RANK", role);
    if (first < 0 || behind > p->size) return other_launch(c, "GROUP_RANK", group);
    if (group < 0 || groups < 0) return CUDPO_OK;
    if (group >= groups)
        return cudpo_fail(CUDPO_ECONFIG, "GROUP_RANK",
                          "is %" PRId64 " and GROUP_WORLD_SIZE is %" PRId64 ": groups count from 0",
                          group, groups);
    if (first < group || (group == 0 && first > 0) || behind + (groups - 1 - group) > p->size)
        return other_launch(c, "GROUP_RANK", group);
    return CUDPO_OK;
}

/* The restarts of an agent are its own: after a rank of another node failed, TORCHELASTIC_RESTART_COUNT differs between the
 * nodes of one attempt.  So it is part of what tells attempts apart only where there is one agent. */
static cudpo_status name_torch_run(placement *p, const char *id)
{
    const bool one = p->local_size == p->size;
    int n = snprintf(p->run_id, PLACEMENT_TEXT, "torchrun-%s", id);
    if (one && n < PLACEMENT_TEXT)
        n += snprintf(p->run_id + n, (size_t)(PLACEMENT_TEXT - n), "-%d", (int)p->restarts);
    if (n < PLACEMENT_TEXT) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "TORCHELASTIC_RUN_ID", "is longer than 200 characters: %s",
                      id);
}

cudpo_status claim_torchrun(claim *out, const variables *v)
{
    int64_t rank, size, local, local_size, group, restarts;
    char id[PLACEMENT_TEXT];
    begin(out, LAUNCHER_TORCHRUN, "torchrun", "RANK", "WORLD_SIZE");
    const bool torch = variables_get(v, "TORCHELASTIC_RUN_ID") != NULL;
    if (!torch) out->who = "the environment";
    if (!torch && (variables_get(v, "RANK") == NULL || variables_get(v, "WORLD_SIZE") == NULL ||
                   variables_get(v, "LOCAL_RANK") == NULL))
        return CUDPO_OK; /* some of them alone: placement.c */
    CUDPO_TRY(variables_number(&rank, v, "RANK"));
    CUDPO_TRY(variables_number(&size, v, "WORLD_SIZE"));
    CUDPO_TRY(variables_number(&local, v, "LOCAL_RANK"));
    CUDPO_TRY(variables_number(&local_size, v, "LOCAL_WORLD_SIZE"));
    CUDPO_TRY(variables_number(&group, v, "GROUP_RANK"));
    CUDPO_TRY(variables_number(&restarts, v, "TORCHELASTIC_RESTART_COUNT"));
    CUDPO_TRY(variables_copy(id, "TORCHELASTIC_RUN_ID", variables_get(v, "TORCHELASTIC_RUN_ID")));
    if (rank < 0) return half(out, "RANK");
    if (size < 0) return half(out, "WORLD_SIZE");
    if (local < 0) return half(out, "LOCAL_RANK");
    CUDPO_TRY(claim_set(out, rank, size));
    CUDPO_TRY(claim_set_local(out, "LOCAL_RANK", local, "LOCAL_WORLD_SIZE", local_size));
    CUDPO_TRY(check_groups(out, v, group));
    out->p.node = group < 0 || group > MAX_RANKS ? -1 : (int32_t)group;
    out->p.restarts = restarts > 0 && restarts <= INT32_MAX ? (int32_t)restarts : 0;
    snprintf(out->p.source, PLACEMENT_TEXT, "%s%.200s",
             torch ? "torchrun " : "RANK of the environment", id);
    return torch ? name_torch_run(&out->p, id) : CUDPO_OK;
}

/* Slurm's own PMIX_NAMESPACE and PMI_JOBID end in JOB.STEP.  A step that was started within another with --mpi=none still has the
 * outer one's; a container may hide SLURM_*, and what is left of the step is PMIx alone. */
static kinship kin_of(const variables *v, const char *id, const char *prefix)
{
    char step[64];
    const size_t n = strlen(prefix);
    const char *job = variables_get(v, "SLURM_JOB_ID"), *number = variables_get(v, "SLURM_STEP_ID");
    if (id == NULL || strncmp(id, prefix, n) != 0 || (job == NULL && number == NULL))
        return KIN_FOREIGN;
    snprintf(step, sizeof step, "%.30s.%.30s", job == NULL ? "" : job,
             number == NULL ? "" : number);
    return strcmp(id + n, step) == 0 ? KIN_STEP : KIN_OTHER_STEP;
}

kinship launchers_pmix(const variables *v)
{
    const char *id = variables_get(v, "PMIX_NAMESPACE");
    if (id == NULL && variables_get(v, "PMIX_RANK") == NULL) return KIN_NONE;
    return kin_of(v, id, "slurm.pmix.");
}

kinship launchers_pmi(const variables *v)
{
    if (variables_get(v, "PMI_RANK") == NULL && variables_get(v, "PMI_SIZE") == NULL)
        return KIN_NONE;
    const char *id = variables_get(v, "PMI_JOBID");
    if (id == NULL || strspn(id, "0123456789.") != strlen(id)) return KIN_FOREIGN;
    return kin_of(v, id, "");
}

cudpo_status claim_pmix(claim *out, const variables *v)
{
    int64_t rank;
    char name[PLACEMENT_TEXT];
    begin(out, LAUNCHER_PMIX, "PMIx", "PMIX_RANK", "PMIx's job size");
    CUDPO_TRY(variables_number(&rank, v, "PMIX_RANK"));
    CUDPO_TRY(variables_copy(name, "PMIX_NAMESPACE", variables_get(v, "PMIX_NAMESPACE")));
    if (rank < 0 && variables_get(v, "PMIX_NAMESPACE") == NULL) return CUDPO_OK;
    if (rank < 0) return half(out, "PMIX_RANK");
    if (name[0] == '\0') return half(out, "PMIX_NAMESPACE");
    CUDPO_TRY(claim_set(out, rank, rank < MAX_RANKS ? MAX_RANKS : rank)); /* as far as it goes */
    out->p.size = 0;
    out->p.pmix = true;
    if (snprintf(out->p.run_id, PLACEMENT_TEXT, "pmix-%s", name) >= PLACEMENT_TEXT)
        return cudpo_fail(CUDPO_ECONFIG, "PMIX_NAMESPACE", "is longer than 250 characters: %s",
                          name);
    snprintf(out->p.source, PLACEMENT_TEXT, "PMIx %.240s", name);
    return CUDPO_OK;
}

/* The names of one kind of MPI. */
typedef struct mpi_names {
    const char *who, *rank, *size, *local_rank, *local_size;
} mpi_names;

static cudpo_status claim_mpi_of(claim *out, const mpi_names *n, const variables *v)
{
    int64_t rank, size, local, local_size;
    begin(out, LAUNCHER_MPI, n->who, n->rank, n->size);
    CUDPO_TRY(variables_number(&rank, v, n->rank));
    CUDPO_TRY(variables_number(&size, v, n->size));
    CUDPO_TRY(variables_number(&local, v, n->local_rank));
    CUDPO_TRY(variables_number(&local_size, v, n->local_size));
    if (rank < 0 && size < 0 && local < 0 && local_size < 0) return CUDPO_OK;
    if (rank < 0) return half(out, n->rank);
    if (size < 0) return half(out, n->size);
    CUDPO_TRY(claim_set(out, rank, size));
    if (local >= 0)
        CUDPO_TRY(claim_set_local(out, n->local_rank, local, n->local_size, local_size));
    snprintf(out->p.source, PLACEMENT_TEXT, "%s", n->who);
    return CUDPO_OK;
}

cudpo_status claim_mpi(claim *out, const variables *v)
{
    static const mpi_names names[] = {{"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                       "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
                                      {"mpirun of MVAPICH", "MV2_COMM_WORLD_RANK",
                                       "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK",
                                       "MV2_COMM_WORLD_LOCAL_SIZE"},
                                      {"mpirun of Intel MPI or MPICH", "PMI_RANK", "PMI_SIZE",
                                       "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}};
    /* Within a step mpirun sets PMIX_* of its own: where they are Slurm's, srun is the inner one and OMPI_* are left over. */
    const kinship kin[] = {launchers_pmix(v), KIN_NONE, launchers_pmi(v)};
    begin(out, LAUNCHER_MPI, "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        claim c;
        if (kin[i] == KIN_STEP || kin[i] == KIN_OTHER_STEP) continue;
        CUDPO_TRY(claim_mpi_of(&c, &names[i], v));
        if (!c.whole) continue;
        if (out->whole && (c.p.rank != out->p.rank || c.p.size != out->p.size))
            return cudpo_fail(CUDPO_ECONFIG, c.rank,
                              "is %d of %d, and %s is %d of %d: which is it? Unset those of the "
                              "outer mpirun",
                              (int)c.p.rank, (int)c.p.size, out->rank, (int)out->p.rank,
                              (int)out->p.size);
        if (!out->whole) *out = c;
    }
    return CUDPO_OK;
}

/* torchrun reads PET_* as its options, so they count pods; a pod is a rank only where one process runs in it. */
static cudpo_status claim_kubeflow(claim *out, const variables *v, const placement_wish *wish)
{
    int64_t node, nodes, each = 1;
    const char *count = variables_get(v, "PET_NPROC_PER_NODE");
    const char *pods = variables_get(v, "PET_NNODES");
    begin(out, LAUNCHER_KUBERNETES, "Kubeflow", "PET_NODE_RANK", "PET_NNODES");
    if (pods != NULL && strchr(pods, ':') != NULL)
        return cudpo_fail(CUDPO_ECONFIG, "PET_NNODES",
                          "\"%.100s\" is a range, which torchrun makes a number of: start with "
                          "torchrun, or set numNodes",
                          pods);
    CUDPO_TRY(variables_number(&node, v, "PET_NODE_RANK"));
    CUDPO_TRY(variables_number(&nodes, v, "PET_NNODES"));
    if (node < 0) return half(out, "PET_NODE_RANK");
    if (nodes < 0) return half(out, "PET_NNODES");
    if (count != NULL && (strcmp(count, "auto") == 0 || strcmp(count, "gpu") == 0))
        each = launchers_gpus(v, wish) > 1 ? launchers_gpus(v, wish) : 1;
    else if (count != NULL && strcmp(count, "cpu") == 0)
        each = 2; /* or more */
    else if (count != NULL)
        CUDPO_TRY(variables_parse(&each, "PET_NPROC_PER_NODE", count));
    if (each != 1)
        return cudpo_fail(CUDPO_ECONFIG, "PET_NPROC_PER_NODE",
                          "is \"%.100s\": a pod is more than one rank; `cudpo launch` in the pod "
                          "starts its ranks, as torchrun does",
                          count);
    CUDPO_TRY(claim_set(out, node, nodes));
    out->p.local_rank = 0;
    out->p.local_size = 1;
    return CUDPO_OK;
}

cudpo_status claim_kubernetes(claim *out, const variables *v, const placement_wish *wish)
{
    int64_t index, size;
    if (variables_get(v, "PET_NODE_RANK") != NULL || variables_get(v, "PET_NNODES") != NULL) {
        CUDPO_TRY(claim_kubeflow(out, v, wish));
    } else {
        begin(out, LAUNCHER_KUBERNETES, "the Indexed Job", "JOB_COMPLETION_INDEX", "WORLD_SIZE");
        /* Kubernetes sets the index in every Indexed Job, of pods that know nothing of one another, too. */
        if (variables_get(v, "JOB_COMPLETION_INDEX") == NULL ||
            (variables_get(v, "WORLD_SIZE") == NULL && variables_get(v, "MASTER_ADDR") == NULL))
            return CUDPO_OK;
        CUDPO_TRY(variables_number(&index, v, "JOB_COMPLETION_INDEX"));
        CUDPO_TRY(variables_number(&size, v, "WORLD_SIZE"));
        if (size < 0) return half(out, "WORLD_SIZE");
        CUDPO_TRY(claim_set(out, index, size));
        out->p.local_size = 1;
    }
    out->p.node = out->p.rank;
    snprintf(out->p.source, PLACEMENT_TEXT, "pod %d of %s", (int)out->p.rank, out->who);
    return CUDPO_OK;
}

int64_t launchers_gpus(const variables *v, const placement_wish *wish)
{
    const char *visible = variables_get(v, "CUDA_VISIBLE_DEVICES");
    int64_t n = 0;
    if (visible == NULL) return wish->gpus;
    /* What is behind a negative number is not visible: "-1" and "" hide all. */
    for (const char *at = visible; *at != '\0' && *at != '-';) {
        n++;
        at += strcspn(at, ",");
        at += *at == ',';
    }
    return wish->gpus >= 0 && wish->gpus < n ? wish->gpus : n;
}
