/* test_ranks_faults.c - ranks that are lost, stopped, asked to stop or stand still: all end in time and say why, and the run goes
 * on from its last checkpoint to the bits of one that nothing disturbed. */
/* rooms: train */
#define _GNU_SOURCE /* prlimit() */
#include "ranks.h"

#include <sys/resource.h>

/* With $CUDPO_TEST_LONG as many as a release is given. */
static int trials(int usual, int many)
{
    return getenv("CUDPO_TEST_LONG") != NULL ? many : usual;
}

static rank_group start(int size, const char *output, const char *const *more)
{
    const char *arguments[PROGRAM_ARGUMENTS + 1];
    ranks_train(arguments, output, more);
    return ranks_start(size, arguments);
}
#define START(size, output, ...) start(size, output, (const char *const[]){__VA_ARGS__, NULL})

/* Wait until a step is in metrics.jsonl. */
static void wait_for_step(const char *output, int step)
{
    char path[1400], want[32];
    snprintf(path, sizeof path, "%s/metrics.jsonl", scratch_path(output));
    snprintf(want, sizeof want, "{\"step\": %d,", step);
    for (const double limit = program_clock() + 60; program_clock() < limit; program_sleep(0.002)) {
        char *text = NULL;
        size_t n;
        if (file_is_regular(path) && file_read(&text, &n, path, (size_t)1 << 24) == CUDPO_OK) {
            const bool there = strstr(text, want) != NULL;
            free(text);
            if (there) return;
        }
        cudpo_error_clear();
    }
    fail_msg("%s never came to step %d", output, step);
}

/* All but the one end with 69 and name it, within `limit` seconds of `when`. */
static double others_end(rank_group *g, int one, double when, double limit)
{
    double last = 0;
    char name[16];
    ranks_wait(g, 60);
    snprintf(name, sizeof name, "rank %d", one);
    for (int r = 0; r < g->size; r++) {
        if (r == one) continue;
        if (g->status[r] != 69) fail_msg("rank %d: status %d: %s", r, g->status[r], ranks_said(r));
        ranks_says(r, name);
        ranks_says(r, "step");
        last = fmax(last, g->ended[r] - when);
    }
    if (!(last <= limit)) fail_msg("the others took %.2f s", last);
    return last;
}

/* A lost peer: rank by rank. */
static void lost(void **state)
{
    (void)state;
    double longest = 0;
    for (int i = 0; i < trials(6, 200); i++) {
        rank_group g = START(3, "lost", "--max_steps", "100000", "--save_strategy", "no",
                             "--overwrite_output_dir");
        wait_for_step("lost", 2);
        const double when = program_clock();
        assert_int_equal(kill(g.pid[i % 3], SIGKILL), 0);
        longest = fmax(longest, others_end(&g, i % 3, when, 2.0));
        CHECK_OK(file_remove_folder(scratch_path("lost")));
    }
    printf("the others had ended %.3f s after a rank was killed\n", longest);
}

/* One that stands still, as a process or in its main thread. */
static void hung(void **state)
{
    (void)state;
    for (int one = 0; one < 2; one++) {
        rank_group g = START(2, "hung", "--max_steps", "100000", "--save_strategy", "no",
                             "--ddp_timeout", "1.5", "--overwrite_output_dir");
        wait_for_step("hung", 2);
        const double when = program_clock();
        assert_int_equal(kill(g.pid[one], SIGSTOP), 0);
        rank_group other = {.size = 1, .pid = {g.pid[1 - one]}};
        ranks_wait(&other, 60);
        const double took = other.ended[0] - when;
        assert_int_equal(other.status[0], 69);
        ranks_says(1 - one, one == 0 ? "rank 0" : "rank 1");
        if (!(took >= 1.4 && took <= 3.5)) fail_msg("it took %.2f s", took);
        kill(g.pid[one], SIGKILL);
        waitpid(g.pid[one], NULL, 0);
        CHECK_OK(file_remove_folder(scratch_path("hung")));
    }
}

/* A signal to one rank: all save the same step and end with 75, and the run goes on. */
static void asked_to_stop(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGUSR1, SIGINT};
    rank_group whole = START(2, "whole", "--max_steps", "150", "--save_steps", "1000");
    ranks_expect(&whole, 0);
    for (int i = 0; i < 3; i++) {
        rank_group g = START(2, "asked", "--max_steps", "150", "--save_steps", "1000");
        wait_for_step("asked", 3);
        assert_int_equal(kill(g.pid[i % 2], signals[i]), 0);
        if (i == 2) assert_int_equal(kill(g.pid[1], signals[i]), 0); /* both, as a scheduler does */
        ranks_expect(&g, 75);
        ranks_says(0, "which is saved");
        ranks_says(1, "which is saved");
        rank_group again = START(2, "asked", "--max_steps", "150", "--save_steps", "1000");
        ranks_expect(&again, 0);
        program_same_file("whole", "asked", "model.safetensors");
        program_same_metrics("whole", "asked");
        CHECK_OK(file_remove_folder(scratch_path("asked")));
    }
}

static void asked_to_save(void **state)
{
    (void)state;
    char path[1400];
    rank_group g = START(2, "saved", "--max_steps", "150", "--save_steps", "1000");
    wait_for_step("saved", 3);
    assert_int_equal(kill(g.pid[1], SIGUSR2), 0);
    ranks_expect(&g, 0);
    int found = 0;
    for (int step = 4; step < 150; step++) {
        snprintf(path, sizeof path, "%s/checkpoint-%d", scratch_path("saved"), step);
        found += file_is_folder(path);
    }
    assert_int_equal(found, 1);
    program_same_file("whole", "saved", "model.safetensors");
}

/* A disk that is full for one rank, which can't write its shard: all end and name it, and the run goes on from the checkpoint
 * before. */
static void full(void **state)
{
    (void)state;
#define SHARED "--max_steps", "60", "--save_steps", "4", "--zero_stage", "1"
    void (*const before)(int) = signal(SIGXFSZ, SIG_IGN); /* which the ranks inherit */
    rank_group whole = START(2, "roomy", SHARED);
    ranks_expect(&whole, 0);
    for (int one = 0; one < 2; one++) {
        const struct rlimit most = {1 << 16, 1 << 16};
        char shard[80];
        rank_group g = START(2, "full", SHARED);
        wait_for_step("full", 5);
        assert_int_equal(prlimit(g.pid[one], RLIMIT_FSIZE, &most, NULL), 0);
        ranks_expect(&g, 73);
        snprintf(shard, sizeof shard, "optimizer-0000%d-of-00002.safetensors", one);
        for (int r = 0; r < 2; r++) {
            ranks_says(r, shard);
            ranks_says(r, "File too large");
        }
        ranks_says(1 - one, one == 0 ? ": rank 0: " : ": rank 1: ");
        rank_group again = START(2, "full", SHARED);
        ranks_expect(&again, 0);
        ranks_says(0, "going on from");
        program_same_file("roomy", "full", "model.safetensors");
        program_same_metrics("roomy", "full");
        CHECK_OK(file_remove_folder(scratch_path("full")));
    }
    signal(SIGXFSZ, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost),          cmocka_unit_test(hung), cmocka_unit_test(asked_to_stop),
        cmocka_unit_test(asked_to_save), cmocka_unit_test(full),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
