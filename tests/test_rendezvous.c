/* Tests of how ranks find one another: what is turned away, what is waited for, and strangers who must not be in the way. */
/* rooms: base dist */
#include "test_control.h"

static cudpo_status meets(control *c, job *j, int rank)
{
    (void)j, (void)rank;
    return control_barrier(c, "met");
}

static void expect_all(job *j, cudpo_status want, const char *text)
{
    for (int r = 0; r < j->size; r++)
        job_expect(j, r, want, text);
}

/* The test itself is rank 0, and has accepted whoever comes. */
static void accept_as_rank_0(wire *w, int listener, const handshake_self *self,
                             handshake_verdict want)
{
    handshake_nonces nonces;
    int32_t rank;
    char why[HANDSHAKE_TEXT];
    wire_open(w, accept(listener, NULL, NULL));
    assert_true(handshake_challenge(w, &nonces));
    job_hear(w, WIRE_HELLO);
    assert_int_equal(handshake_check_hello(w, &nonces, self, &rank, why), want);
    assert_true(handshake_accept(w, &nonces, self, 5));
    wire_flush(w);
}

/* ---- who does not come ---- */

static void missing_ranks_are_named(void **state)
{
    (void)state;
    job j = job_make(4);
    j.options.join_timeout = 1;
    job_start(&j, 0, meets);
    job_start(&j, 2, meets);
    job_expect(&j, 0, CUDPO_ERENDEZVOUS, "ranks 1 and 3 of 4 did not come within");
    job_expect(&j, 2, CUDPO_ERENDEZVOUS, "ranks 1 and 3 of 4 did not come within");
    job_free(&j);
}

static void lists_of_ranks_are_short(void **state)
{
    char text[RANKS_TEXT];
    bool marked[MAX_RANKS] = {false};
    (void)state;
    marked[3] = true;
    rendezvous_ranks(text, marked, 10);
    assert_string_equal(text, "rank 3");
    marked[7] = marked[9] = true;
    rendezvous_ranks(text, marked, 10);
    assert_string_equal(text, "ranks 3, 7 and 9");
    for (int r = 0; r < MAX_RANKS; r++)
        marked[r] = r >= 65500;
    rendezvous_ranks(text, marked, MAX_RANKS);
    assert_string_equal(text,
                        "ranks 65500, 65501, 65502, 65503, 65504, 65505, 65506, 65507 and 28 more");
}

static void rank_0_that_is_not_there(void **state)
{
    char text[64];
    (void)state;
    job j = job_make(2);
    j.options.join_timeout = 0.5;
    snprintf(text, sizeof text, "127.0.0.1:%d: Connection refused", j.port);
    job_start(&j, 1, meets);
    job_expect(&j, 1, CUDPO_ERENDEZVOUS, text);
    job_free(&j);
}

static void rank_0_may_be_last(void **state)
{
    (void)state;
    job j = job_make(3);
    job_start(&j, 1, meets);
    job_start(&j, 2, meets);
    job_sleep(
        0.3); /* long enough to find nobody, whatever the machine does: less would only test less */
    job_start(&j, 0, meets);
    expect_all(&j, CUDPO_OK, "");
    job_free(&j);
}

static void rank_0_leaves_while_others_wait(void **state)
{
    int port;
    wire w;
    const handshake_self self = job_known_by("", 0, 3);
    (void)state;
    const int listener = job_listen(&port);
    assert_int_equal(listen(listener, 8), 0);
    job j = job_make(3);
    j.place[1].port = port;
    job_start(&j, 1, meets);
    accept_as_rank_0(&w, listener, &self, HANDSHAKE_GOOD);
    wire_close(&w);
    job_expect(&j, 1, CUDPO_ERENDEZVOUS,
               "rank 0 was there and went away before all ranks had come");
    close(listener);
    job_free(&j);
}

/* A rank that died while the others were waited for may come again. */
static void a_rank_comes_twice_in_turn(void **state)
{
    wire w;
    handshake_nonces nonces;
    const handshake_self self = job_known_by("", 1, 3);
    (void)state;
    job j = job_make(3);
    job_start(&j, 0, meets);
    job_join_as(&w, &nonces, j.port, &self);
    wire_close(&w);
    job_start(&j, 1, meets);
    job_start(&j, 2, meets);
    expect_all(&j, CUDPO_OK, "");
    job_free(&j);
}

/* ---- who is turned away ---- */

/* Rank 1 of a job is spoilt; then one that is right comes, and the job runs. */
static void turned_away(void (*spoil)(job *j), const char *text)
{
    job j = job_make(3);
    j.options.token = "right";
    job good = j;
    job_start(&j, 0, meets);
    job_start(&j, 2, meets);
    spoil(&j);
    const double begin = job_clock();
    job_start(&j, 1, meets);
    job_expect(&j, 1, CUDPO_ERENDEZVOUS, text);
    assert_true(job_clock() - begin <
                10); /* it has its answer, and does not try for all of join_timeout */
    job_start(&good, 1, meets);
    job_expect(&good, 1, CUDPO_OK, "");
    job_expect(&j, 0, CUDPO_OK, "");
    job_expect(&j, 2, CUDPO_OK, "");
    job_free(&j);
}

static void spoil_token(job *j)
{
    j->options.token = "wrong";
}
static void spoil_no_token(job *j)
{
    j->options.token = NULL;
}
static void spoil_build(job *j)
{
    j->options.build = "test 2";
}
static void spoil_run_id(job *j)
{
    snprintf(j->place[1].run_id, PLACEMENT_TEXT, "walk");
}
static void spoil_size(job *j)
{
    j->place[1].size = 4;
}

static void ranks_of_something_else(void **state)
{
    (void)state;
    turned_away(spoil_token, "its token is not rank 0's");
    turned_away(spoil_no_token, "its token is not rank 0's");
    turned_away(spoil_build, "it is build test 2, and rank 0 is test");
    turned_away(spoil_run_id, "it is of run 'walk', and rank 0 of 'run'");
    turned_away(spoil_size, "it counts 4 ranks, and rank 0 counts 3");
}

static void a_rank_twice(void **state)
{
    (void)state;
    job j = job_make(4);
    job_start(&j, 0, meets);
    job_start(&j, 2, meets);
    j.place[1].rank = 2; /* its report is still rank 1's */
    job_start(&j, 1, meets);
    for (int r = 0; r < 3; r++)
        job_expect(&j, r, CUDPO_ERENDEZVOUS, "two processes call themselves rank 2");
    job_free(&j);
}

/* Somebody else listens where rank 0 should, and claims to be it. */
static void a_false_rank_0(void **state)
{
    int port;
    wire w;
    const handshake_self self = job_known_by("wrong", 0, 2);
    (void)state;
    const int listener = job_listen(&port);
    assert_int_equal(listen(listener, 8), 0);
    job j = job_make(2);
    j.options.token = "right";
    j.options.join_timeout = 1;
    j.place[1].port = port;
    job_start(&j, 1, meets);
    accept_as_rank_0(&w, listener, &self, HANDSHAKE_FOREIGN);
    job_expect(&j, 1, CUDPO_ERENDEZVOUS, "what is there does not know this run's token");
    wire_close(&w);
    close(listener);
    job_free(&j);
}

/* Whoever overhears a handshake can't use it again: rank 0's nonce is another each time. */
static void an_overheard_hello(void **state)
{
    wire w[2];
    handshake_nonces nonces;
    const handshake_self self = job_known_by("right", 1, 3);
    char why[HANDSHAKE_TEXT];
    (void)state;
    job j = job_make(3);
    j.options.token = "right";
    job_start(&j, 0, meets);
    for (int i = 0; i < 2; i++) {
        wire_open(&w[i], job_reach_port(j.port));
        job_hear(&w[i], WIRE_CHALLENGE);
    }
    assert_true(handshake_hello(&w[0], &nonces, &self));
    const buffer hello = w[0].urgent; /* as it goes over the wire */
    assert_int_equal(send(w[1].fd, hello.data, hello.size, 0), hello.size);
    job_hear(&w[1], WIRE_REFUSED);
    assert_int_equal(handshake_read_refusal(&w[1], &nonces, &self, why), HANDSHAKE_FOREIGN);
    job_hear(&w[0], WIRE_ACCEPTED);
    for (int i = 0; i < 2; i++)
        wire_close(&w[i]);
    job_free(&j);
}

/* Only who knows the token can say that the run is over; others, that theirs is another. */
static void a_refusal_for_good(void **state)
{
    static const char *const tokens[] = {"wrong", "right"};
    const handshake_self mine = job_known_by("right", 1, 3);
    (void)state;
    for (int right = 0; right < 2; right++) {
        int ends[2];
        wire w[2];
        char why[HANDSHAKE_TEXT];
        const handshake_nonces nonces = {.hub = {1, 2, 3}, .peer = {4, 5, 6}};
        const handshake_self other = job_known_by(tokens[right], 0, 3);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        for (int i = 0; i < 2; i++)
            wire_open(&w[i], ends[i]);
        assert_true(handshake_refuse(&w[0], &nonces, &other, HANDSHAKE_WRONG, "over"));
        wire_flush(&w[0]);
        job_hear(&w[1], WIRE_REFUSED);
        assert_int_equal(handshake_read_refusal(&w[1], &nonces, &mine, why),
                         right ? HANDSHAKE_WRONG : HANDSHAKE_FOREIGN);
        assert_string_equal(why, "over");
        for (int i = 0; i < 2; i++)
            wire_close(&w[i]);
    }
}

/* ---- where rank 0 may listen ---- */

static void others_need_a_token(void **state)
{
    (void)state;
    job j = job_make(2);
    for (int r = 0; r < 2; r++)
        snprintf(j.place[r].address, PLACEMENT_TEXT, "192.0.2.1");
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_ERENDEZVOUS, "--rdzv_token_file");
    for (int r = 0; r < 2; r++) { /* 0.0.0.0 leads here, too, and is not loopback */
        snprintf(j.place[r].address, PLACEMENT_TEXT, "0.0.0.0");
        j.options.open = true;
    }
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_OK, "");
    j.options.open = false;
    j.options.token = "secret";
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_OK, "");
    job_free(&j);
}

static void ranks_of_one_node_need_no_address(void **state)
{
    (void)state;
    job j = job_make(2);
    for (int r = 0; r < 2; r++) {
        snprintf(j.place[r].address, PLACEMENT_TEXT, "no.such.host.invalid");
        j.place[r].local_size = 2;
        j.place[r].launcher = LAUNCHER_SLURM;
    }
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_OK, "");
    job_free(&j);
}

static void ipv6_and_names(void **state)
{
    const char *const addresses[] = {"localhost", "::1"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const int fd = socket(AF_INET6, SOCK_STREAM, 0);
        const struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        const bool v6 = fd >= 0 && bind(fd, (const struct sockaddr *)&a, sizeof a) == 0;
        if (fd >= 0) close(fd);
        if (i == 1 && !v6) {
            printf("no IPv6 here\n");
            return;
        }
        job j = job_make(2);
        for (int r = 0; r < 2; r++)
            snprintf(j.place[r].address, PLACEMENT_TEXT, "%s", addresses[i]);
        job_start_all(&j, meets);
        expect_all(&j, CUDPO_OK, "");
        job_free(&j);
    }
}

static void no_address_at_all(void **state)
{
    (void)state;
    job j = job_make(2);
    for (int r = 0; r < 2; r++)
        j.place[r].address[0] = '\0';
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_ERENDEZVOUS, "give --rdzv_endpoint HOST:PORT");
    job_free(&j);
}

/* ---- a port that is taken ---- */

static void a_port_of_flags_is_that_port(void **state)
{
    char text[64];
    (void)state;
    job j = job_make(2);
    const int taken = job_listen(&j.port);
    assert_int_equal(listen(taken, 8), 0);
    j.place[0].port = j.port;
    snprintf(text, sizeof text, "can't listen on port %d: Address already in use", j.port);
    job_start(&j, 0, meets);
    job_expect(&j, 0, CUDPO_ERENDEZVOUS, text);
    close(taken);
    job_free(&j);
}

/* Somebody who says nothing has the port that a launcher named. */
static void a_port_of_launchers_is_a_wish(void **state)
{
    (void)state;
    job j = job_make(3);
    const int taken = job_listen(&j.port);
    assert_int_equal(listen(taken, 8), 0);
    for (int r = 0; r < 3; r++) {
        j.place[r].launcher = LAUNCHER_TORCHRUN;
        j.place[r].port = j.port;
    }
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_OK, "");
    close(taken);
    job_free(&j);
}

/* Two runs that were given the same port at the same time. */
static void two_runs_with_one_port(void **state)
{
    (void)state;
    job j[2] = {job_make(3), job_make(3)};
    for (int k = 0; k < 2; k++)
        for (int r = 0; r < 3; r++) {
            j[k].place[r].launcher = LAUNCHER_TORCHRUN;
            j[k].place[r].port = j[0].port;
            snprintf(j[k].place[r].run_id, PLACEMENT_TEXT, "run %d", k);
        }
    job_start(&j[0], 0, meets);
    close(job_reach_port(j[0].port));
    job_start_all(&j[1], meets);
    expect_all(&j[1], CUDPO_OK, "");
    job_start(&j[0], 1, meets);
    job_start(&j[0], 2, meets);
    expect_all(&j[0], CUDPO_OK, "");
    job_free(&j[0]);
    job_free(&j[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_ranks_are_named),
        cmocka_unit_test(lists_of_ranks_are_short),
        cmocka_unit_test(rank_0_that_is_not_there),
        cmocka_unit_test(rank_0_may_be_last),
        cmocka_unit_test(rank_0_leaves_while_others_wait),
        cmocka_unit_test(a_rank_comes_twice_in_turn),
        cmocka_unit_test(ranks_of_something_else),
        cmocka_unit_test(a_rank_twice),
        cmocka_unit_test(a_false_rank_0),
        cmocka_unit_test(an_overheard_hello),
        cmocka_unit_test(a_refusal_for_good),
        cmocka_unit_test(others_need_a_token),
        cmocka_unit_test(ranks_of_one_node_need_no_address),
        cmocka_unit_test(ipv6_and_names),
        cmocka_unit_test(no_address_at_all),
        cmocka_unit_test(a_port_of_flags_is_that_port),
        cmocka_unit_test(a_port_of_launchers_is_a_wish),
        cmocka_unit_test(two_runs_with_one_port),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
