/* test_signals.c - what signals make of a run, one after the other, and the end of its launcher; on a clock of its own. */
/* rooms: train */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "test.h"
#include "train/signals.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static time_t later; /* than it is */

int clock_gettime(clockid_t which, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *);
    void *symbol = dlsym(RTLD_NEXT, "clock_gettime");
    if (symbol == NULL) abort();
    memcpy(&real, &symbol, sizeof real);
    const int result = real(which, now);
    now->tv_sec += later;
    return result;
}

enum { STOPS = 1, SAVES = 2 };

/* How a process ends that gets these signals, five seconds between them or none: by one of them, or with what it was asked for. */
static int after(const int *signals, int seconds)
{
    int status;
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (signals_install(0) != CUDPO_OK || signals_stop_wanted() || signals_save_wanted())
            _exit(99);
        for (; *signals != 0; signals++, later += seconds)
            raise(*signals);
        const int asked = (signals_stop_wanted() ? STOPS : 0) | (signals_save_wanted() ? SAVES : 0);
        _exit(signals_save_wanted() ? 98 : asked);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void one_after_the_other(void **state)
{
    (void)state;
    static const struct {
        int signals[4], seconds, end;
    } cases[] = {
        {{0}, 0, 0},
        {{SIGTERM}, 0, STOPS},
        {{SIGINT}, 0, STOPS},
        {{SIGUSR1}, 0, STOPS},
        {{SIGUSR2}, 0, SAVES},
        {{SIGUSR2, SIGUSR1}, 5, STOPS | SAVES},
        {{SIGTERM, SIGTERM}, 0, STOPS}, /* to the process and to its group */
        {{SIGTERM, SIGTERM}, 5, 128 + SIGTERM},
        {{SIGINT, SIGTERM}, 5, 128 + SIGTERM},
        {{SIGTERM, SIGINT}, 5, 128 + SIGINT},
        {{SIGTERM, SIGUSR1}, 5, STOPS},
        /* A scheduler's warning and then its limit: what is left until SIGKILL may still do. */
        {{SIGUSR1, SIGTERM}, 5, STOPS},
        {{SIGUSR1, SIGUSR1, SIGTERM}, 5, STOPS},
        {{SIGUSR1, SIGTERM, SIGTERM}, 5, 128 + SIGTERM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int end = after(cases[i].signals, cases[i].seconds);
        if (end != cases[i].end) fail_msg("case %zu: %d, not %d", i, end, cases[i].end);
    }
}

/* A process whose launcher ends says on a pipe, before and after that, whether it shall stop. */
static void launched(bool watched, int to, int told)
{
    const pid_t launcher = getppid();
    char text[2] = "..", none;
    if (signals_install(watched ? launcher : 0) != CUDPO_OK) _exit(1);
    text[0] = signals_stop_wanted() ? 'y' : 'n';
    if (write(to, text, 1) != 1) _exit(1);
    if (read(told, &none, 1) != 0) _exit(1); /* the launcher held the other end */
    while (getppid() == launcher)
        usleep(1000);
    text[1] = signals_stop_wanted() ? 'y' : 'n';
    _exit(write(to, text + 1, 1) == 1 ? 0 : 1);
}

static void the_launcher_ends(void **state)
{
    (void)state;
    for (int watched = 0; watched < 2; watched++) {
        int status, from[2], tell[2];
        char text[3] = "";
        fflush(NULL);
        assert_true(pipe(from) == 0 && pipe(tell) == 0);
        const pid_t launcher = fork();
        assert_true(launcher >= 0);
        if (launcher == 0) {
            const pid_t rank = fork();
            if (rank == 0) {
                close(tell[1]);
                alarm(20);
                launched(watched, from[1], tell[0]);
            }
            if (rank > 0) pause();
            _exit(1);
        }
        close(from[1]);
        close(tell[0]);
        close(tell[1]);
        assert_int_equal(read(from[0], text, 1), 1);
        assert_int_equal(kill(launcher, SIGKILL), 0);
        assert_int_equal(waitpid(launcher, &status, 0), launcher);
        assert_int_equal(read(from[0], text + 1, 1), 1);
        assert_string_equal(text, watched ? "ny" : "nn");
        close(from[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(the_launcher_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
