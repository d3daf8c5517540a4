/* launcher_slurm.c - the variables that srun gives a task of a step.
 *
 * sbatch and salloc set SLURM_PROCID 0 and SLURM_NTASKS of the job in their shells, too: only SLURM_STEP_ID tells a task, and it,
 * with all SLURM_STEP_*, goes on into the shell of an sbatch that was called within a step.  There SLURM_NTASKS is the job's and
 * no longer equals SLURM_STEP_NUM_TASKS, unless the numbers happen to be the same: then ranks are waited for in vain. */
#include "dist/hostlist.h"
#include "dist/launchers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static cudpo_status missing(const char *name)
{
    return cudpo_fail(
        CUDPO_ECONFIG, name,
        "is missing in what else looks like a task of a Slurm step: start with srun, or "
        "unset SLURM_PROCID and SLURM_STEP_*, or say --launcher none");
}

/* Is this a task of a step?  Where half of it is missing, an error. */
static cudpo_status find_step(bool *step, int64_t *id, int64_t *rank, const variables *v)
{
    static const char *const others[] = {"SLURM_STEPID", "SLURM_STEP_NUM_TASKS",
                                         "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST"};
    *step = false;
    CUDPO_TRY(variables_number(id, v, "SLURM_STEP_ID"));
    CUDPO_TRY(variables_number(rank, v, "SLURM_PROCID"));
    if (*id >= SLURM_NO_STEP) return CUDPO_OK;
    if (*id < 0 && *rank > 0) return missing("SLURM_STEP_ID"); /* shells of jobs are number 0 */
    for (size_t i = 0; i < sizeof others / sizeof *others && *id < 0; i++)
        if (variables_get(v, others[i]) != NULL) return missing("SLURM_STEP_ID");
    if (*id >= 0 && *rank < 0) return missing("SLURM_PROCID");
    *step = *id >= 0;
    return CUDPO_OK;
}

static cudpo_status find_size(int64_t *size, const variables *v)
{
    int64_t job;
    CUDPO_TRY(variables_number(size, v, "SLURM_STEP_NUM_TASKS"));
    CUDPO_TRY(variables_number(&job, v, "SLURM_NTASKS"));
    if (*size < 0) *size = job;
    if (*size < 0) return missing("SLURM_STEP_NUM_TASKS");
    if (job < 0 || job == *size) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "SLURM_STEP_NUM_TASKS",
                      "is %" PRId64 " and SLURM_NTASKS is %" PRId64
                      ": if this is no task of srun's, but sbatch or salloc was called in one, "
                      "start with srun, or say --launcher none; else unset SLURM_NTASKS",
                      *size, job);
}

/* The place on the node, which must fit in the layout of the step. */
static cudpo_status set_node(claim *out, const variables *v)
{
    static const char *const layout = "SLURM_STEP_TASKS_PER_NODE";
    int64_t local, node, total, nodes, here;
    const char *list = variables_get(v, layout);
    CUDPO_TRY(variables_number(&local, v, "SLURM_LOCALID"));
    CUDPO_TRY(variables_number(&node, v, "SLURM_NODEID"));
    if (local < 0) return missing("SLURM_LOCALID");
    if (node < 0) return missing("SLURM_NODEID");
    if (list == NULL) return missing(layout);
    CUDPO_TRY(hostlist_tasks(&total, &nodes, &here, layout, list, node));
    if (total != out->p.size)
        return cudpo_fail(CUDPO_ECONFIG, layout,
                          "\"%.100s\" is of %" PRId64 " tasks and %s is %d: they are not of one "
                          "step",
                          list, total, out->size, (int)out->p.size);
    if (node >= nodes)
        return cudpo_fail(CUDPO_ECONFIG, "SLURM_NODEID",
                          "is %" PRId64 " and %s \"%.100s\" is of %" PRId64 " nodes", node, layout,
                          list, nodes);
    out->p.node = (int32_t)node;
    return claim_set_local(out, "SLURM_LOCALID", local, layout, here);
}

/* SLURM_GTIDS lists the ranks of this node: number SLURM_LOCALID of them is this one. */
static cudpo_status check_listed(const claim *c, const variables *v)
{
    const char *list = variables_get(v, "SLURM_GTIDS"), *at = list;
    char text[16];
    for (int32_t i = 0; at != NULL && i < c->p.local_rank; i++) {
        at = strchr(at, ',');
        at = at == NULL ? NULL : at + 1;
    }
    snprintf(text, sizeof text, "%d", (int)c->p.rank);
    const size_t n = at == NULL ? 0 : strcspn(at, ",");
    if (list == NULL || (n == strlen(text) && strncmp(at, text, n) == 0)) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "SLURM_PROCID",
                      "is %d, and number SLURM_LOCALID %d (from 0) of SLURM_GTIDS \"%.100s\" is "
                      "not: unset what is left over from another step",
                      (int)c->p.rank, (int)c->p.local_rank, list);
}

cudpo_status claim_slurm(claim *out, const variables *v)
{
    int64_t id, rank, size, job, restarts;
    bool step;
    *out = (claim){.who = "the Slurm step",
                   .rank = "SLURM_PROCID",
                   .size = "SLURM_STEP_NUM_TASKS",
                   .p = {.launcher = LAUNCHER_SLURM, .local_rank = -1, .node = -1}};
    CUDPO_TRY(find_step(&step, &id, &rank, v));
    if (!step) return CUDPO_OK;
    CUDPO_TRY(find_size(&size, v));
    CUDPO_TRY(variables_number(&job, v, "SLURM_JOB_ID"));
    CUDPO_TRY(variables_number(&restarts, v, "SLURM_RESTART_COUNT")); /* unset in the first run */
    if (job < 0) return missing("SLURM_JOB_ID");
    CUDPO_TRY(claim_set(out, rank, size));
    CUDPO_TRY(set_node(out, v));
    CUDPO_TRY(check_listed(out, v));
    out->p.restarts = restarts > 0 && restarts <= INT32_MAX ? (int32_t)restarts : 0;
    snprintf(out->p.source, PLACEMENT_TEXT, "slurm step %" PRId64 ".%" PRId64, job, id);
    snprintf(out->p.run_id, PLACEMENT_TEXT, "slurm-%" PRId64 ".%" PRId64 "-%d", job, id,
             (int)out->p.restarts);
    return CUDPO_OK;
}
