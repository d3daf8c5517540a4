/* launch_job.c - `cudpo launch slurm`, `kubernetes` and `torchrun`: job files. */
#include "cudpo/launch.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page page = {
    "launch slurm",
    "a job file, ready to be submitted",
    "cudpo launch slurm|kubernetes|torchrun CONFIG.json [--key value ...] [--nodes M] "
    "[--gpus_per_node G] [--option value ...] [-- WORD ...]",
    "Prints a file that starts `cudpo train CONFIG.json [--key value ...] [WORD ...]` with a rank "
    "for each GPU of M nodes. Configuration and keys are checked here, before anything waits in a "
    "queue. Options may be written with hyphens, too, as Slurm's are.\n"
    "\n"
    "slurm: a script for sbatch. Two minutes before its time is over, or when it is asked to, the "
    "run saves, ends with status 75, is queued again and goes on from there. The secret that lets "
    "ranks join is a file in the folder of CONFIG.json while the job runs, which all nodes must "
    "see; with --mpi pmix there is none, as Slurm itself introduces the ranks. With --array each "
    "task trains with its index as seed, into OUTPUT_DIR/INDEX.\n"
    "\n"
    "kubernetes: an Indexed Job with a pod for each node, a Service by which they find one another "
    "and a ConfigMap that holds CONFIG.json, for `kubectl apply -f`; its first lines say how to "
    "make the Secret. Paths in CONFIG.json are those in the pods: in the image, or relative to the "
    "volume that --claim names.\n"
    "\n"
    "torchrun: the commands for a shell on each node.",
    NULL,
    "  cudpo launch slurm dpo.json --nodes 2 --gpus_per_node 8 --time 24:00:00 >dpo.sh; sbatch "
    "dpo.sh\n"
    "  cudpo launch slurm dpo.json --beta 0.05 --array 1-4 --gpus_per_node 1 | sbatch\n"
    "  cudpo launch kubernetes dpo.json --nodes 2 --gpus_per_node 8 --image registry/cudpo:1 "
    "--claim work >dpo.yaml\n"
    "  cudpo launch torchrun dpo.json --nodes 2 --gpus_per_node 8"};

enum { OPTIONS = 13 };

/* Options of ours that are written with hyphens get their names. */
static void name_options(const cli_option *own, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char name[64];
        const size_t n = strcspn(argv[i], "=");
        if (strncmp(argv[i], "--", 2) != 0 || n >= sizeof name) continue;
        snprintf(name, sizeof name, "--%.*s", (int)n - 2, argv[i] + 2);
        for (char *c = name + 2; *c != '\0'; c++)
            if (*c == '-') *c = '_';
        for (int64_t k = 0; k < OPTIONS; k++)
            if (strcmp(own[k].name, name) == 0) memcpy(argv[i], name, n);
    }
}

/* The one word that is the file, as cli_configure() finds it; `words` are the keys. */
static cudpo_status print(cudpo_job_kind kind, cudpo_job *job, const cudpo_config *c)
{
    char *text = NULL;
    if (c->source == NULL)
        return cudpo_fail(CUDPO_EUSAGE, "launch", "needs a CONFIG.json; see --help");
    CUDPO_TRY(cudpo_config_check(c));
    job->config = c->source;
    job->output_dir = c->output_dir;
    CUDPO_TRY(cudpo_job_file(&text, kind, job));
    fputs(text, stdout);
    free(text);
    return CUDPO_OK;
}

/* argv holds what stands before "--", `rest` what stands behind it. */
static cudpo_status run(cudpo_job_kind kind, const char **words, int argc, char **argv, char **rest)
{
    cudpo_job job = {.nodes = 1, .gpus_per_node = 1};
    cudpo_config c;
    bool help;
    const cli_option own[OPTIONS] = {
        {"--nodes", CLI_INTEGER, "M (1)", "nodes", &job.nodes},
        {"--gpus_per_node", CLI_INTEGER, "G (1)", "GPUs of each; 0: a run on CPUs",
         &job.gpus_per_node},
        {"--ranks_per_node", CLI_INTEGER, "N (G, or 1)", "ranks of each", &job.ranks_per_node},
        {"--cpus_per_rank", CLI_INTEGER, "C (8, or 1 without GPUs)", "cores of each rank",
         &job.cpus_per_rank},
        {"--job_name", CLI_TEXT, "NAME", "without it, that of CONFIG.json", &job.name},
        {"--program", CLI_TEXT, "PATH",
         "where cudpo is on the nodes; without it, where it is here; in a pod, in $PATH",
         &job.program},
        {"--time", CLI_TEXT, "HH:MM:SS", "of slurm: the job's limit", &job.time},
        {"--partition", CLI_TEXT, "NAME", "of slurm", &job.partition},
        {"--account", CLI_TEXT, "NAME", "of slurm", &job.account},
        {"--array", CLI_TEXT, "INDICES", "of slurm: several seeds, such as 1-4", &job.array},
        {"--mpi", CLI_TEXT, "NAME", "of slurm: srun's --mpi, such as pmix", &job.mpi},
        {"--image", CLI_TEXT, "IMAGE", "of kubernetes: a container image that holds cudpo",
         &job.image},
        {"--claim", CLI_TEXT, "NAME",
         "of kubernetes: a PersistentVolumeClaim, the folder that relative paths begin in",
         &job.claim},
    };
    CUDPO_TRY(cudpo_config_create(&c));
    name_options(own, argc, argv);
    cudpo_status status = cli_configure(&c, own, OPTIONS, &help, argc, argv);
    if (status == CUDPO_OK && help) {
        cli_print_page(&page, own, OPTIONS, false);
    } else if (status == CUDPO_OK) {
        cli_keys(words, own, OPTIONS, argc, argv);
        job.arguments = words;
        while (*words != NULL)
            words++;
        for (; *rest != NULL; rest++)
            *words++ = *rest;
        *words = NULL;
        status = print(kind, &job, &c);
    }
    cudpo_config_free(&c);
    return status;
}

cudpo_status cli_launch_job(int argc, char **argv)
{
    const cudpo_job_kind kind = strcmp(argv[0], "slurm") == 0        ? CUDPO_JOB_SLURM
                                : strcmp(argv[0], "kubernetes") == 0 ? CUDPO_JOB_KUBERNETES
                                                                     : CUDPO_JOB_TORCHRUN;
    int end = 1;
    while (end < argc && strcmp(argv[end], "--") != 0)
        end++;
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    if (words == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d words", argc);
    const cudpo_status status = run(kind, words, end, argv, argv + end + (end < argc));
    free(words);
    return status;
}
