/* test_signals.c - what signals make of a run, one after the other, and the end of its launcher; on a clock of its own. */
/* rooms: train */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "scratch.h"
#include "train/signals.h"
#include "train/trainer.h"

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
        if (signals_install() != CUDPO_OK || signals_stop_wanted() || signals_save_wanted())
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
    const pid_t starter = getppid();
    char text[2] = "..", none;
    if (signals_install() != CUDPO_OK) _exit(1);
    if (watched) signals_follow(starter);
    text[0] = signals_stop_wanted() ? 'y' : 'n';
    if (write(to, text, 1) != 1) _exit(1);
    if (read(told, &none, 1) != 0) _exit(1); /* the launcher held the other end */
    while (getppid() == starter)
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
        const pid_t starter = fork();
        assert_true(starter >= 0);
        if (starter == 0) {
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
        assert_int_equal(kill(starter, SIGKILL), 0);
        assert_int_equal(waitpid(starter, &status, 0), starter);
        assert_int_equal(read(from[0], text + 1, 1), 1);
        assert_string_equal(text, watched ? "ny" : "nn");
        close(from[0]);
    }
}

/* A device works on the next step while the host looks at one: what was asked in the first of two is not forgotten over the
 * second. */
static void asked_with_two_steps_under_way(void **state)
{
    (void)state;
    static const int numbers[] = {SIGUSR2, SIGUSR1};
    cudpo_config c;
    CHECK_OK(cudpo_config_create(&c));
    CHECK_OK(cudpo_config_set(&c, "model_name_or_path", "tests/golden/models/llama"));
    CHECK_OK(cudpo_config_set(&c, "train_dataset", "tests/golden/data/train.jsonl"));
    CHECK_OK(cudpo_config_set(&c, "output_dir", scratch_folder()));
    CHECK_OK(cudpo_config_set(&c, "device", "cpu"));
    CHECK_OK(cudpo_config_set(&c, "max_length", "64"));
    CHECK_OK(cudpo_config_set(&c, "max_steps", "4"));
    for (int i = 0; i < 2; i++) {
        cudpo_trainer *t;
        step_batch b;
        batch_metrics m;
        CHECK_OK(cudpo_trainer_open(&t, &c));
        CHECK_OK(signals_install());
        assert_int_equal(raise(numbers[i]), 0);
        CHECK_OK(trainer_begin(t));
        CHECK_OK(trainer_begin(t));
        CHECK_OK(trainer_finish(t, &b, &m));
        CHECK_OK(trainer_finish(t, &b, &m));
        signals_restore();
        assert_int_equal(t->save, numbers[i] == SIGUSR2);
        assert_int_equal(t->stop, numbers[i] == SIGUSR1);
        cudpo_trainer_close(t);
    }
    cudpo_config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(the_launcher_ends), /* these fork, so before there are threads */
        cmocka_unit_test(asked_with_two_steps_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
