/* cli.h - the command line: a table of commands, a table of options for each, and its manual page. */
#ifndef CUDPO_CLI_CLI_H
#define CUDPO_CLI_CLI_H

#include "cudpo/config.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum cli_kind { CLI_TEXT, CLI_LIST, CLI_INTEGER, CLI_REAL, CLI_FLAG } cli_kind;

/* One option, --name VALUE or --name=VALUE. */
typedef struct cli_option {
    const char *name;
    cli_kind kind;
    const char *value;   /* what to show as its default, or as its value's name */
    const char *meaning; /* for the manual page */
    void *target;        /* const char **, cli_list *, int64_t *, double *, bool * */
} cli_option;

/* The values of an option that may stand several times. */
typedef struct cli_list {
    const char **values; /* [n] */
    int64_t n;
} cli_list;

/* A manual page: what `cudpo NAME --help` prints. */
typedef struct cli_page {
    const char *name, *summary, *synopsis, *description, *files, *examples;
} cli_page;

/** Read options, and at most `max_words` other words, from argv.
 *  Out:     words  [max_words] NULL where there are fewer;  the options' targets.
 *           help   true where --help stands among them: nothing else counts then.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE naming the option, with the one that was probably meant. */
CUDPO_MUST_USE cudpo_status cli_parse(const cli_option *options, int64_t n, const char **words,
                                      int64_t max_words, bool *help, int argc, char **argv);

/** The command line of a run onto a configuration: at most one word, a file of keys, and --key value for each key, which wins
 *  over the file wherever it stands; and the command's own options.
 *  Out:     help  true where --help stands among them: nothing else counts then.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE; of keys and file as cudpo_config_set() and cudpo_config_load(). */
CUDPO_MUST_USE cudpo_status cli_configure(cudpo_config *c, const cli_option *own, int64_t n,
                                          bool *help, int argc, char **argv);

/** The words of such a command line that are keys or their values, for handing them on.
 *  Out:     words  [argc] ended by NULL;  own options and the file are left out. */
void cli_keys(const char **words, const cli_option *own, int64_t n, int argc, char **argv);

/* Print a manual page; `keys`: also every configuration key. */
void cli_print_page(const cli_page *page, const cli_option *options, int64_t n, bool keys);

/* One file each.  argv[0] is the command's name. */
CUDPO_MUST_USE cudpo_status cli_train(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_eval(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_score(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_generate(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_tokenize(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_demo(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_plan(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_flight(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_doctor(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_launch(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_launch_job(int argc,
                                           char **argv); /* argv[0] is "slurm" or the like */
CUDPO_MUST_USE cudpo_status cli_bench(int argc, char **argv);
CUDPO_MUST_USE cudpo_status cli_bench_step(int argc, char **argv); /* argv[0] is "step" */

#endif /* CUDPO_CLI_CLI_H */
