/* job_slurm.c - a script for sbatch. */
#include "launch/job.h"
#include "base/quote.h"

#include <string.h>

static cudpo_status write_option(buffer *b, const char *option, const char *value)
{
    return value == NULL ? CUDPO_OK : buffer_printf(b, "#SBATCH --%s=%s\n", option, value);
}

static cudpo_status write_head(buffer *b, const cudpo_job *a)
{
    CUDPO_TRY(buffer_printf(
        b,
        "#!/bin/bash\n"
        "# %lld node%s of %lld rank%s each.  Submit it with sbatch, in the folder where relative "
        "paths begin.\n",
        (long long)a->nodes, a->nodes == 1 ? "" : "s", (long long)a->ranks_per_node,
        a->ranks_per_node == 1 ? "" : "s"));
    CUDPO_TRY(write_option(b, "job-name", a->name));
    CUDPO_TRY(buffer_printf(b, "#SBATCH --nodes=%lld\n#SBATCH --ntasks-per-node=%lld\n",
                            (long long)a->nodes, (long long)a->ranks_per_node));
    if (a->gpus_per_node > 0)
        CUDPO_TRY(buffer_printf(b, "#SBATCH --gpus-per-node=%lld\n", (long long)a->gpus_per_node));
    CUDPO_TRY(buffer_printf(b, "#SBATCH --cpus-per-task=%lld\n", (long long)a->cpus_per_rank));
    CUDPO_TRY(write_option(b, "time", a->time));
    CUDPO_TRY(write_option(b, "partition", a->partition));
    CUDPO_TRY(write_option(b, "account", a->account));
    CUDPO_TRY(write_option(b, "array", a->array));
    return buffer_printf(
        b,
        "#SBATCH --output=%s\n"
        "# Before its time is over the run is told to save.  It ends with status 75 then, and is "
        "queued again\n"
        "# to go on from there; so it does after a node was lost or a job of higher priority "
        "came.\n"
        "#SBATCH --signal=USR1@%d\n"
        "#SBATCH --requeue\n"
        "#SBATCH --open-mode=append\n\n"
        "id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}\n"
        "id=${id:-$SLURM_JOB_ID}\n"
        "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK\n\n",
        a->array == NULL ? "%x-%j.out" : "%x-%A_%a.out", JOB_SAVE_SECONDS);
}

/* In the folder of the configuration, which all nodes must see in any case. */
static cudpo_status write_token(buffer *b, const job *j)
{
    CUDPO_TRY(buffer_printf(b, "# A secret of this run, without which no process can join it, in a "
                               "file that all nodes see.\n"
                               "folder="));
    CUDPO_TRY(quote_shell(b, j->folder));
    return buffer_printf(
        b,
        "\n"
        "rm -f -- \"$folder/.cudpo-token-$id\".* # of a start that was killed\n"
        "CUDPO_RDZV_TOKEN_FILE=$(mktemp -- \"$folder/.cudpo-token-$id.XXXXXX\") || exit 73\n"
        "export CUDPO_RDZV_TOKEN_FILE\n"
        "trap 'rm -f -- \"$CUDPO_RDZV_TOKEN_FILE\"' EXIT\n"
        "%s >\"$CUDPO_RDZV_TOKEN_FILE\" || exit 73\n\n",
        job_make_secret);
}

/* The folder of this job's run; of an array, that of its element. */
static cudpo_status write_output(buffer *b, const cudpo_job *a)
{
    CUDPO_TRY(quote_shell(b, a->output_dir));
    return a->array == NULL ? CUDPO_OK : buffer_printf(b, "/\"$SLURM_ARRAY_TASK_ID\"");
}

/* What makes the job go on after its limit, and after it lost a node: ranks of the others notice that before Slurm does.  Progress
 * is demanded there, since the next attempt might come to the same end.  Where somebody stopped an attempt early, it is not. */
static cudpo_status write_progress(buffer *b, const cudpo_job *a)
{
    if (a->output_dir == NULL) {
        CUDPO_TRY(buffer_printf(b, "further() { false; }\nmay_go_on() { true; }\n"));
    } else {
        CUDPO_TRY(buffer_printf(b, "# Has it come further than it was when it began?  If not, it "
                                   "never would.\n"
                                   "output="));
        CUDPO_TRY(write_output(b, a));
        CUDPO_TRY(buffer_printf(
            b, "\n"
               "newest() { # step of a checkpoint; 0: there is none\n"
               "    { echo 0; ls -d -- \"$output\"/checkpoint-* | sed -n "
               "'s/.*checkpoint-\\([0-9]*\\)$/\\1/p'; } 2>/dev/null |\n"
               "        sort -n | tail -n 1\n"
               "}\n"
               "began=$(newest)\n"
               "further() { [ \"$(newest)\" -gt \"$began\" ]; }\n"
               "# Told to stop before the first step, it may try again some "
               "times.\n"
               "may_go_on() { further || [ \"${SLURM_RESTART_COUNT:-0}\" -lt 4 ]; }\n"));
    }
    return buffer_printf(b, "at_limit() { [ \"$(squeue -h -j \"$id\" -o %%r)\" = TimeLimit ] && "
                            "further; }\n"
                            "runs() { [ \"$(squeue -h -j \"$id\" -o %%T)\" = RUNNING ]; } # a job "
                            "that was cancelled stays so\n");
}

static cudpo_status write_command(buffer *b, const job *j)
{
    const cudpo_job *a = &j->ask;
    CUDPO_TRY(write_progress(b, a));
    CUDPO_TRY(buffer_printf(
        b,
        "queued=\n"
        "queue_again() { [ -n \"$queued\" ] || { scontrol requeue \"$id\" && queued=yes; }; }\n"
        "# Signals must not end this script before the ranks have saved; bash handles them between "
        "commands.\n"
        "trap : USR1 USR2\n"
        "# At its limit a job gets SIGTERM.  Ranks that have not ended some seconds later are "
        "killed, and so is this script.\n"
        "trap 'if at_limit; then queue_again; fi' TERM\n"
        "srun --export=ALL --kill-on-bad-exit=1 "
        "--cpus-per-task=\"$SLURM_CPUS_PER_TASK\""));
    if (a->mpi != NULL) CUDPO_TRY(buffer_printf(b, " --mpi=%s", a->mpi));
    CUDPO_TRY(buffer_printf(b, " \\\n    "));
    CUDPO_TRY(quote_shell(b, a->program));
    CUDPO_TRY(job_command(b, j));
    if (a->array != NULL) { /* last, so that it wins */
        CUDPO_TRY(buffer_printf(b, " \\\n    --seed \"$SLURM_ARRAY_TASK_ID\" --output_dir "));
        CUDPO_TRY(write_output(b, a));
    }
    return buffer_printf(b, " &\n"
                            "ranks=$!\n"
                            "while kill -0 \"$ranks\" 2>/dev/null; do wait \"$ranks\"; done\n"
                            "wait \"$ranks\"\n"
                            "status=$?\n\n");
}

cudpo_status job_slurm(buffer *b, const job *j)
{
    CUDPO_TRY(write_head(b, &j->ask));
    if (j->ask.mpi == NULL || strcmp(j->ask.mpi, "pmix") != 0) CUDPO_TRY(write_token(b, j));
    CUDPO_TRY(write_command(b, j));
    return buffer_printf(b, "# 75: stopped and saved.  69: a rank was lost to the others.\n"
                            "case $status in\n"
                            "75) if runs && may_go_on || at_limit; then queue_again; fi ;;\n"
                            "69) if runs && further; then queue_again; fi ;;\n"
                            "esac\n"
                            "exit \"$status\"\n");
}
