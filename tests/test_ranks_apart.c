/* test_ranks_apart.c - ranks that don't fit together: of different settings, or told to stop before they have met. */
/* rooms: train */
#include "ranks.h"

/* In: key, value  one more setting; NULL: none. */
static pid_t start(int rank, int port, const char *key, const char *value)
{
    const char *arguments[PROGRAM_ARGUMENTS + 1];
    const char *const more[] = {"--max_steps", "2", key, value, NULL};
    ranks_train(arguments, "out", more);
    return ranks_start_one(rank, 2, port, arguments);
}

/* Sums over other pieces, or at other steps, would be sums of something else. */
static void of_different_settings(void **state)
{
    (void)state;
    static const char *const other[][2] = {{"--ddp_bucket_cap_mb", "0.01"},
                                           {"--zero_stage", "1"},
                                           {"--logging_steps", "2"},
                                           {"--save_steps", "1"},
                                           {"--seed", "7"}};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        const int port = ranks_port();
        rank_group g = {
            .size = 2,
            .pid = {start(0, port, NULL, NULL), start(1, port, other[i][0], other[i][1])}};
        ranks_expect(&g, 78);
        ranks_says(0, "rank 1 has another model, other data or other settings than rank 0");
    }
}

static struct sockaddr_in at(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Rank 0 listens. */
static void wait_for_hub(int port)
{
    const struct sockaddr_in a = at(port);
    for (const double limit = program_clock() + 60;; program_sleep(0.01)) {
        const int s = socket(AF_INET, SOCK_STREAM, 0);
        const bool there = connect(s, (const struct sockaddr *)&a, sizeof a) == 0;
        close(s);
        if (there) return;
        if (program_clock() > limit) fail_msg("rank 0 does not listen");
    }
}

/* Another rank comes, and finds somebody who hangs up. */
static void wait_for_peer(int listener)
{
    const int s = accept(listener, NULL, NULL);
    assert_true(s >= 0);
    close(s);
}

/* A scheduler takes the job back while one of its nodes is still to come. */
static void stopped_while_it_waits(void **state)
{
    (void)state;
    for (int rank = 0; rank < 2; rank++) {
        const int port = ranks_port(), one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
        const struct sockaddr_in a = at(port);
        if (rank == 1) {
            setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
            assert_int_equal(bind(listener, (const struct sockaddr *)&a, sizeof a), 0);
            assert_int_equal(listen(listener, 4), 0);
        }
        rank_group g = {.size = 1, .pid = {start(rank, port, NULL, NULL)}};
        if (rank == 0)
            wait_for_hub(port);
        else
            wait_for_peer(listener);
        const double when = program_clock();
        assert_int_equal(kill(g.pid[0], SIGTERM), 0);
        close(listener);
        ranks_wait(&g, 60);
        assert_int_equal(g.status[0], 75);
        assert_true(g.ended[0] - when < 5.0);
        ranks_says(rank, "stopped by a signal before all ranks had met");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_different_settings),
        cmocka_unit_test(stopped_while_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
