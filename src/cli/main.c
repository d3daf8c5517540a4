/* main.c - finds the command, runs it, and turns its result into one line and an exit status. */
#include "cli/cli.h"
#include "base/nearest.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct command {
    const char *name, *summary;
    cudpo_status (*run)(int argc, char **argv);
    const char *also; /* a first word that has a page of its own; NULL: none */
} command;

static const command commands[] = {
    {"train", "align a model on preferences", cli_train, NULL},
    {"eval", "metrics of a model on a preference file", cli_eval, NULL},
    {"score", "implicit rewards of preference pairs", cli_score, NULL},
    {"generate", "continue prompts", cli_generate, NULL},
    {"tokenize", "token ids of a text or of a preference file", cli_tokenize, NULL},
    {"bench", "how fast a training step is on this machine", cli_bench, "step"},
    {"demo", "see it work: a tiny model learns manners, in under a minute", cli_demo, NULL},
    {"plan", "what a run will take and cost, without a GPU", cli_plan, NULL},
    {"launch", "start several ranks here, or make a job file for many nodes", cli_launch, "slurm"},
    {"flight", "where the ranks of a run that hung or failed parted", cli_flight, NULL},
    {"doctor", "what of this machine cudpo can use", cli_doctor, NULL},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_overview(void)
{
    printf("cudpo %s - align language models on preferences: DPO, IPO, KTO, ORPO, hinge, SFT\n\n",
           CUDPO_VERSION);
    printf("usage: cudpo COMMAND [WORDS] [--option value ...]\n\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    printf(
        "\n`cudpo COMMAND --help` is that command's manual page; `cudpo --version` the version.\n"
        "Start with `cudpo demo`, then `cudpo train CONFIG.json`.\n");
}

static cudpo_status print_section(const command *c, const char *also)
{
    char help[] = "--help", name[32], word[32];
    snprintf(name, sizeof name, "%s", c->name);
    snprintf(word, sizeof word, "%s", also == NULL ? help : also);
    char *argv[] = {name, word, also == NULL ? NULL : help, NULL};
    printf("\n.SH cudpo %s%s%s\n", name, also == NULL ? "" : " ", also == NULL ? "" : also);
    return c->run(also == NULL ? 2 : 3, argv);
}

/* All manual pages as one for man(1), without markup of its own: .eo and .nf leave every character and line as it is. */
static cudpo_status print_man(void)
{
    printf(".TH CUDPO 1 \"\" \"cudpo %s\"\n.eo\n.nf\n", CUDPO_VERSION);
    print_overview();
    for (int i = 0; i < COMMANDS; i++) {
        CUDPO_TRY(print_section(&commands[i], NULL));
        if (commands[i].also != NULL) CUDPO_TRY(print_section(&commands[i], commands[i].also));
    }
    return CUDPO_OK;
}

static cudpo_status unknown_command(const char *typed)
{
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = nearest_name(typed, names, COMMANDS);
    return cudpo_fail(CUDPO_EUSAGE, typed, "is no command%s%s%s; see cudpo --help",
                      near == NULL ? "" : "; did you mean ", near == NULL ? "" : near,
                      near == NULL ? "" : "?");
}

static cudpo_status run(int argc, char **argv)
{
    if (argc < 2) {
        print_overview();
        return cudpo_fail(CUDPO_EUSAGE, "cudpo", "needs a command");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_overview();
        return CUDPO_OK;
    }
    if (strcmp(argv[1], "--man") == 0) return print_man(); /* for `cmake --install` */
    if (strcmp(argv[1], "--version") == 0) {
        printf("cudpo %s\n", CUDPO_VERSION);
        return CUDPO_OK;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    return unknown_command(argv[1]);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a reader that leaves shows as a failed write, with a message */
    cudpo_status status = run(argc, argv);
    if (fflush(stdout) != 0 && status == CUDPO_OK)
        status = cudpo_fail(CUDPO_EWRITE, "standard output", "can't write");
    if (status != CUDPO_OK) fprintf(stderr, "cudpo: %s\n", cudpo_error_message());
    exit(cudpo_exit_code(status));
}
