/* ranks.h - runs of several ranks of `cudpo train` on this machine, as torchrun would start them. */
#ifndef CUDPO_TESTS_RANKS_H
#define CUDPO_TESTS_RANKS_H

#include "program.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RANKS = 8 };

typedef struct rank_group {
    int size;
    pid_t pid[RANKS];
    int status[RANKS];   /* after ranks_wait() */
    double ended[RANKS]; /* program_clock() */
} rank_group;

/* A port that nobody listens at now. */
static inline int ranks_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s >= 0 && bind(s, (struct sockaddr *)&a, sizeof a) == 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&a, &n), 0);
    close(s);
    return ntohs(a.sin_port);
}

static inline void ranks_variable(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    assert_int_equal(setenv(name, text, 1), 0);
}

static const char *const ranks_variables[] = {
    "RANK",        "WORLD_SIZE",  "LOCAL_RANK",      "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", NULL};

/* Start one rank; its output goes to OUT.RANK and ERR.RANK. */
static inline pid_t ranks_start_one(int rank, int size, int port, const char *const *arguments)
{
    char out[16], err[16];
    snprintf(out, sizeof out, "OUT.%d", rank);
    snprintf(err, sizeof err, "ERR.%d", rank);
    ranks_variable("RANK", rank);
    ranks_variable("WORLD_SIZE", size);
    ranks_variable("LOCAL_RANK", rank);
    ranks_variable("LOCAL_WORLD_SIZE", size);
    ranks_variable("MASTER_PORT", port);
    ranks_variable("OMP_NUM_THREADS", 1);
    assert_int_equal(setenv("MASTER_ADDR", "127.0.0.1", 1), 0);
    const pid_t pid = program_start_to(out, err, arguments);
    for (int i = 0; ranks_variables[i] != NULL; i++)
        unsetenv(ranks_variables[i]);
    return pid;
}

/* Start `size` ranks with the same arguments; one is a process without a launcher. */
static inline rank_group ranks_start(int size, const char *const *arguments)
{
    rank_group g = {.size = size};
    const int port = ranks_port();
    assert_true(size <= RANKS);
    for (int r = 0; r < size; r++)
        g.pid[r] = size == 1 ? program_start_to("OUT.0", "ERR.0", arguments)
                             : ranks_start_one(r, size, port, arguments);
    return g;
}

/* Arguments of a run into a folder of the scratch folder that goes on from its last checkpoint, and more, which NULL ends.  It is
 * long enough to be disturbed: some 10 ms a step. */
static inline void ranks_train(const char *arguments[PROGRAM_ARGUMENTS + 1], const char *output,
                               const char *const *more)
{
    static char folder[640];
    const char *const common[] = {"train",
                                  "--model_name_or_path",
                                  "tests/golden/models/llama",
                                  "--train_dataset",
                                  "tests/golden/data/train.jsonl",
                                  "--output_dir",
                                  folder,
                                  "--device",
                                  "cpu",
                                  "--max_length",
                                  "64",
                                  "--learning_rate",
                                  "1e-4",
                                  "--per_device_train_batch_size",
                                  "6",
                                  "--logging_steps",
                                  "1",
                                  "--resume_from_checkpoint",
                                  "true"};
    int n = sizeof common / sizeof *common;
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    memcpy(arguments, common, sizeof common);
    for (; more != NULL && *more != NULL; more++) {
        assert_true(n < PROGRAM_ARGUMENTS);
        arguments[n++] = *more;
    }
    arguments[n] = NULL;
}

/* Wait for all; after `seconds` those that are left are killed, and the test fails. */
static inline void ranks_wait(rank_group *g, double seconds)
{
    const double limit = program_clock() + seconds;
    int left = g->size;
    for (int r = 0; r < g->size; r++)
        g->ended[r] = 0;
    while (left > 0) {
        for (int r = 0; r < g->size; r++) {
            int status;
            if (g->ended[r] > 0 || waitpid(g->pid[r], &status, WNOHANG) != g->pid[r]) continue;
            g->ended[r] = program_clock();
            g->status[r] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            left--;
        }
        if (left > 0 && program_clock() > limit) {
            for (int r = 0; r < g->size; r++) {
                if (g->ended[r] > 0) continue;
                kill(g->pid[r], SIGKILL);
                waitpid(g->pid[r], NULL, 0);
            }
            fail_msg("%d of %d ranks had not ended after %g s", left, g->size, seconds);
        }
        program_sleep(0.005);
    }
}

/* What a rank said on standard error, in new memory. */
static inline char *ranks_said(int rank)
{
    char name[16], *text = NULL;
    size_t n;
    snprintf(name, sizeof name, "ERR.%d", rank);
    CHECK_OK(file_read(&text, &n, scratch_path(name), (size_t)1 << 24));
    return text;
}

static inline void ranks_says(int rank, const char *part)
{
    char *text = ranks_said(rank);
    if (strstr(text, part) == NULL) fail_msg("rank %d: no \"%s\" in: %s", rank, part, text);
    free(text);
}

/* All of them end with a status, in time. */
static inline void ranks_expect(rank_group *g, int status)
{
    ranks_wait(g, 120);
    for (int r = 0; r < g->size; r++) {
        if (g->status[r] == status) continue;
        char *text = ranks_said(r);
        fail_msg("rank %d of %d: status %d, not %d: %s", r, g->size, g->status[r], status, text);
    }
}

#endif /* CUDPO_TESTS_RANKS_H */
