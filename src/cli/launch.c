/* launch.c - `cudpo launch`: ranks on this machine. */
#include "cudpo/launch.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page page = {
    "launch",
    "start several ranks here, or make a job file for many nodes",
    "cudpo launch [--nproc N] [--option value ...] [--] train CONFIG.json [--key value ...]\n"
    "cudpo launch slurm|kubernetes|torchrun CONFIG.json [--key value ...] --nodes M "
    "--gpus_per_node G [--option value ...]",
    "Starts N ranks of this program on this machine, one for each GPU, and waits for them. What "
    "torchrun would tell each of them stands in its environment (RANK, WORLD_SIZE, LOCAL_RANK, "
    "MASTER_ADDR and so on), with a secret that only ranks of this run know. Each line that a rank "
    "prints gets \"[rank K] \" before it, where there are several.\n"
    "\n"
    "SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGCONT go on to all ranks, once each. "
    "When a rank fails, the others have --grace seconds to end by themselves, then SIGTERM "
    "reaches them, and SIGKILL ten seconds later. No rank outlives this process, even if that is "
    "killed.\n"
    "\n"
    "Of several nodes, each runs this command with its own --node_rank; nothing is started on "
    "other nodes from here. In a pod of Kubeflow, PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE, "
    "PET_MASTER_ADDR and PET_MASTER_PORT stand for options that are not given.\n"
    "\n"
    "With --max_restarts R, all ranks of this node start again, R times at most, when they ended "
    "with another status than 0, 64, 65, 66, 78 or 79 and this process got no signal that asks to "
    "stop. Say --resume_from_checkpoint true behind `train` then, so that they go on from the last "
    "checkpoint.\n"
    "\n"
    "`cudpo launch slurm --help` tells of job files.\n"
    "\n"
    "The exit status is that of the rank that failed first (128 + signal where a signal ended it); "
    "75 where all that did not come to their end have saved; 0 where all came to it.",
    NULL,
    "  cudpo launch --nproc 2 train dpo.json\n"
    "  cudpo launch --nproc gpu --max_restarts 3 train dpo.json --resume_from_checkpoint true\n"
    "  cudpo launch --nproc 8 --nnodes 2 --node_rank 1 --rdzv_endpoint node0:29500 "
    "--rdzv_token_file token -- train dpo.json\n"
    "  cudpo launch --nproc 2 --program numactl -- --localalloc cudpo train dpo.json"};

/* --node-rank as --node_rank: torchrun takes both. */
static void underline(char *option)
{
    for (char *c = option + 2; *c != '\0' && *c != '='; c++)
        if (*c == '-') *c = '_';
}

/* The first word that is no option and no option's value, or that behind "--".  Out: end  of the options. */
static int find_command(int *end, const cli_option *options, int64_t n, int argc, char **argv)
{
    for (*end = 1; *end < argc; *end += 1) {
        char *word = argv[*end];
        if (strcmp(word, "--") == 0) return *end + 1;
        if (word[0] != '-') return *end;
        if (word[1] == '-') underline(word);
        for (int64_t k = 0; k < n; k++)
            if (strcmp(word, options[k].name) == 0 && options[k].kind != CLI_FLAG &&
                *end + 1 < argc)
                *end += 1;
    }
    return argc;
}

/* Ends the process with the status of the ranks, which is no status of this program's own. */
static cudpo_status start(const cudpo_launch_options *o)
{
    int exit_status = 0;
    CUDPO_TRY(cudpo_launch(&exit_status, o));
    if (exit_status == 0) return CUDPO_OK;
    fflush(stdout);
    exit(exit_status);
}

cudpo_status cli_launch(int argc, char **argv)
{
    cudpo_launch_options o = {.nnodes = -1, .node_rank = -1, .grace = 10.0};
    const cli_option options[] = {
        {"--nproc", CLI_TEXT, "N|gpu|auto (auto)",
         "ranks on this node; gpu: one for each that CUDA_VISIBLE_DEVICES names, or that "
         "/dev/nvidia0 and so on are; auto: the same, but one where there is no GPU",
         &o.nproc},
        {"--nnodes", CLI_INTEGER, "M (1)", "nodes of the run", &o.nnodes},
        {"--node_rank", CLI_INTEGER, "K", "which of them this is, from 0", &o.node_rank},
        {"--rdzv_endpoint", CLI_TEXT, "HOST:PORT",
         "where rank 0 is met: node 0, and a port that is free there (29500)", &o.rdzv_endpoint},
        {"--rdzv_id", CLI_TEXT, "ID", "a name that no other run has, the same on all nodes",
         &o.rdzv_id},
        {"--rdzv_token_file", CLI_TEXT, "FILE",
         "a secret that is the same on all nodes; of one node it is made up", &o.rdzv_token_file},
        {"--max_restarts", CLI_INTEGER, "R (0)", "how often all start again", &o.max_restarts},
        {"--grace", CLI_REAL, "S (10)", "seconds between a failure and SIGTERM", &o.grace},
        {"--program", CLI_TEXT, "PATH",
         "another program instead of cudpo itself, such as numactl or nsys; it gets the words "
         "behind --",
         &o.program},
    };
    static const char *const kinds[] = {"slurm", "kubernetes", "torchrun"};
    for (int i = 0; i < 3; i++)
        if (argc > 1 && strcmp(argv[1], kinds[i]) == 0) return cli_launch_job(argc - 1, argv + 1);
    const int64_t n = sizeof options / sizeof options[0];
    bool help;
    int end;
    const int command = find_command(&end, options, n, argc, argv);
    CUDPO_TRY(cli_parse(options, n, NULL, 0, &help, end, argv));
    if (help) {
        cli_print_page(&page, options, n, false);
        return CUDPO_OK;
    }
    if (command >= argc)
        return cudpo_fail(CUDPO_EUSAGE, "launch",
                          "needs what the ranks are to do: train CONFIG.json; see --help");
    if (!(o.grace >= 0.0))
        return cudpo_fail(CUDPO_EUSAGE, "--grace", "%g is not 0 or more", o.grace);
    o.arguments = (const char *const *)(argv + command);
    return start(&o);
}
