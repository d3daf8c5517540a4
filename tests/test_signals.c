/* test_signals.c - what signals ask for is noted and kept, and only a second wish to end is one to end at once. */
/* rooms: train */
#include "test.h"
#include "program.h"
#include "train/signals.h"
#include "train/trainer.h"

static const char model[] = "tests/golden/models/llama", data[] = "tests/golden/data/train.jsonl";

/* A device works on the next step while the host looks at one: what was asked in the first of two is not forgotten over the
 * second. */
static void asked_with_two_steps_under_way(void **state)
{
    (void)state;
    static const int numbers[] = {SIGUSR2, SIGUSR1};
    cudpo_config c;
    CHECK_OK(cudpo_config_create(&c));
    CHECK_OK(cudpo_config_set(&c, "model_name_or_path", model));
    CHECK_OK(cudpo_config_set(&c, "train_dataset", data));
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

/* How a process ends that gets these one after another, more than a second apart. */
static int ended(int first, int second, int third)
{
    const int numbers[] = {first, second, third};
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        if (signals_install() != CUDPO_OK) _exit(1);
        for (int i = 0; i < 3 && numbers[i] != 0; i++) {
            if (i > 0) program_sleep(2.05);
            raise(numbers[i]);
        }
        _exit(signals_stop_wanted() ? 0 : 2);
    }
    return program_wait(pid);
}

/* Slurm sends SIGUSR1 before the limit and SIGTERM at it: a save may take longer than what lies between them. */
static void the_second_ends(void **state)
{
    (void)state;
    assert_int_equal(ended(SIGUSR1, SIGTERM, 0), 0);
    assert_int_equal(ended(SIGTERM, SIGUSR1, 0), 0);
    assert_int_equal(ended(SIGTERM, SIGTERM, 0), 128 + SIGTERM);
    assert_int_equal(ended(SIGUSR1, SIGTERM, SIGINT), 128 + SIGINT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_ends), /* forks, so before there are threads */
        cmocka_unit_test(asked_with_two_steps_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
