/* Tests of strangers who come to rank 0's port: port scanners, garbage, silence.  Ranks must get in all the same. */
/* rooms: base dist */
#include "test_control.h"

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

/* They come while rank 0 waits; the ranks come after them, and are in within `limit` s. */
static void in_spite_of(void (*strangers)(int port), double limit)
{
    job j = job_make(4);
    j.options.token = "right";
    job_start(&j, 0, meets);
    close(job_reach_port(j.port));
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
    const int fd = job_reach_port(port);
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
    close(job_reach_port(port));
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
        silent[i] = job_reach_port(port);
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
            fd[i] = job_reach_port(port);
        for (;;) {
            for (int i = 0; i < 32; i++) {
                const bool gone = k == 1 || send(fd[i], "\x08", 1, MSG_NOSIGNAL) != 1;
                if (!gone) continue;
                close(fd[i]);
                fd[i] = job_reach_port(port);
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

/* One byte a second keeps nobody in: the limit is for all of a HELLO. */
static void a_guest_that_dawdles_is_shown_out(void **state)
{
    (void)state;
    job j = job_make(2);
    job_start(&j, 0, meets);
    const int fd = job_reach_port(j.port);
    const double begin = job_clock();
    while (job_clock() < begin + JOB_LIMIT && send(fd, "\x08", 1, MSG_NOSIGNAL) == 1)
        job_sleep(1);
    const double took = job_clock() - begin;
    assert_true(took > 4 && took < 10);
    close(fd);
    job_start(&j, 1, meets);
    expect_all(&j, CUDPO_OK, "");
    job_free(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_are_not_in_the_way),
        cmocka_unit_test(a_guest_that_dawdles_is_shown_out),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
