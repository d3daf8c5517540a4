/* placement.c - of all that launchers left in the environment, what is this process's.
 *
 * Launchers nest: torchrun's agents are the tasks of a Slurm step or the ranks of mpirun; mpirun starts its daemons with srun, so
 * that its ranks, on the node that it was called on too, see a true step: the daemons', with one task per node.  The inner one
 * says who this process is, and the outer one's numbers differ with good reason.  Which one is the inner one:
 *  - torchrun, and who sets RANK, WORLD_SIZE and LOCAL_RANK, starts processes and never job steps.
 *  - mpirun (OMPI_*, or PMI_* that are not Slurm's) within a step, for the daemons' sake.  That its rank and size happen to be the
 *    step's says nothing: two ranks on the first of two nodes are 0 and 1 of 2, and both see task 0 of 2.
 *  - srun within mpirun or within another step: PMIX_NAMESPACE and PMI_JOBID name the step that they are of, if they are Slurm's.
 * What remains is an inner launcher that knows of one process alone, inside one of several (mpirun -n 1 srun -n 4; torchrun
 * without --nnodes): that many runs would each take themselves for the only one.  It is refused.  Wrong numbers of other kinds
 * make two processes of one rank, which rank 0 refuses. */
#include "dist/placement.h"
#include "base/nearest.h"
#include "dist/endpoint.h"
#include "dist/launchers.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const launcher_names[LAUNCHERS] = {[LAUNCHER_NONE] = "none",
                                               [LAUNCHER_FLAGS] = "flags",
                                               [LAUNCHER_TORCHRUN] = "torchrun",
                                               [LAUNCHER_SLURM] = "slurm",
                                               [LAUNCHER_PMIX] = "pmix",
                                               [LAUNCHER_MPI] = "mpi",
                                               [LAUNCHER_KUBERNETES] = "kubernetes"};

const char *placement_getenv(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

static cudpo_status disagree(const claim *a, const claim *b, const char *why)
{
    return cudpo_fail(CUDPO_ECONFIG, a->rank,
                      "is %d and %s %d by %s, but by %s %s is %d and %s %d: %s; unset what is left "
                      "over, or say --launcher %s or --launcher %s",
                      (int)a->p.rank, a->size, (int)a->p.size, a->who, b->who, b->rank,
                      (int)b->p.rank, b->size, (int)b->p.size, why, launcher_names[a->p.launcher],
                      launcher_names[b->p.launcher]);
}

static cudpo_status check_same(const claim *a, const claim *b)
{
    if (a->p.rank == b->p.rank && a->p.size == b->p.size) return CUDPO_OK;
    return disagree(a, b, "which is it");
}

/* A launcher that starts what it likes in each process of the outer one. */
static cudpo_status check_nested(const claim *inner, const claim *outer)
{
    if (outer->p.size < 2 || inner->p.size > 1) return CUDPO_OK;
    return disagree(inner, outer,
                    inner->p.size == 1 ? "each would take itself for the only one"
                                       : "which one is within the other");
}

/* One that starts at least one rank in each, and where it is one, in the same order. */
static cudpo_status check_spread(const claim *inner, const claim *outer)
{
    if (inner->p.size < outer->p.size) return disagree(inner, outer, "those are too few");
    return inner->p.size == outer->p.size ? check_same(inner, outer) : CUDPO_OK;
}

/* mpirun, with its PMIx or without. */
static cudpo_status claim_mpirun(claim *out, const variables *v)
{
    claim pmix;
    const kinship kin = launchers_pmix(v);
    CUDPO_TRY(claim_mpi(out, v));
    if (kin != KIN_FOREIGN) return CUDPO_OK;
    CUDPO_TRY(claim_pmix(&pmix, v));
    if (!out->whole) {
        *out = pmix;
        return CUDPO_OK;
    }
    if (out->p.rank != pmix.p.rank)
        return cudpo_fail(CUDPO_ECONFIG, out->rank,
                          "is %d and PMIX_RANK is %d: which is it? Unset those of the outer "
                          "launcher, or say --launcher mpi or --launcher pmix",
                          (int)out->p.rank, (int)pmix.p.rank);
    out->p.launcher = LAUNCHER_PMIX;
    out->p.pmix = true;
    memcpy(out->p.run_id, pmix.p.run_id, PLACEMENT_TEXT);
    snprintf(out->p.source, PLACEMENT_TEXT, "%s, %.200s", out->who, pmix.p.source);
    return CUDPO_OK;
}

/* A Slurm step, with what srun --mpi=pmix and --mpi=pmi2 say of it beside. */
static cudpo_status claim_step(claim *out, const variables *v)
{
    CUDPO_TRY(claim_slurm(out, v));
    if (!out->whole) return CUDPO_OK;
    if (launchers_pmi(v) == KIN_STEP) {
        int64_t rank, size;
        CUDPO_TRY(variables_number(&rank, v, "PMI_RANK"));
        CUDPO_TRY(variables_number(&size, v, "PMI_SIZE"));
        if (rank != out->p.rank || size != out->p.size)
            return cudpo_fail(CUDPO_ECONFIG, "PMI_RANK",
                              "and PMI_SIZE are %" PRId64 " and %" PRId64
                              ", and those of the same Slurm step (SLURM_PROCID, %s) %d and %d",
                              rank, size, out->size, (int)out->p.rank, (int)out->p.size);
    }
    if (launchers_pmix(v) != KIN_STEP) return CUDPO_OK;
    claim pmix;
    CUDPO_TRY(claim_pmix(&pmix, v));
    if (!pmix.whole || pmix.p.rank != out->p.rank)
        return cudpo_fail(CUDPO_ECONFIG, "PMIX_RANK",
                          "is %d, and SLURM_PROCID of the same Slurm step is %d", (int)pmix.p.rank,
                          (int)out->p.rank);
    out->p.pmix = true;
    return CUDPO_OK;
}

/* A launcher's claim that makes no sense is an error, but where another one within it is whole. */
static cudpo_status weigh(claim *c, cudpo_status status, bool outranked)
{
    if (status == CUDPO_OK || !outranked) return status;
    cudpo_error_clear();
    c->whole = false;
    return CUDPO_OK;
}

static cudpo_status check_alike(const char *name, int64_t value, const char *of, int64_t theirs,
                                const claim *c)
{
    if (value < 0 || value == theirs) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, name,
                      "is %" PRId64 ", and by %s %s is %" PRId64
                      ": which is it? Unset what is left "
                      "over, or say --launcher %s",
                      value, c->who, of, theirs, launcher_names[c->p.launcher]);
}

/* RANK and WORLD_SIZE without LOCAL_RANK: one process per pod, as PyTorchJob has it; or one of several per node, which differ in
 * nothing that can be seen here (PAI DLC). */
static cudpo_status claim_pair(claim *c, int64_t rank, int64_t size, const variables *v,
                               const placement_wish *wish)
{
    int64_t each;
    CUDPO_TRY(variables_number(&each, v, "NPROC_PER_NODE"));
    if (wish->local_rank < 0 && each > 1)
        return cudpo_fail(CUDPO_ECONFIG, "RANK",
                          "is set without LOCAL_RANK, and NPROC_PER_NODE is %" PRId64
                          ": it counts nodes, not processes; `cudpo launch` starts a node's "
                          "ranks, as torchrun does",
                          each);
    *c = (claim){.who = "the environment", .rank = "RANK", .size = "WORLD_SIZE"};
    c->p = (placement){.launcher = LAUNCHER_TORCHRUN, .local_rank = -1, .node = -1};
    snprintf(c->p.source, PLACEMENT_TEXT, "RANK of the environment");
    return claim_set(c, rank, size);
}

/* Of RANK, WORLD_SIZE and LOCAL_RANK some may stand alone: as another launcher has them, or they are half of a set. */
static cudpo_status check_rest(claim *c, const variables *v, const placement_wish *wish)
{
    int64_t rank, size, local;
    CUDPO_TRY(variables_number(&rank, v, "RANK"));
    CUDPO_TRY(variables_number(&size, v, "WORLD_SIZE"));
    CUDPO_TRY(variables_number(&local, v, "LOCAL_RANK"));
    if (c->whole) {
        CUDPO_TRY(check_alike("RANK", rank, c->rank, c->p.rank, c));
        if (c->p.size > 0) CUDPO_TRY(check_alike("WORLD_SIZE", size, c->size, c->p.size, c));
        if (c->p.local_rank < 0) return CUDPO_OK;
        return check_alike("LOCAL_RANK", local, "the local rank", c->p.local_rank, c);
    }
    if (rank < 0 && size < 0 && local < 0) return CUDPO_OK;
    if (rank >= 0 && size >= 0) return claim_pair(c, rank, size, v, wish);
    return cudpo_fail(CUDPO_ECONFIG, rank < 0 ? "RANK" : "WORLD_SIZE",
                      "is missing, and %s is set: start with a launcher, set all of RANK, "
                      "WORLD_SIZE and LOCAL_RANK, or unset them",
                      rank >= 0   ? "RANK"
                      : size >= 0 ? "WORLD_SIZE"
                                  : "LOCAL_RANK");
}

static cudpo_status choose(claim *out, const placement_wish *wish, const variables *v)
{
    claim flags, torch, mpi, slurm, pods;
    CUDPO_TRY(claim_flags(&flags, wish));
    CUDPO_TRY(claim_torchrun(&torch, v));
    bool whole = flags.whole || torch.whole;
    CUDPO_TRY(weigh(&mpi, claim_mpirun(&mpi, v), whole));
    whole = whole || mpi.whole;
    CUDPO_TRY(weigh(&slurm, claim_step(&slurm, v), whole));
    whole = whole || slurm.whole;
    CUDPO_TRY(weigh(&pods, claim_kubernetes(&pods, v, wish), whole));
    /* WORLD_SIZE of an Indexed Job is no longer there where a launcher in its pods has set its own. */
    if (torch.whole && strcmp(pods.rank, "JOB_COMPLETION_INDEX") == 0) pods.whole = false;
    claim *const outer = mpi.whole ? &mpi : slurm.whole ? &slurm : &pods;
    const bool agents = variables_get(v, "TORCHELASTIC_RUN_ID") != NULL;
    if (mpi.whole && slurm.whole) CUDPO_TRY(check_nested(&mpi, &slurm));
    if (outer != &pods && pods.whole) CUDPO_TRY(check_nested(outer, &pods));
    if (torch.whole && outer->whole)
        CUDPO_TRY((agents ? check_nested : check_spread)(&torch, outer));
    if (flags.whole && torch.whole) CUDPO_TRY(check_same(&flags, &torch));
    if (flags.whole && outer->whole) CUDPO_TRY(check_spread(&flags, outer));
    *out = flags.whole ? flags : torch.whole ? torch : *outer;
    return flags.whole || torch.whole ? CUDPO_OK : check_rest(out, v, wish);
}

/* The one launcher that was asked for; nothing else is looked at. */
static cudpo_status take(claim *out, launcher asked, const placement_wish *wish, const variables *v)
{
    static const char *const needs[LAUNCHERS] = {
        [LAUNCHER_FLAGS] = "--rank and --world_size",
        [LAUNCHER_TORCHRUN] = "RANK, WORLD_SIZE and LOCAL_RANK",
        [LAUNCHER_SLURM] = "SLURM_PROCID and SLURM_STEP_ID of a step of srun's",
        [LAUNCHER_PMIX] = "PMIX_RANK and PMIX_NAMESPACE",
        [LAUNCHER_MPI] = "OMPI_COMM_WORLD_RANK, PMI_RANK or MV2_COMM_WORLD_RANK, with the size",
        [LAUNCHER_KUBERNETES] = "PET_NODE_RANK and PET_NNODES, or JOB_COMPLETION_INDEX and "
                                "WORLD_SIZE"};
    claim mpi;
    *out = (claim){0};
    CUDPO_TRY(claim_flags(out, wish));
    if (asked != LAUNCHER_FLAGS && out->whole)
        return cudpo_fail(CUDPO_ECONFIG, "--launcher",
                          "%s goes without --rank and --world_size, which are for flags",
                          launcher_names[asked]);
    if (asked == LAUNCHER_NONE) return CUDPO_OK;
    if (asked == LAUNCHER_TORCHRUN) CUDPO_TRY(claim_torchrun(out, v));
    if (asked == LAUNCHER_TORCHRUN && !out->whole && wish->local_rank >= 0)
        CUDPO_TRY(check_rest(out, v, wish));
    if (asked == LAUNCHER_SLURM) CUDPO_TRY(claim_step(out, v));
    if (asked == LAUNCHER_KUBERNETES) CUDPO_TRY(claim_kubernetes(out, v, wish));
    if (asked == LAUNCHER_MPI) CUDPO_TRY(claim_mpi(out, v));
    if (asked == LAUNCHER_PMIX) {
        CUDPO_TRY(claim_pmix(out, v));
        CUDPO_TRY(weigh(&mpi, claim_mpirun(&mpi, v), out->whole));
        if (mpi.whole && mpi.p.launcher == LAUNCHER_PMIX) *out = mpi; /* knows the size */
    }
    if (out->whole) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "--launcher", "%s was asked for and is not there: it sets %s",
                      launcher_names[asked], needs[asked]);
}

static void set_alone(placement *p, const variables *v)
{
    int64_t job;
    *p = (placement){.launcher = LAUNCHER_NONE, .size = 1, .local_size = 1};
    if (variables_number(&job, v, "SLURM_JOB_ID") != CUDPO_OK) cudpo_error_clear();
    if (job >= 0)
        snprintf(p->source, PLACEMENT_TEXT,
                 "Slurm job %" PRId64 ", and no step of it: srun starts ranks", job);
    else
        snprintf(p->source, PLACEMENT_TEXT,
                 "none of torchrun, Slurm, PMIx, mpirun, Kubernetes is in the environment");
}

/* The local rank where the launcher said none, or the command line says it, too. */
static cudpo_status settle_local_rank(placement *p, const char *rank, const placement_wish *wish,
                                      const variables *v)
{
    const int64_t wanted = wish->local_rank, gpus = launchers_gpus(v, wish);
    if (wanted >= 0 &&
        ((p->local_rank >= 0 && wanted != p->local_rank) || wanted >= MAX_RANKS ||
         (p->local_size > 0 && wanted >= p->local_size) || (p->size > 0 && wanted >= p->size)))
        return cudpo_fail(CUDPO_ECONFIG, "--local_rank",
                          "is %" PRId64 ", and rank %d of %d is local rank %d of %d (%s)", wanted,
                          (int)p->rank, (int)p->size, (int)p->local_rank, (int)p->local_size,
                          p->source);
    if (wanted >= 0) p->local_rank = (int32_t)wanted;
    if (p->local_rank >= 0 || p->size == 0) return CUDPO_OK;
    if (p->size > 1 && gpus > 1)
        return cudpo_fail(CUDPO_ECONFIG, rank,
                          "is set without a local rank, and %" PRId64 " GPUs are visible: is it "
                          "the number of a node or of a process? `cudpo launch` starts a rank for "
                          "each GPU of a node; or set LOCAL_RANK or --local_rank, or let "
                          "CUDA_VISIBLE_DEVICES name one GPU",
                          gpus);
    p->local_rank = 0;
    return CUDPO_OK;
}

static cudpo_status wanted_launcher(launcher *out, const char *name)
{
    *out = LAUNCHERS;
    if (name == NULL || strcmp(name, "auto") == 0) return CUDPO_OK;
    for (int i = 0; i < LAUNCHERS; i++)
        if (strcmp(name, launcher_names[i]) == 0) *out = (launcher)i;
    if (*out != LAUNCHERS) return CUDPO_OK;
    const char *near = nearest_name(name, launcher_names, LAUNCHERS);
    return cudpo_fail(CUDPO_ECONFIG, "--launcher",
                      "\"%.100s\" is none of auto, flags, torchrun, slurm, pmix, mpi, kubernetes, "
                      "none%s%s%s",
                      name, near == NULL ? "" : "; did you mean ", near == NULL ? "" : near,
                      near == NULL ? "" : "?");
}

cudpo_status placement_find(placement *out, const placement_wish *wish, placement_variable get,
                            void *context)
{
    const variables v = {get, context};
    launcher asked;
    claim c;
    *out = (placement){0};
    CUDPO_TRY(wanted_launcher(&asked, wish->launcher));
    CUDPO_TRY(asked == LAUNCHERS ? choose(&c, wish, &v) : take(&c, asked, wish, &v));
    if (!c.whole) set_alone(&c.p, &v);
    CUDPO_TRY(settle_local_rank(&c.p, c.rank, wish, &v));
    CUDPO_TRY(endpoint_find(&c.p, wish, &v));
    if (wish->rdzv_id != NULL) CUDPO_TRY(variables_copy(c.p.run_id, "--rdzv_id", wish->rdzv_id));
    *out = c.p;
    return CUDPO_OK;
}

cudpo_status placement_complete(placement *p, int64_t size, int64_t local_rank, int64_t local_size,
                                int64_t node)
{
    claim c = {.who = "PMIx", .rank = "PMIX_RANK", .size = "PMIX_JOB_SIZE", .p = *p};
    CUDPO_REQUIRE(p->size == 0 && p->pmix);
    CUDPO_TRY(claim_set(&c, p->rank, size));
    if (p->local_rank >= 0 && p->local_rank != local_rank)
        return cudpo_fail(CUDPO_ECONFIG, "--local_rank", "is %d and PMIX_LOCAL_RANK is %" PRId64,
                          (int)p->local_rank, local_rank);
    if (local_rank < 0)
        return cudpo_fail(CUDPO_ECONFIG, "PMIX_LOCAL_RANK", "%" PRId64 " is negative", local_rank);
    CUDPO_TRY(claim_set_local(&c, "PMIX_LOCAL_RANK", local_rank, "PMIX_LOCAL_SIZE",
                              local_size > 0 ? local_size : -1));
    c.p.node = node >= 0 && node < size ? (int32_t)node : -1;
    *p = c.p;
    return CUDPO_OK;
}

/* A GPU is a file of its own; a control group or container that hides one hides the file. */
static int32_t count_gpus(void)
{
    int32_t n = 0;
    DIR *folder = opendir("/dev");
    if (folder == NULL) return -1;
    for (const struct dirent *e = readdir(folder); e != NULL; e = readdir(folder))
        n += strncmp(e->d_name, "nvidia", 6) == 0 && isdigit((unsigned char)e->d_name[6]);
    (void)closedir(folder);
    return n > 0 ? n : -1; /* or they are somewhere else */
}

placement_wish placement_wish_of(const cudpo_ranks *ranks)
{
    static const cudpo_ranks none = CUDPO_RANKS_AUTO;
    if (ranks == NULL) ranks = &none;
    return (placement_wish){.launcher = ranks->launcher,
                            .rank = ranks->rank,
                            .world_size = ranks->world_size,
                            .local_rank = ranks->local_rank,
                            .rdzv_endpoint = ranks->rdzv_endpoint,
                            .rdzv_id = ranks->rdzv_id,
                            .gpus = count_gpus()};
}

void placement_sentence(char out[PLACEMENT_SENTENCE], const placement *p)
{
    char size[32] = "as many as PMIx says", local[64] = "", where[PLACEMENT_TEXT + 64] = "";
    if (p->launcher == LAUNCHER_NONE) {
        snprintf(out, PLACEMENT_SENTENCE, "one process: %s", p->source);
        return;
    }
    if (p->size > 0) snprintf(size, sizeof size, "%d", (int)p->size);
    if (p->local_size > 0)
        snprintf(local, sizeof local, ", local rank %d of %d", (int)p->local_rank,
                 (int)p->local_size);
    else if (p->local_rank >= 0)
        snprintf(local, sizeof local, ", local rank %d", (int)p->local_rank);
    if (p->port > 0)
        snprintf(where, sizeof where, ", rank 0 at %s:%d", p->address, (int)p->port);
    else if (p->size != 1)
        snprintf(where, sizeof where, ", rank 0 where PMIx says");
    snprintf(out, PLACEMENT_SENTENCE, "rank %d of %s (%s)%s%s", (int)p->rank, size, p->source,
             local, where);
}
