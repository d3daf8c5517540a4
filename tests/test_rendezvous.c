/* Tests of how ranks find one another: what is turned away, what is waited for, and strangers who must not be in the way. */
/* rooms: base dist */
#include "test_control.h"
#include "dist/company.h"

#include <errno.h>
#include <sys/resource.h>

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

/* A connection to rank 0, once it listens. */
static int reach(int port)
{
    const double limit = job_clock() + JOB_LIMIT;
    const struct sockaddr_in a = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (;;) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_true(fd >= 0);
        if (connect(fd, (const struct sockaddr *)&a, sizeof a) == 0) return fd;
        close(fd);
        assert_true(job_clock() < limit);
        job_sleep(0.005);
    }
}

/* Wait until the other end closes. */
static void wait_for_close(int fd)
{
    char bytes[256];
    const struct timeval limit = {.tv_sec = JOB_LIMIT};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t n;
    do
        n = recv(fd, bytes, sizeof bytes, 0);
    while (n > 0);
    if (n < 0 && errno != ECONNRESET) fail_msg("it does not close: %s", strerror(errno));
    close(fd);
}

/* Wait for a frame of this type. */
static void hear(wire *w, wire_type type)
{
    wire_flush(w);
    assert_int_equal(wire_wait(w, wire_clock() + JOB_LIMIT), WIRE_FRAME);
    assert_int_equal(w->type, type);
}

static handshake_self known_by(const char *token, int rank, int size)
{
    return (handshake_self){.run_id = "run",
                            .build = "test",
                            .token = (const uint8_t *)token,
                            .token_size = strlen(token),
                            .rank = rank,
                            .size = size};
}

/* The test itself is a rank whom rank 0 has accepted. */
static void join_as(wire *w, handshake_nonces *nonces, int port, const handshake_self *self)
{
    double seconds;
    wire_open(w, reach(port));
    hear(w, WIRE_CHALLENGE);
    assert_true(handshake_hello(w, nonces, self));
    hear(w, WIRE_ACCEPTED);
    assert_true(handshake_check_accepted(w, nonces, self, &seconds));
    assert_true(seconds > 0 && seconds <= 20);
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
    hear(w, WIRE_HELLO);
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
    const handshake_self self = known_by("", 0, 3);
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
    const handshake_self self = known_by("", 1, 3);
    (void)state;
    job j = job_make(3);
    job_start(&j, 0, meets);
    join_as(&w, &nonces, j.port, &self);
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
    job_start(&j, 1, meets);
    job_expect(&j, 1, CUDPO_ERENDEZVOUS, text);
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
    const handshake_self self = known_by("wrong", 0, 2);
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
    const handshake_self self = known_by("right", 1, 3);
    char why[HANDSHAKE_TEXT];
    (void)state;
    job j = job_make(3);
    j.options.token = "right";
    job_start(&j, 0, meets);
    for (int i = 0; i < 2; i++) {
        wire_open(&w[i], reach(j.port));
        hear(&w[i], WIRE_CHALLENGE);
    }
    assert_true(handshake_hello(&w[0], &nonces, &self));
    const buffer hello = w[0].urgent; /* as it goes over the wire */
    assert_int_equal(send(w[1].fd, hello.data, hello.size, 0), hello.size);
    hear(&w[1], WIRE_REFUSED);
    assert_int_equal(handshake_read_refusal(&w[1], why), HANDSHAKE_FOREIGN);
    hear(&w[0], WIRE_ACCEPTED);
    for (int i = 0; i < 2; i++)
        wire_close(&w[i]);
    job_free(&j);
}

/* A rank of the run that then talks nonsense ends it with its name, and nothing worse. */
static void a_rank_that_talks_nonsense(void **state)
{
    uint8_t zeros[64] = {0}, large[64] = {0};
    large[0] = COMPANY_COLLECT;
    memset(large + 8, 0x7f, 16); /* bytes */
    const struct {
        wire_type type;
        size_t n;
        const void *data;
        const char *text;
    } cases[] = {
        {WIRE_GIVE, 5, zeros, "rank 1 gives what makes no sense"},
        {WIRE_GIVE, 32, large, "rank 1 gives what makes no sense"},
        {WIRE_TAKE, 32, zeros, "rank 1 sends what makes no sense"},
        {WIRE_HELLO, 32, zeros, "rank 1 sends what makes no sense"},
        {WIRE_ABORT, 32, zeros, "rank 1 was lost: it failed and did not say why"},
        {WIRE_DATA, 32, zeros, "rank 1 was lost: its connection broke: Protocol error"},
        {WIRE_BEAT, 3, zeros, "rank 1 was lost: it closed its connection"}, /* no harm in itself */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wire w;
        handshake_nonces nonces;
        uint8_t secret[CONTROL_SECRET];
        char address[HANDSHAKE_ADDRESS];
        const handshake_self self = known_by("", 1, 2);
        job j = job_make(2);
        job_start(&j, 0, meets);
        join_as(&w, &nonces, j.port, &self);
        hear(&w, WIRE_WELCOME);
        assert_true(handshake_check_welcome(&w, &nonces, &self, secret, address));
        assert_true(wire_send(&w, cases[i].type, 1, cases[i].data, cases[i].n));
        wire_flush(&w);
        /* Rank 0 says why before it goes; of a heartbeat it says nothing. */
        while (cases[i].type != WIRE_BEAT && wire_wait(&w, wire_clock() + JOB_LIMIT) == WIRE_FRAME &&
               w.type != WIRE_ABORT)
            continue;
        wire_close(&w);
        job_expect(&j, 0, CUDPO_EPEER, cases[i].text);
        job_free(&j);
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
    unsetenv("PMIX_NAMESPACE");
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

/* torchrun's own store has the port: it says nothing, and ranks don't even try it. */
static void the_store_of_torchrun(void **state)
{
    (void)state;
    job j = job_make(3);
    const int taken = job_listen(&j.port);
    assert_int_equal(listen(taken, 8), 0);
    for (int r = 0; r < 3; r++) {
        j.place[r].launcher = LAUNCHER_TORCHRUN;
        j.place[r].port = j.port;
    }
    setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
    const double begin = job_clock();
    job_start_all(&j, meets);
    expect_all(&j, CUDPO_OK, "");
    assert_true(job_clock() - begin < 4); /* less than anybody waits for a stranger to speak */
    unsetenv("TORCHELASTIC_USE_AGENT_STORE");
    job_start_all(&j, meets); /* now they try it, and find that it is not rank 0 */
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
    close(reach(j[0].port));
    job_start_all(&j[1], meets);
    expect_all(&j[1], CUDPO_OK, "");
    job_start(&j[0], 1, meets);
    job_start(&j[0], 2, meets);
    expect_all(&j[0], CUDPO_OK, "");
    job_free(&j[0]);
    job_free(&j[1]);
}

/* ---- strangers ---- */

/* They come while rank 0 waits; the ranks come after them, and are in within `limit` s. */
static void in_spite_of(void (*strangers)(int port), double limit)
{
    job j = job_make(4);
    j.options.token = "right";
    job_start(&j, 0, meets);
    close(reach(j.port));
    strangers(j.port);
    const double begin = job_clock();
    for (int r = 1; r < 4; r++)
        job_start(&j, r, meets);
    expect_all(&j, CUDPO_OK, "");
    const double took = job_clock() - begin;
    if (!(took < limit)) fail_msg("ranks came in after %.1f s", took);
    job_free(&j);
}

static void say_and_wait(int port, const char *what, size_t n)
{
    const int fd = reach(port);
    const struct timeval limit = {.tv_sec = JOB_LIMIT};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    while (n > 0) {
        const ssize_t sent = send(fd, what, n, MSG_NOSIGNAL);
        if (sent <= 0) break; /* it was thrown out in the middle */
        what += sent;
        n -= (size_t)sent;
    }
    wait_for_close(fd);
}

static void scanners(int port)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static const char hello[] =
        "\x08\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0nonsense";                  /* head of a HELLO */
    static const char data[] = "\xff\xff\0\0\x09\0\0\0\0\0\0\0\0\0\0\0"; /* of a DATA */
    char *megabyte = malloc(1 << 20);
    uint32_t x = 1;
    for (int i = 0; i < 1 << 20; i++)
        megabyte[i] = (char)((x = x * 1664525 + 1013904223) >> 24);
    close(reach(port));
    say_and_wait(port, http, sizeof http - 1);
    say_and_wait(port, hello, sizeof hello - 1);
    say_and_wait(port, data, sizeof data - 1);
    say_and_wait(port, megabyte, 1 << 20);
    memset(megabyte, 0, 1 << 20);
    say_and_wait(port, megabyte, 1 << 20);
    memset(megabyte, 0xff, 1 << 20);
    say_and_wait(port, megabyte, 1 << 20);
    free(megabyte);
}

static int silent[1000];
static void thousand_half_open(int port)
{
    for (int i = 0; i < 1000; i++)
        silent[i] = reach(port);
}

/* A child that sends one byte of a HELLO's head every 0.1 s, over 32 connections that it opens again when they are closed; another
 * one opens and closes as fast as it can. */
static pid_t children[2];
static void slow_and_hasty(int port)
{
    for (int k = 0; k < 2; k++) {
        fflush(stdout);
        children[k] = fork();
        if (children[k] > 0) continue;
        alarm(JOB_LIMIT);
        int fd[32];
        for (int i = 0; i < 32; i++)
            fd[i] = reach(port);
        for (;;) {
            for (int i = 0; i < 32; i++) {
                const bool gone = k == 1 || send(fd[i], "\x08", 1, MSG_NOSIGNAL) != 1;
                if (!gone) continue;
                close(fd[i]);
                fd[i] = reach(port);
            }
            if (k == 0) job_sleep(0.1);
        }
    }
    job_sleep(0.2);
}

static void strangers_are_not_in_the_way(void **state)
{
    struct rlimit l;
    (void)state;
    in_spite_of(scanners, 5);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
    l.rlim_cur = l.rlim_max < 2048 ? l.rlim_max : 2048;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
    in_spite_of(thousand_half_open, 10);
    for (int i = 0; i < 1000; i++)
        close(silent[i]);
    in_spite_of(slow_and_hasty, 20);
    for (int k = 0; k < 2; k++) {
        kill(children[k], SIGKILL);
        waitpid(children[k], NULL, 0);
    }
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
        cmocka_unit_test(a_rank_that_talks_nonsense),
        cmocka_unit_test(others_need_a_token),
        cmocka_unit_test(ranks_of_one_node_need_no_address),
        cmocka_unit_test(ipv6_and_names),
        cmocka_unit_test(no_address_at_all),
        cmocka_unit_test(a_port_of_flags_is_that_port),
        cmocka_unit_test(the_store_of_torchrun),
        cmocka_unit_test(two_runs_with_one_port),
        cmocka_unit_test(strangers_are_not_in_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
