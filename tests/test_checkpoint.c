/* test_checkpoint.c - what is saved comes back bit for bit, and a process that is killed at any point loses none of it. */
/* rooms: train */
#include "test_checkpoint.h"
#include "base/rng.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool exists(const fixture *f, const char *name)
{
    char path[1300];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", f->output, name);
    return lstat(path, &s) == 0;
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void all_bits_come_back(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    assert_int_equal(fixture_newest(&f), -1); /* no folder yet */
    CHECK_OK(fixture_save(&f, 0, 0));
    CHECK_OK(fixture_save(&f, 12, 0));
    assert_int_equal(fixture_newest(&f), 12);
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-0/", f.output);
    fixture_check(&f, path, 0);
    assert_int_equal(entries(f.output), 2);
    /* A model folder, and what training needs beside it. */
    static const char *const names[] = {
        "config.json",         "tokenizer.json",         "model.safetensors",
        "exp_avg.safetensors", "exp_avg_sq.safetensors", "trainer_state.json",
        "manifest.json"};
    snprintf(path, sizeof path, "%s/checkpoint-12", f.output);
    assert_int_equal(entries(path), sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[100];
        snprintf(name, sizeof name, "checkpoint-12/%s", names[i]);
        assert_true(exists(&f, name));
    }
    fixture_close(&f);
}

/* Of any number of shards any run comes back, and so it does of whole moments. */
static void shards_come_back(void **state)
{
    (void)state;
    static const int shards[] = {0, 1, 2, 5};
    fixture f;
    fixture_open(&f);
    const int64_t all = tensor_elements(f.weights.all);
    float *got = calloc((size_t)all, sizeof *got);
    assert_non_null(got);
    for (int i = 0; i < 4; i++) {
        char path[700];
        snprintf(path, sizeof path, "%s/checkpoint-%d", f.output, i);
        f.shards = shards[i];
        CHECK_OK(fixture_save(&f, i, 0));
        assert_int_equal(entries(path), f.shards == 0 ? 7 : 5 + f.shards);
        assert_int_equal(fixture_newest(&f), i);
        fixture_fill(&f, i);
        for (int ranks = 1; ranks <= 7; ranks += 3) {
            for (int r = 0; r < ranks; r++) {
                const int64_t begin = all * r / ranks, n = all * (r + 1) / ranks - begin;
                memset(got, 0xff, (size_t)n * sizeof *got);
                CHECK_OK(checkpoint_restore(tensor_vector(got, DTYPE_F32, n), begin, &f.second,
                                            CHECKPOINT_SECOND, path, f.shards));
                assert_memory_equal(got, (const float *)f.second.all.data + begin,
                                    (size_t)n * sizeof *got);
            }
        }
    }
    free(got);
    fixture_close(&f);
}

static void the_oldest_are_removed(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int64_t step = 7; step <= 11; step++) /* 10 sorts behind 9 by number, not by text */
        CHECK_OK(fixture_save(&f, step, 2));
    assert_int_equal(entries(f.output), 2);
    assert_true(exists(&f, "checkpoint-10") && exists(&f, "checkpoint-11"));
    /* The new one is never removed, even where others have higher numbers. */
    CHECK_OK(fixture_save(&f, 3, 1));
    assert_int_equal(entries(f.output), 1);
    assert_int_equal(fixture_newest(&f), 3);
    fixture_close(&f);
}

static void the_same_step_is_replaced(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 4, 0));
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-4/stale", f.output);
    CHECK_OK(file_write(path, "x", 1));
    CHECK_OK(fixture_save(&f, 4, 0));
    assert_false(exists(&f, "checkpoint-4/stale"));
    assert_int_equal(entries(f.output), 1);
    assert_int_equal(fixture_newest(&f), 4);
    fixture_close(&f);
}

/* Other trainers use the name too: their folders are neither read nor removed nor overwritten. */
static void folders_of_others_stay(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-500", f.output);
    CHECK_OK(file_make_folder(path));
    snprintf(path, sizeof path, "%s/checkpoint-500/optimizer.pt", f.output);
    CHECK_OK(file_write(path, "x", 1));
    snprintf(path, sizeof path, "%s/checkpoint-02", f.output);
    CHECK_OK(file_make_folder(path));
    assert_int_equal(fixture_newest(&f), -1);
    CHECK_OK(fixture_save(&f, 1, 1));
    CHECK_OK(fixture_save(&f, 2, 1));
    assert_int_equal(fixture_newest(&f), 2);
    CHECK_FAILS(fixture_save(&f, 500, 1), CUDPO_EWRITE, "not a checkpoint of cudpo");
    CHECK_OK(checkpoint_clean(f.output, -1));
    assert_true(exists(&f, "checkpoint-500/optimizer.pt") && exists(&f, "checkpoint-02"));
    assert_int_equal(entries(f.output), 2);
    fixture_close(&f);
}

static void leftovers_are_cleaned(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int64_t step = 1; step <= 4; step++)
        CHECK_OK(fixture_save(&f, step, 0));
    char path[700], other[700];
    snprintf(path, sizeof path, "%s/.checkpoint-9.tmp/deep/er", f.output);
    CHECK_OK(file_make_folder(path));
    snprintf(path, sizeof path, "%s/.checkpoint-1.removed", f.output);
    CHECK_OK(file_make_folder(path));
    snprintf(path, sizeof path, "%s/metrics.jsonl", f.output);
    CHECK_OK(file_write(path, "x", 1));
    /* A whole one that was never renamed is adopted; a broken one is not. */
    snprintf(path, sizeof path, "%s/checkpoint-4", f.output);
    snprintf(other, sizeof other, "%s/.checkpoint-4.tmp", f.output);
    CHECK_OK(file_rename(other, path));
    assert_int_equal(fixture_newest(&f), 4);
    assert_true(exists(&f, "checkpoint-4") && !exists(&f, ".checkpoint-4.tmp"));

    CHECK_OK(checkpoint_clean(f.output, 2));
    assert_int_equal(entries(f.output), 3); /* 1, 2 and the metrics */
    assert_int_equal(fixture_newest(&f), 2);
    CHECK_OK(checkpoint_clean(f.output, -1));
    assert_int_equal(entries(f.output), 1);
    snprintf(path, sizeof path, "%s/nowhere", f.output);
    CHECK_OK(checkpoint_clean(path, -1));
    fixture_close(&f);
}

static void bad_calls_are_refused(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    checkpoint_state s = fixture_state(1), broken = s;
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-1", f.output);
    CHECK_FAILS(checkpoint_read(&s, path), CUDPO_ENOINPUT, path);
    CHECK_FAILS(checkpoint_read(&s, f.source), CUDPO_EDATA, "manifest.json");
    broken.step = -1;
    CHECK_FAILS(fixture_save_state(&f, &broken, 1), CUDPO_EINVAL, "step");
    broken = fixture_state(1);
    broken.sum_count = CHECKPOINT_SUMS + 1;
    CHECK_FAILS(fixture_save_state(&f, &broken, 1), CUDPO_EINVAL, "sum_count");
    assert_false(file_is_folder(f.output));
    /* An output folder that can't be one. */
    CHECK_OK(file_write(f.output, "x", 1));
    CHECK_FAILS(fixture_save(&f, 1, 1), CUDPO_EWRITE, f.output);
    /* A checkpoint of another shape of model. */
    assert_int_equal(unlink(f.output), 0);
    CHECK_OK(fixture_save(&f, 1, 1));
    model_config wide = f.config;
    wide.hidden_size = 16;
    wide.head_dim = 8;
    model_weights other;
    CHECK_OK(model_weights_create(&other, backend_cpu(), &wide, DTYPE_F32));
    CHECK_FAILS(checkpoint_restore(other.all, 0, &other, CHECKPOINT_WEIGHTS, path, 0), CUDPO_EDATA,
                "shape");
    model_weights_destroy(&other);
    fixture_close(&f);
}

/* ---- kill -9 ---- */

static int64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A trainer that does nothing but save: from the newest checkpoint on, keeping two.  It says when it begins. */
static void save_for_ever(fixture *f, int ready)
{
    const int64_t newest = fixture_newest(f);
    CHECK_OK(checkpoint_clean(f->output, newest));
    assert_int_equal(write(ready, "", 1), 1);
    for (int64_t step = newest + 1;; step++)
        CHECK_OK(fixture_save(f, step, 2));
}

static void killed_at_any_point(void **state)
{
    (void)state;
    enum { KILLS = 60 };
    fixture f;
    fixture_open(&f);
    int64_t newest = 2, progress = 0, start = milliseconds();
    for (int64_t step = 0; step <= newest; step++)
        CHECK_OK(fixture_save(&f, step, 2));
    /* Up to the time of four saves, which depends on the disk. */
    int64_t window = 1000 * (milliseconds() - start + 1) / 3 * 4;
    window = window > 200000 ? 200000 : window;
    start = milliseconds();
    for (int i = 0; i < KILLS; i++) {
        int ready[2];
        char byte;
        assert_int_equal(pipe(ready), 0);
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            save_for_ever(&f, ready[1]);
            _exit(1);
        }
        /* Some are killed while they resume and clean up, most while they save. */
        if (i % 8 != 0) assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        close(ready[1]);
        const long microseconds = (long)rng_below(17, 5, (uint64_t)i, window);
        const struct timespec wait = {0, microseconds * 1000};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) &&
                    WTERMSIG(status) == SIGKILL); /* it never failed itself */
        const int64_t now = fixture_newest(&f);   /* checks every bit of it */
        if (now < newest)
            fail_msg("kill %d: step %lld after %lld", i, (long long)now, (long long)newest);
        progress += now > newest;
        newest = now;
    }
    printf("%d kills in %lld ms: step %lld, progress after %lld of them\n", KILLS,
           (long long)(milliseconds() - start), (long long)newest, (long long)progress);
    assert_true(progress >= KILLS / 10); /* restarts do not stand in each other's way */
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_bits_come_back),     cmocka_unit_test(shards_come_back),
        cmocka_unit_test(the_oldest_are_removed), cmocka_unit_test(the_same_step_is_replaced),
        cmocka_unit_test(folders_of_others_stay), cmocka_unit_test(leftovers_are_cleaned),
        cmocka_unit_test(bad_calls_are_refused),  cmocka_unit_test(killed_at_any_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
