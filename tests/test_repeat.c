/* test_repeat.c - the same run gives the same bits: run twice, killed and resumed, stopped by signals and resumed. */
/* rooms: train */
#include "program.h"
#include "base/json.h"
#include "base/rng.h"

#include <dirent.h>

enum { SETTINGS = 14, SEED = 11 };

typedef struct job {
    const char *name;
    const char *settings[SETTINGS]; /* --key value ..., NULL */
} job;

static const job jobs[] = {
    {"sigmoid",
     {"--train_dataset", "tests/golden/data/train.jsonl", "--gradient_accumulation_steps", "2",
      "--logging_steps", "3"}},
    {"kto", {"--train_dataset", "tests/golden/data/kto.jsonl", "--loss_type", "kto"}},
    {"evaluated",
     {"--train_dataset", "tests/golden/data/train.jsonl", "--eval_dataset",
      "tests/golden/data/eval.jsonl", "--eval_strategy", "steps", "--eval_steps", "3",
      "--precompute_ref_log_probs", "true", "--max_tokens_per_pack", "400"}},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

/* `cudpo train` of a job into a folder of the scratch folder. */
static pid_t start(const job *j, const char *output, const char *more, const char *value)
{
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train",
                                                    "--model_name_or_path",
                                                    "tests/golden/models/llama3",
                                                    "--output_dir",
                                                    folder,
                                                    "--max_length",
                                                    "64",
                                                    "--max_steps",
                                                    "17",
                                                    "--learning_rate",
                                                    "1e-3",
                                                    "--save_steps",
                                                    "2",
                                                    "--save_total_limit",
                                                    "2",
                                                    "--per_device_train_batch_size",
                                                    "4",
                                                    "--logging_steps",
                                                    "1"};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    for (int i = 0; i < SETTINGS && j->settings[i] != NULL; i++)
        arguments[n++] = j->settings[i];
    if (more != NULL) {
        arguments[n++] = more;
        arguments[n++] = value;
    }
    return program_start(arguments);
}

static void same_run(const char *a, const char *b)
{
    program_same_file(a, b, "model.safetensors");
    program_same_metrics(a, b);
}

static void twice(void **state)
{
    (void)state;
    for (int i = 0; i < JOBS; i++) {
        char other[64];
        program_finish(start(&jobs[i], jobs[i].name, NULL, NULL), 0);
        snprintf(other, sizeof other, "%s-again", jobs[i].name);
        program_finish(start(&jobs[i], other, NULL, NULL), 0);
        same_run(jobs[i].name, other);
    }
}

/* How often each job is killed: 300 times together; where a build is slow, a few; before a release, many. */
static int kills_wanted(void)
{
    if (getenv("CUDPO_TEST_LONG") != NULL) return 3334;
    return getenv("CUDPO_TEST_PART") != NULL ? 5 : 100;
}

/* Killed at random moments, each a share of the time that a whole run takes, and started again until it comes to its end; and
 * once more, as often as it takes. */
static void killed(void **state)
{
    (void)state;
    for (int i = 0; i < JOBS; i++) {
        char whole[64];
        const double begin = program_clock();
        snprintf(whole, sizeof whole, "%s-whole", jobs[i].name);
        program_finish(start(&jobs[i], whole, NULL, NULL), 0);
        double length = program_clock() - begin;
        const int wanted = kills_wanted();
        int kills = 0, starts = 0, ends = 0;
        for (bool ended = false; kills < wanted || !ended;) {
            /* Progress: no run needs more than some twenty starts. */
            if (starts > 20 * (ends + 1) + 2 * kills)
                fail_msg("%s: %d starts, %d ends", whole, starts, ends);
            const pid_t pid = start(&jobs[i], "killed", "--resume_from_checkpoint", "true");
            if (kills < wanted) {
                program_sleep(length * 0.7 * rng_uniform(SEED, (uint64_t)i, (uint64_t)starts));
                kill(pid, SIGKILL);
            }
            const int status = program_wait(pid);
            ended = status == 0;
            starts++;
            if (status == 128 + SIGKILL) {
                kills++;
                continue;
            }
            if (status != 0) {
                program_result r = program_read(status);
                fail_msg("%s: status %d after a kill: %s", whole, status, r.err);
            }
            ends++;
            same_run(whole, "killed");
            CHECK_OK(file_remove_folder(scratch_path("killed")));
        }
        assert_true(kills >= wanted);
        printf("%-10s killed %d times, started %d times, came to its end %d times\n", jobs[i].name,
               kills, starts, ends);
    }
}

/* Wait until the run has logged a step, so that it handles signals. */
static void wait_for_metrics(const char *output)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/metrics.jsonl", scratch_path(output));
    const double limit = program_clock() + 60.0;
    for (; program_clock() < limit; program_sleep(0.002)) {
        FILE *f = fopen(path, "rb");
        const int first = f == NULL ? EOF : fgetc(f);
        if (f != NULL) fclose(f);
        if (first != EOF) return;
    }
    fail_msg("%s did not log a step in a minute", output);
}

static int checkpoints(const char *output)
{
    int n = 0;
    DIR *d = opendir(scratch_path(output));
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
        n += strncmp(e->d_name, "checkpoint-", 11) == 0;
    closedir(d);
    return n;
}

/* SIGTERM and the like save and stop at the next step; --save_strategy no, so only the signal can have saved. */
static void signalled(void **state)
{
    (void)state;
    const int stops[] = {SIGTERM, SIGINT, SIGUSR1};
    const job *j = &jobs[1];
    for (int i = 0; i < 3; i++) {
        char other[64];
        snprintf(other, sizeof other, "signal-%d", stops[i]);
        const pid_t pid = start(j, other, "--save_strategy", "no");
        wait_for_metrics(other);
        kill(pid, stops[i]);
        program_result r = program_read(program_wait(pid));
        /* On a machine that was busy elsewhere, the run may have come to its end before. */
        if (r.status == 0) {
            print_message("signal %d came too late\n", stops[i]);
            program_free(&r);
            continue;
        }
        assert_int_equal(r.status, 75);
        assert_non_null(strstr(r.err, "--resume_from_checkpoint true"));
        program_free(&r);
        assert_int_equal(checkpoints(other), 1);
        program_finish(start(j, other, "--resume_from_checkpoint", "true"), 0);
        same_run(j->name, other);
    }
}

static void saved_on_the_way(void **state)
{
    (void)state;
    const job *j = &jobs[1];
    const pid_t pid = start(j, "usr2", "--save_strategy", "no");
    wait_for_metrics("usr2");
    kill(pid, SIGUSR2);
    program_finish(pid, 0);
    assert_true(checkpoints("usr2") <= 1);
    same_run(j->name, "usr2");
}

/* The newest checkpoint is damaged: the one before it serves, and the run ends in the same bits. */
static void damaged(void **state)
{
    (void)state;
    const job *j = &jobs[0];
    char path[1400], *data = NULL;
    size_t n;
    program_finish(start(j, "damaged", NULL, NULL), 0);
    snprintf(path, sizeof path, "%s/checkpoint-17/model.safetensors", scratch_path("damaged"));
    CHECK_OK(file_read(&data, &n, path, (size_t)1 << 26));
    data[n / 2] ^= 1;
    CHECK_OK(file_write(path, data, n));
    free(data);
    snprintf(path, sizeof path, "%s/model.safetensors", scratch_path("damaged"));
    assert_int_equal(unlink(path), 0); /* or the run would have come to its end */
    program_finish(start(j, "damaged", "--resume_from_checkpoint", "true"), 0);
    same_run(j->name, "damaged");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twice),     cmocka_unit_test(killed),
        cmocka_unit_test(signalled), cmocka_unit_test(saved_on_the_way),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
