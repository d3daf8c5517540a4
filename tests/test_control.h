/* test_control.h - real processes that form a company: forked before any thread is there, each with an alarm so that none outlives
 * a test, and with a page that they share with the test. */
#ifndef CUDPO_TESTS_TEST_CONTROL_H
#define CUDPO_TESTS_TEST_CONTROL_H

#include "scratch.h"
#include "dist/company.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { JOB_RANKS = 32, JOB_LIMIT = 30 };

/* What a rank left for the test. */
typedef struct job_page {
    atomic_int ready; /* ranks that are as far as the test wants them */
    atomic_int go;    /* the test lets them go on */
    struct {
        atomic_int status; /* cudpo_status; -1: none */
        double noticed;    /* when, by the monotonic clock */
        char message[1024];
        char extra[128];
    } rank[JOB_RANKS];
} job_page;

typedef struct job {
    int size;
    int port;
    control_options options;
    job_page *page;
    pid_t pid[JOB_RANKS];
    placement place[JOB_RANKS];
} job;

/* What a rank does; its status goes on the page. */
typedef cudpo_status (*job_part)(control *c, job *j, int rank);

static inline double job_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void job_sleep(double seconds)
{
    const struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

/* Wait until *what is at least `value`; false after JOB_LIMIT s. */
static inline bool job_reach(const atomic_int *what, int value)
{
    const double limit = job_clock() + JOB_LIMIT;
    while (atomic_load(what) < value) {
        if (job_clock() > limit) return false;
        job_sleep(0.0005);
    }
    return true;
}

/* A socket at a loopback port that was free. */
static inline int job_listen(int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static inline job job_make(int size)
{
    job j = {.size = size};
    close(job_listen(&j.port));
    const char *path = scratch_path("page");
    unlink(path);
    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, sizeof *j.page) == 0);
    j.page = mmap(NULL, sizeof *j.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(j.page != MAP_FAILED);
    close(fd);
    j.options =
        (control_options){.build = "test", .join_timeout = 20, .peer_timeout = 20, .grace = 20};
    for (int r = 0; r < size; r++) {
        placement *p = &j.place[r];
        *p = (placement){
            .launcher = LAUNCHER_FLAGS, .rank = r, .size = size, .port = j.port, .node = -1};
        snprintf(p->address, sizeof p->address, "127.0.0.1");
        snprintf(p->run_id, sizeof p->run_id, "run");
        atomic_store(&j.page->rank[r].status, -1);
    }
    return j;
}

static inline void job_note(job *j, int rank, cudpo_status s)
{
    j->page->rank[rank].noticed = job_clock();
    snprintf(j->page->rank[rank].message, sizeof j->page->rank[rank].message, "%s",
             s == CUDPO_OK ? "" : cudpo_error_message());
    atomic_store(&j->page->rank[rank].status, (int)s);
}

/* Start one rank: it joins, plays its part, closes and exits with the program's status for what came of it. */
static inline void job_start(job *j, int rank, job_part part)
{
    fflush(stdout);
    fflush(stderr);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) {
        j->pid[rank] = pid;
        return;
    }
    control *c;
    alarm(JOB_LIMIT + 10);
    control_options o = j->options;
    o.place = &j->place[rank];
    cudpo_status s = control_open(&c, &o);
    if (s == CUDPO_OK) s = part(c, j, rank);
    job_note(j, rank, s);
    control_close(c);
    _exit(cudpo_exit_code(s));
}

static inline void job_start_all(job *j, job_part part)
{
    for (int r = 0; r < j->size; r++)
        job_start(j, r, part);
}

/* How a rank ended: its exit status, or 128 and the signal; fails after the limit. */
static inline int job_end(job *j, int rank)
{
    const double limit = job_clock() + JOB_LIMIT;
    int status;
    for (;;) {
        const pid_t got = waitpid(j->pid[rank], &status, WNOHANG);
        if (got == j->pid[rank]) break;
        if (got < 0 || job_clock() > limit) {
            for (int r = 0; r < j->size; r++)
                if (j->pid[r] > 0) kill(j->pid[r], SIGKILL);
            fail_msg("rank %d does not end", rank);
        }
        job_sleep(0.001);
    }
    j->pid[rank] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void job_free(job *j)
{
    for (int r = 0; r < j->size; r++)
        if (j->pid[r] > 0) {
            kill(j->pid[r], SIGKILL);
            waitpid(j->pid[r], NULL, 0);
        }
    munmap(j->page, sizeof *j->page);
}

/* A rank ended with this status and its message holds this. */
static inline void job_expect(job *j, int rank, cudpo_status want, const char *text)
{
    const int end = job_end(j, rank), got = atomic_load(&j->page->rank[rank].status);
    const char *message = j->page->rank[rank].message;
    if (got != (int)want || end != cudpo_exit_code(want) || strstr(message, text) == NULL)
        fail_msg("rank %d: status %d, exit %d, \"%s\"; wanted %d, \"%s\"", rank, got, end, message,
                 (int)want, text);
}

/* The rank is where the test wants it; then it waits for the company's end, and reports that. */
static inline cudpo_status job_wait_for_failure(control *c, job *j)
{
    const double limit = job_clock() + JOB_LIMIT;
    atomic_fetch_add(&j->page->ready, 1);
    while (control_status(c) == CUDPO_OK && job_clock() < limit)
        job_sleep(0.0005);
    return control_status(c);
}

/* ---- the test itself is a rank ---- */

/* A connection to rank 0, once it listens. */
static inline int job_reach_port(int port)
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

/* Wait for a frame of this type. */
static inline void job_hear(wire *w, wire_type type)
{
    wire_flush(w);
    assert_int_equal(wire_wait(w, wire_clock() + JOB_LIMIT), WIRE_FRAME);
    assert_int_equal(w->type, type);
}

static inline handshake_self job_known_by(const char *token, int rank, int size)
{
    return (handshake_self){.run_id = "run",
                            .build = "test",
                            .token = (const uint8_t *)token,
                            .token_size = strlen(token),
                            .rank = rank,
                            .size = size};
}

/* The test itself is a rank whom rank 0 has accepted. */
static inline void job_join_as(wire *w, handshake_nonces *nonces, int port,
                               const handshake_self *self)
{
    double seconds;
    wire_open(w, job_reach_port(port));
    job_hear(w, WIRE_CHALLENGE);
    assert_true(handshake_hello(w, nonces, self));
    job_hear(w, WIRE_ACCEPTED);
    assert_true(handshake_check_accepted(w, nonces, self, &seconds));
    assert_true(seconds > 0 && seconds <= 20);
}

#endif /* CUDPO_TESTS_TEST_CONTROL_H */
