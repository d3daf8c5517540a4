/* test_ranks_kills.c [LAUNCHER ...] - runs of two ranks, by each way to start them, in which SIGKILL ends a rank, both or the
 * launcher at random moments: nothing of the run is left, the newest checkpoint is whole, and the next start goes on from it, at
 * last to the bits of a run that nothing disturbed.
 *
 * CUDPO_TEST_LONG: as often as a night has time for; CUDPO_TEST_PART: one way, a few times; CUDPO_TEST_SEED: other moments. */
/* rooms: train */
#include "ranks.h"
#include "base/rng.h"
#include "train/checkpoint.h"

#include <ctype.h>
#include <dirent.h>

enum {
    STEPS = 40,
    SAVE_STEPS = 2,
    PATIENCE = 60, /* s; for all that does end */
    GONE = 10,     /* s; until nothing of the run is left, from the end of what was started */
    HUNG = 20,     /* s; in which launchers end behind their ranks */
    MEET = 2,      /* s; for ranks that nobody but a launcher would tell that they will not meet */
    SOON = 8,      /* steps that ranks may still do when their launcher is gone */
    RANK_KINDS = 3 /* of a rank, the other one, both */
};

typedef struct way {
    const char *name;
    const char *command[12]; /* which starts both ranks; none: each is started by itself */
    bool flags;              /* they are told by options where they are, not by variables */
    bool shares;             /* zero_stage 1: every rank writes checkpoints */
    const char *sweep[4];    /* what ends ranks that outlive their launcher, and shall */
} way;

static const way ways[] = {
    {.name = "variables"},
    {.name = "flags", .flags = true, .shares = true},
    {.name = "launch",
     .command = {"", "launch", "--nproc", "2", "--grace", "2", "--"},
     .shares = true},
    {.name = "mpirun",
     .command = {"mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
                 "oob_tcp_if_include", "lo", "-n", "2", ""}},
    {.name = "srun",
     .command = {"srun", "--overlap", "--kill-on-bad-exit=1", "-N", "1", "-n", "2", ""},
     .sweep = {"sh", "-c",
               "for step in $(squeue -s -h -j \"$0\" -o %i | grep '[0-9]$'); do scancel \"$step\"; "
               "done"}},
};
enum { WAYS = sizeof ways / sizeof *ways };

static uint64_t seed(void)
{
    const char *text = getenv("CUDPO_TEST_SEED");
    return text == NULL ? 17 : strtoull(text, NULL, 10);
}

static int kills_wanted(void)
{
    if (getenv("CUDPO_TEST_LONG") != NULL) return 500;
    return getenv("CUDPO_TEST_PART") != NULL ? 5 : 20;
}

/* Is it here?  The job of srun is the one that $SLURM_JOB_ID names. */
static bool can(const way *w)
{
    char path[1024];
    const char *folders = getenv("PATH"), *program = w->command[0];
    if (strcmp(w->name, "srun") == 0 && getenv("SLURM_JOB_ID") == NULL) return false;
    if (program == NULL || *program == '\0') return true;
    while (folders != NULL && *folders != '\0') {
        const int n = (int)strcspn(folders, ":");
        const int length = snprintf(path, sizeof path, "%.*s/%s", n, folders, program);
        if (length < (int)sizeof path && access(path, X_OK) == 0) return true;
        folders += n + (folders[n] == ':');
    }
    return false;
}

/* ---- starting ---- */

static pid_t start_with_flags(int rank, int port, const char *const *arguments)
{
    const char *all[PROGRAM_ARGUMENTS + 1];
    char number[2][32], endpoint[32], out[16], err[16];
    int n = 0;
    snprintf(number[0], sizeof number[0], "--rank=%d", rank);
    snprintf(number[1], sizeof number[1], "--local_rank=%d", rank);
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", port);
    snprintf(out, sizeof out, "OUT.%d", rank);
    snprintf(err, sizeof err, "ERR.%d", rank);
    while (arguments[n] != NULL) {
        all[n] = arguments[n];
        n++;
    }
    const char *const flags[] = {number[0],         number[1], "--world_size=2",
                                 "--rdzv_endpoint", endpoint,  NULL};
    memcpy(all + n, flags, sizeof flags);
    return program_start_to(out, err, all);
}

static const char *program(void)
{
    static char text[1024];
    const char *given = getenv("CUDPO_PROGRAM");
    if (text[0] == '\0')
        snprintf(text, sizeof text, "%s", given != NULL && *given != '\0' ? given : "build/cudpo");
    return text;
}

/* Another program than cudpo, which env looks up and becomes. */
static pid_t start_other(const char *out, const char *err, const char *const *command)
{
    program(); /* before the variable says otherwise */
    setenv("CUDPO_PROGRAM", "/usr/bin/env", 1);
    const pid_t pid = program_start_to(out, err, command);
    setenv("CUDPO_PROGRAM", program(), 1);
    return pid;
}

/* The command's "" is cudpo. */
static pid_t start_command(const way *w, const char *const *arguments)
{
    const char *all[PROGRAM_ARGUMENTS + 1];
    int n = 0;
    for (; w->command[n] != NULL; n++)
        all[n] = *w->command[n] == '\0' ? program() : w->command[n];
    for (; *arguments != NULL; arguments++) {
        assert_true(n < PROGRAM_ARGUMENTS);
        all[n++] = *arguments;
    }
    all[n] = NULL;
    return start_other("OUT.0", "ERR.0", all);
}

/* Of a command the group is the launcher alone. */
static rank_group start(const way *w, const char *output)
{
    const char *arguments[PROGRAM_ARGUMENTS + 1];
    const char *const settings[] = {
        "--max_steps", "40",           "--save_steps",        "2", "--save_total_limit",
        "2",           "--zero_stage", w->shares ? "1" : "0", NULL};
    ranks_train(arguments, output, settings);
    setenv("OMP_NUM_THREADS", "1", 1); /* those of flags don't know how many share the cores */
    if (w->command[0] != NULL) return (rank_group){.size = 1, .pid = {start_command(w, arguments)}};
    if (!w->flags) return ranks_start(2, arguments);
    rank_group g = {.size = 2};
    const int port = ranks_port();
    for (int r = 0; r < 2; r++)
        g.pid[r] = start_with_flags(r, port, arguments);
    return g;
}

/* ---- the processes of a run ---- */

static bool read_process(char *text, size_t size, long pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
    FILE *f = fopen(path, "rb");
    if (f == NULL) return false;
    const size_t n = fread(text, 1, size - 1, f);
    text[n] = '\0';
    for (size_t i = 0; i + 1 < n; i++) /* arguments end with a NUL each */
        if (text[i] == '\0') text[i] = ' ';
    fclose(f);
    return n > 0;
}

/* Running processes of cudpo with that folder in their command line, but for the launcher. */
static int find_ranks(pid_t out[RANKS], const char *folder, pid_t launcher)
{
    int n = 0;
    DIR *d = opendir("/proc");
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char text[8192];
        const long pid = isdigit((unsigned char)e->d_name[0]) ? atol(e->d_name) : 0;
        if (pid == 0 || pid == launcher || !read_process(text, sizeof text, pid, "cmdline"))
            continue;
        if (strstr(text, folder) == NULL || !read_process(text, sizeof text, pid, "stat")) continue;
        const char *behind = strstr(text, "(cudpo) ");
        if (behind == NULL || behind[8] == 'Z' || n == RANKS) continue;
        out[n++] = (pid_t)pid;
    }
    closedir(d);
    return n;
}

static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid != 0;
}

/* What is killed, chosen by `who`: a rank, both, or the launcher.  Ranks are waited for.  Returns false where all had ended. */
static bool strike(const way *w, const rank_group *g, const char *folder, uint64_t who)
{
    const bool apart = w->command[0] == NULL;
    pid_t found[RANKS] = {g->pid[0], g->pid[1]};
    int n = apart ? 2 : 0;
    if (who == RANK_KINDS) {
        const bool ended = has_ended(g->pid[0]);
        kill(g->pid[0], SIGKILL);
        return !ended;
    }
    for (const double limit = program_clock() + PATIENCE; n == 0 && !has_ended(g->pid[0]);) {
        n = find_ranks(found, folder, g->pid[0]);
        if (program_clock() > limit) fail_msg("%s: no ranks in %d s", w->name, PATIENCE);
        program_sleep(0.002);
    }
    for (int r = 0; r < n; r++)
        if (who == 2 || (int)who % n == r) kill(found[r], SIGKILL);
    return n > 0;
}

/* srun's ranks are Slurm's: who kills srun has to tell that. */
static void sweep(const way *w)
{
    const char *all[8];
    int n = 0;
    if (w->sweep[0] == NULL) return;
    for (; w->sweep[n] != NULL; n++)
        all[n] = w->sweep[n];
    all[n++] = getenv("SLURM_JOB_ID");
    all[n] = NULL;
    program_wait(start_other("OUT.sweep", "ERR.sweep", all)); /* there may be no step left */
}

static bool have_met(void)
{
    char *text = ranks_said(0);
    const bool met = strstr(text, "2 ranks (") != NULL;
    free(text);
    return met;
}

/* Where one was killed before they met, the other waits for it, as long as somebody may still start it. */
static void end_lonely(rank_group *g)
{
    const double limit = program_clock() + MEET;
    while (!has_ended(g->pid[0]) || !has_ended(g->pid[1])) {
        if (program_clock() > limit && !have_met()) {
            for (int r = 0; r < 2; r++)
                kill(g->pid[r], SIGTERM);
            return;
        }
        if (program_clock() > limit) return;
        program_sleep(0.002);
    }
}

/* A launcher that is not ours may hang when all ranks have ended: it is ended then, which is said. */
static void end_hung(const way *w, const rank_group *g, const char *folder)
{
    pid_t left[RANKS];
    const double limit = program_clock() + HUNG;
    if (w->command[0] == NULL || *w->command[0] == '\0') return;
    while (!has_ended(g->pid[0])) {
        if (program_clock() > limit && find_ranks(left, folder, g->pid[0]) == 0) {
            print_message("%s hangs, with no rank left\n", w->name);
            kill(g->pid[0], SIGKILL);
        }
        if (program_clock() > limit) return;
        program_sleep(0.005);
    }
}

/* All of it ends; returns the seconds that this took. */
static double end(const way *w, rank_group *g, const char *folder, bool launcher)
{
    const double begin = program_clock();
    pid_t left[RANKS];
    if (w->command[0] == NULL) end_lonely(g);
    end_hung(w, g, folder);
    ranks_wait(g, PATIENCE);
    if (launcher) sweep(w);
    const double ended = program_clock();
    while (find_ranks(left, folder, 0) > 0) {
        if (program_clock() - ended > GONE) {
            kill(left[0], SIGKILL);
            fail_msg("%s: process %d was left: %s", w->name, (int)left[0], ranks_said(0));
        }
        program_sleep(0.005);
    }
    return program_clock() - begin;
}

/* ---- what is left on the disk ---- */

/* The step of the newest checkpoint; 0: there is none. */
static int64_t newest(const char *folder)
{
    int64_t step = 0;
    DIR *d = opendir(folder);
    if (d == NULL) return 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        const int64_t n =
            strncmp(e->d_name, "checkpoint-", 11) == 0 ? strtoll(e->d_name + 11, NULL, 10) : 0;
        if (n > step) step = n;
    }
    closedir(d);
    return step;
}

/* The same where nothing runs; it is whole. */
static int64_t whole(const char *folder)
{
    char path[1024];
    checkpoint_state s;
    const int64_t step = newest(folder);
    if (step == 0) return 0;
    snprintf(path, sizeof path, "%s/checkpoint-%lld", folder, (long long)step);
    CHECK_OK(checkpoint_read(&s, path));
    assert_int_equal(s.step, step);
    return step;
}

/* The step that a start says it goes on from; -1: it does not say. */
static int64_t resumed(const char *folder)
{
    char want[800], *text = ranks_said(0);
    int64_t step = -1;
    snprintf(want, sizeof want, "going on from %s/checkpoint-", folder);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        const char *at = strstr(line, want);
        if (at != NULL) step = strtoll(at + strlen(want), NULL, 10);
        if (strstr(line, "is damaged") != NULL) fail_msg("%s", line);
    }
    free(text);
    return step;
}

/* ---- the test ---- */

typedef struct tally {
    int starts, kills, launchers, ends;
    int64_t steps;  /* that killed starts brought a run forward */
    double longest; /* s until nothing was left */
} tally;

/* The folder of a run that nothing disturbed. */
static const char *undisturbed(const way *w)
{
    return w->shares ? "whole-shares" : "whole";
}

/* One start, which is killed unless it comes to its end before.  In/Out: length  s of one that nothing disturbs, from its begin;
 * other tests may have slowed that down. */
static void one(const way *w, tally *t, uint64_t trial, double *length)
{
    const uint64_t key = seed() + (uint64_t)(w - ways) * 1000;
    const uint64_t who =
        rng_below(key, trial, 1, w->command[0] == NULL ? RANK_KINDS : RANK_KINDS + 1);
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("broken"));
    const int64_t before = whole(folder);
    /* Loading takes about as long as half of the steps; a few live until their end.  Where the launcher is killed, the ranks
     * are to have something to go on with. */
    const double left = (who == RANK_KINDS ? 0.6 : 1.1) * (1 - (double)before / STEPS);
    const double begin = program_clock();
    rank_group g = start(w, "broken");
    program_sleep(*length * (1 + 2 * left) / 3 * rng_uniform(key, trial, 0));
    const int64_t then = newest(folder);
    const bool struck = strike(w, &g, folder, who);
    t->longest = fmax(t->longest, end(w, &g, folder, who == RANK_KINDS));
    t->starts++;
    const bool ended = g.status[0] == 0 && (g.size == 1 || g.status[1] == 0);
    for (int r = 0; r < g.size; r++) {
        const int s = g.status[r];
        /* 75: of one that was told to stop before they had met, by end_lonely(). */
        const bool fits = s == 69 || s == 75 || s == 76 || s == 128 + SIGKILL || s == 128 + SIGTERM;
        if (s != 0 && !(struck && fits))
            fail_msg("%s: process %d: status %d: %s", w->name, r, s, ranks_said(r));
    }
    const int64_t after = whole(folder), from = resumed(folder);
    /* A checkpoint that was whole but for its name gets that before the start says what it goes on from. */
    const bool silent = from < 0 && before > 0 && after > before + SAVE_STEPS;
    if (after < before || (from >= 0 && from < before) || silent)
        fail_msg("%s, start %d: from %lld, went on from %lld, now %lld: %s", w->name, t->starts,
                 (long long)before, (long long)from, (long long)after, ranks_said(0));
    if (g.status[0] == 128 + SIGKILL && who == RANK_KINDS && then < STEPS - SOON && after == STEPS)
        fail_msg("%s: ranks went on from step %lld to their end without a launcher", w->name,
                 (long long)then);
    t->kills += !ended;
    t->launchers += !ended && who == RANK_KINDS;
    t->ends += ended;
    if (ended && before == 0) *length = fmin(*length, program_clock() - begin);
    if (!ended) t->steps += after - before;
    if (!ended) return;
    program_same_file(undisturbed(w), "broken", "model.safetensors");
    program_same_metrics(undisturbed(w), "broken");
    CHECK_OK(file_remove_folder(folder));
}

static void killed(void **state)
{
    const way *const w = *state;
    tally t = {0};
    if (!can(w)) {
        print_message("skipped: no %s here\n", w->name);
        skip();
    }
    print_message("%s: seed %llu\n", w->name, (unsigned long long)seed());
    const double begin = program_clock();
    CHECK_OK(file_remove_folder(scratch_path("undisturbed")));
    CHECK_OK(file_remove_folder(scratch_path("broken")));
    rank_group g = start(w, "undisturbed");
    ranks_expect(&g, 0);
    double length = program_clock() - begin;
    if (!file_is_folder(scratch_path(undisturbed(w))))
        CHECK_OK(file_rename(scratch_path(undisturbed(w)), scratch_path("undisturbed")));
    else
        program_same_file(undisturbed(w), "undisturbed", "model.safetensors");

    while (t.kills < kills_wanted()) {
        one(w, &t, (uint64_t)t.starts, &length);
        if (t.starts > 5 * kills_wanted()) fail_msg("%s: %d kills only", w->name, t.kills);
    }
    g = start(w, "broken");
    ranks_expect(&g, 0);
    program_same_file(undisturbed(w), "broken", "model.safetensors");
    program_same_metrics(undisturbed(w), "broken");
    assert_true(t.steps > 0);
    printf("%s: killed %d times, %d times the launcher, in %d starts of %d steps (%.2f s); %d "
           "ends, and %lld steps before; "
           "nothing was left after %.2f s; %.1f s\n",
           w->name, t.kills, t.launchers, t.starts, STEPS, length, t.ends, (long long)t.steps,
           t.longest, program_clock() - begin);
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[WAYS];
    int n = 0;
    /* An mpirun that is killed leaves files behind. */
    setenv("OMPI_MCA_orte_tmpdir_base", scratch_folder(), 1);
    for (int i = 0; i < WAYS; i++) {
        bool wanted = argc < 2 && (i == 0 || getenv("CUDPO_TEST_PART") == NULL);
        for (int k = 1; k < argc; k++)
            wanted |= strcmp(argv[k], ways[i].name) == 0;
        if (wanted)
            tests[n++] = (struct CMUnitTest){ways[i].name, killed, NULL, NULL, (void *)&ways[i]};
    }
    if (n == 0) return 2; /* no such way */
    return _cmocka_run_group_tests("ranks_kills", tests, (size_t)n, NULL, scratch_remove);
}
