/* test_launch_end.c - `cudpo launch`: signals, ranks that do not end by themselves, and that none is left behind. */
/* rooms: base launch */
#include "test_launch.h"

#include <ctype.h>
#include <dirent.h>
#include <sys/prctl.h>

enum { PATIENCE = 30 }; /* s */

/* Standard output of a running program, once it holds `part` so many times. */
static char *await(const char *part, int times)
{
    const double limit = program_clock() + PATIENCE;
    for (;;) {
        char *text = NULL;
        size_t n;
        int found = 0;
        if (file_read(&text, &n, scratch_path("OUT"), 1 << 24) != CUDPO_OK) cudpo_error_clear();
        for (const char *at = text; at != NULL && (at = strstr(at, part)) != NULL; at++)
            found++;
        if (found >= times) return text;
        if (program_clock() > limit)
            fail_msg("%d of %d \"%s\" in: %s", found, times, part, text == NULL ? "" : text);
        free(text);
        program_sleep(0.01);
    }
}

/* Start it, with no output of an earlier one to be taken for its own. */
static pid_t start(const char *const *arguments)
{
    unlink(scratch_path("OUT"));
    return program_start(arguments);
}

/* All processes that were left to this one, which is the subreaper, end within a moment. */
static int bury(void)
{
    const double limit = program_clock() + PATIENCE;
    int status, n = 0;
    for (;;) {
        const pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0) return n;
        if (pid == 0 && program_clock() > limit) fail_msg("a process was left behind");
        if (pid == 0)
            program_sleep(0.01);
        else if (!WIFSIGNALED(status))
            fail_msg("process %d was left behind, and ended by itself: %x", (int)pid, status);
        n += pid > 0;
    }
}

/* Those that wait for a lost peer are told, first in a way that they can refuse. */
static void presses_those_that_stay(void **state)
{
    (void)state;
    char script[2600], file[640];
    snprintf(file, sizeof file, "%s", scratch_path("ready"));
    snprintf(
        script, sizeof script,
        "f='%s'; [ $RANK = 1 ] && trap '' TERM; [ $RANK = 2 ] && trap 'echo told; exit 75' TERM; "
        "echo >$f-$RANK; "
        "while [ $RANK != 0 ] || [ ! -e $f-1 ] || [ ! -e $f-2 ]; do sleep 0.05; done; exit 3",
        file);
    const double begin = program_clock();
    program_result r =
        RUN(3, "launch", "--nproc", "3", "--grace", "0.5", "--program", "sh", "--", "-c", script);
    const double seconds = program_clock() - begin;
    has(r.out, "[rank 2] told\n");
    has(r.err, "2 ranks are still running: sending SIGTERM");
    has(r.err, "1 rank is still running: sending SIGKILL");
    if (!(seconds >= 10.4 && seconds < 10.4 + PATIENCE)) fail_msg("%.1f s", seconds);
    program_free(&r);
    bury();
    /* How those end that were made to says nothing of the reason. */
    r = RUN(69, "launch", "--nproc", "2", "--grace", "0", "--program", "sh", "--", "-c",
            "[ $RANK = 1 ] && exit 69; while :; do sleep 0.05; done");
    program_free(&r);
    bury();
    /* One that has stopped is no failure: the others may need long to save. */
    r = RUN(75, "launch", "--nproc", "2", "--grace", "0", "--program", "sh", "--", "-c",
            "[ $RANK = 1 ] && exit 75; sleep 1; echo saved; exit 75");
    has(r.out, "[rank 0] saved\n");
    program_free(&r);
}

static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT};
enum { FORWARDED = sizeof forwarded / sizeof *forwarded };

static void note(int number, siginfo_t *info, void *context)
{
    char line[64];
    (void)context;
    const int n = snprintf(line, sizeof line, "got %d %ld\n", number, (long)info->si_pid);
    if (write(1, line, (size_t)n) < 0) _exit(9);
    if (number == SIGTERM) _exit(75);
}

/* What this program does as a rank: it says which signals it gets, and from whom. */
static int be_rank(void)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    for (int i = 0; i < FORWARDED; i++)
        sigaction(forwarded[i], &action, NULL);
    if (write(1, "ready\n", 6) < 0) return 9;
    for (;;)
        pause();
}

/* The launcher with ranks that are this program, as the leader of a process group. */
static pid_t start_listeners(void)
{
    static char self[1024], program[1024];
    const char *const arguments[] = {program, "launch",    "--nproc", "2",  "--max_restarts",
                                     "5",     "--program", self,      "--", "rank",
                                     NULL};
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    snprintf(program, sizeof program, "%s", getenv("CUDPO_PROGRAM"));
    setenv("CUDPO_PROGRAM", "/usr/bin/setsid", 1);
    const pid_t pid = start(arguments);
    setenv("CUDPO_PROGRAM", program, 1);
    free(await("] ready\n", 2));
    return pid;
}

/* Each once, from the launcher, whether it was sent to that or, as terminals do, to its whole group; and it starts nothing
 * again then. */
static void passes_on_signals(void **state)
{
    (void)state;
    for (int group = 0; group < 2; group++) {
        const pid_t launcher = start_listeners();
        char expected[64];
        for (int i = FORWARDED - 1; i >= 0; i--) {
            assert_int_equal(kill(group ? -launcher : launcher, forwarded[i]), 0);
            snprintf(expected, sizeof expected, "] got %d ", forwarded[i]);
            free(await(expected, 2));
        }
        program_result r = program_read(program_wait(launcher));
        assert_int_equal(r.status, 75);
        assert_string_equal(r.err, ""); /* nothing of another start */
        snprintf(expected, sizeof expected, " %ld", (long)launcher);
        int lines = 0;
        for (char *line = strtok(r.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            if (strstr(line, "got ") == NULL) continue;
            if (strcmp(strrchr(line, ' '), expected) != 0)
                fail_msg("%s is not from %ld", line, (long)launcher);
            lines++;
        }
        assert_int_equal(lines, 2 * FORWARDED);
        program_free(&r);
    }
    assert_int_equal(bury(), 0);
}

/* Children of a process that have ended and were not waited for. */
static int zombies(pid_t parent)
{
    DIR *d = opendir("/proc");
    int n = 0;
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], line[512] = "", kind;
        int of;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        FILE *f = isdigit((unsigned char)e->d_name[0]) ? fopen(path, "r") : NULL;
        if (f == NULL) continue;
        const char *rest = fgets(line, sizeof line, f) == NULL ? NULL : strrchr(line, ')');
        if (rest != NULL && sscanf(rest, ") %c %d", &kind, &of) == 2 && of == (int)parent)
            n += kind == 'Z';
        fclose(f);
    }
    closedir(d);
    return n;
}

static void leaves_nobody_behind(void **state)
{
    (void)state;
    /* Killed, it takes its ranks with it. */
    pid_t launcher = start_listeners();
    assert_int_equal(kill(launcher, SIGKILL), 0);
    assert_int_equal(program_wait(launcher), 128 + SIGKILL);
    assert_int_equal(bury(), 2);
    /* What a rank has started ends with the rank. */
    program_result r = RUN(0, SH("2", "sleep 300 & echo done"));
    program_free(&r);
    assert_int_equal(bury(), 2);
    /* A rank that has ended is waited for while others go on. */
    char go[640], script[1400];
    snprintf(go, sizeof go, "%s", scratch_path("go"));
    snprintf(
        script, sizeof script,
        "[ $RANK = 1 ] && exec echo ends; echo waits; while [ ! -e '%s' ]; do sleep 0.05; done",
        go);
    launcher = start((const char *const[]){SH("2", script), NULL});
    free(await("waits\n", 1));
    free(await("ends\n", 1));
    const double limit = program_clock() + 5;
    while (zombies(launcher) > 0) {
        if (program_clock() > limit) fail_msg("a rank was not waited for");
        program_sleep(0.01);
    }
    scratch_text("go", "");
    program_finish(launcher, 0);
    bury();
    /* A stream that nobody reads any more stops no rank: 80 kB are more than a pipe holds. */
    char command[2600];
    snprintf(
        command, sizeof command,
        "'%s' launch --nproc 2 --program sh -- -c 'sleep 0.2; printf %%080000d 0; echo >%s-$RANK' "
        "| true",
        getenv("CUDPO_PROGRAM"), go);
    assert_int_equal(system(command), 0);
    assert_true(file_is_regular(scratch_path("go-0")) && file_is_regular(scratch_path("go-1")));
    assert_int_equal(bury(), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "rank") == 0) return be_rank();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presses_those_that_stay),
        cmocka_unit_test(passes_on_signals),
        cmocka_unit_test(leaves_nobody_behind),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what is left behind comes to this process */
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
