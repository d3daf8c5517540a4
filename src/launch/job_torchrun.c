/* job_torchrun.c - the command of each node, for those who have torchrun at hand. */
#include "launch/job.h"
#include "base/quote.h"

#include <stdio.h>

static cudpo_status write_command(buffer *b, const job *j, const char *agents)
{
    CUDPO_TRY(buffer_printf(b,
                            "OMP_NUM_THREADS=%lld torchrun %s \\\n"
                            "    --nproc_per_node %lld --no_python ",
                            (long long)j->ask.cpus_per_rank, agents,
                            (long long)j->ask.ranks_per_node));
    CUDPO_TRY(quote_shell(b, j->ask.program));
    CUDPO_TRY(job_command(b, j));
    return buffer_printf(b, "\n");
}

cudpo_status job_torchrun(buffer *b, const job *j)
{
    char agents[256];
    CUDPO_TRY(buffer_printf(
        b,
        "# torchrun would set OMP_NUM_THREADS to 1 where it is not set.  `cudpo launch` does the "
        "same without Python.\n"
        "# Its agent keeps MASTER_PORT for itself, unless told not to share its store.\n"
        "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1\n"));
    if (j->ask.nodes == 1) return write_command(b, j, "--standalone");
    CUDPO_TRY(buffer_printf(
        b,
        "# Once: a secret without which no process can join the run, in a file that all nodes see "
        "or get a copy of:\n"
        "#   (umask 077; %s >token)\n"
        "export CUDPO_RDZV_TOKEN_FILE=\"$PWD/token\"\n"
        "# Then on each of %lld nodes, HEAD being the name of one of them, and RUN the same new "
        "word "
        "everywhere:\n",
        job_make_secret, (long long)j->ask.nodes));
    snprintf(agents, sizeof agents,
             "--nnodes %lld --rdzv_backend c10d \\\n"
             "    --rdzv_endpoint \"${HEAD:?}:%d\" --rdzv_id \"${RUN:?}\"",
             (long long)j->ask.nodes, JOB_PORT);
    return write_command(b, j, agents);
}
