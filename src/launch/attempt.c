/* attempt.c - waits for output, signals, ends of ranks and deadlines in one loop. */
#include "launch/attempt.h"
#include "base/log.h"
#include "launch/forward.h"
#include "launch/rank.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum { KILL_AFTER = 10, SAVED = 75, PEER_LOST = 69 }; /* s; exit statuses of cudpo */

typedef struct attempt {
    const attempt_plan *plan;
    rank *ranks;      /* [n] */
    int64_t n, alive; /* of this node */
    struct pollfd *watched;
    const rank *cause; /* which failed first; NULL: none yet */
    int told;          /* 0; SIGTERM, SIGKILL: what those left were sent last */
    double deadline;   /* of what they are sent next */
} attempt;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void send_all(attempt *a, int number)
{
    for (int64_t i = 0; i < a->n; i++) {
        if (a->ranks[i].pid <= 0) continue;
        a->ranks[i].made_to = true;
        kill(-a->ranks[i].pid, number);
    }
    a->told = number;
}

/* One that ended by itself, in the order in which they did.  Those that stopped or came to their end are no failure: the
 * others may still be saving, for as long as that takes. */
static void judge(attempt *a, const rank *r)
{
    if (r->status == 0 || r->status == SAVED || r->made_to) return;
    /* A peer that was lost is seldom the reason. */
    const bool first = a->cause == NULL;
    if (!first && (a->cause->status != PEER_LOST || r->status == PEER_LOST)) return;
    a->cause = r;
    if (first) a->deadline = now() + a->plan->grace;
    if (r->status > 128)
        log_warn("rank %lld was ended by signal %d (%s)", (long long)r->index, r->status - 128,
                 strsignal(r->status - 128));
    else
        log_warn("rank %lld ended with status %d", (long long)r->index, r->status);
}

/* Wait for all that have ended: ranks, and orphans that came to this process where it is the first of a container. */
static void reap(attempt *a)
{
    for (;;) {
        siginfo_t info = {0};
        const int found = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
        if (found < 0 && errno == EINTR) continue;
        if (found < 0 || info.si_pid == 0) return;
        int64_t i = 0;
        while (i < a->n && a->ranks[i].pid != info.si_pid)
            i++;
        if (i == a->n) {
            waitpid(info.si_pid, NULL, WNOHANG);
            continue;
        }
        rank_end(&a->ranks[i], &a->plan->groups[i]);
        a->alive--;
        judge(a, &a->ranks[i]);
    }
}

/* Those that do not notice by themselves that the run has failed are told. */
static void press(attempt *a)
{
    if (a->cause == NULL || a->told == SIGKILL || a->alive == 0 || now() < a->deadline) return;
    log_warn("%lld %s still running: sending %s", (long long)a->alive,
             a->alive == 1 ? "rank is" : "ranks are", a->told == 0 ? "SIGTERM" : "SIGKILL");
    send_all(a, a->told == 0 ? SIGTERM : SIGKILL);
    a->deadline = now() + KILL_AFTER;
}

/* Until something happens. */
static void wait_for(attempt *a)
{
    int timeout = -1;
    if (a->cause != NULL && a->told != SIGKILL) {
        const double left = a->deadline - now();
        timeout = left <= 0.0 ? 0 : left > 3600.0 ? 3600000 : (int)(left * 1e3) + 1;
    }
    a->watched[0] = (struct pollfd){.fd = a->plan->wake, .events = POLLIN};
    for (int64_t i = 0; i < a->n; i++) { /* poll() passes over those that are -1 */
        a->watched[1 + 2 * i] = (struct pollfd){.fd = a->ranks[i].out.from, .events = POLLIN};
        a->watched[2 + 2 * i] = (struct pollfd){.fd = a->ranks[i].err.from, .events = POLLIN};
    }
    if (poll(a->watched, (nfds_t)(1 + 2 * a->n), timeout) <= 0) return;
    for (int64_t i = 0; i < a->n; i++) {
        if (a->watched[1 + 2 * i].revents != 0) lines_move(&a->ranks[i].out);
        if (a->watched[2 + 2 * i].revents != 0) lines_move(&a->ranks[i].err);
    }
}

static cudpo_status start_all(attempt *a)
{
    forward_hold(); /* a signal reaches all of them or none */
    cudpo_status status = CUDPO_OK;
    if (forward_stopped())
        status = cudpo_fail(CUDPO_ESTOPPED, "launch", "stopped before ranks were started");
    for (int64_t i = 0; i < a->n && status == CUDPO_OK; i++) {
        status = rank_start(&a->ranks[i], a->plan, i);
        a->plan->groups[i] = a->ranks[i].pid;
        a->alive += status == CUDPO_OK;
    }
    if (status != CUDPO_OK) send_all(a, SIGKILL);
    forward_release();
    return status;
}

static int result(const attempt *a)
{
    if (a->cause != NULL) return a->cause->status;
    for (int64_t i = 0; i < a->n; i++)
        if (a->ranks[i].status == SAVED) return SAVED;
    return 0;
}

cudpo_status attempt_run(int *exit_status, const attempt_plan *p)
{
    attempt a = {.plan = p, .n = p->where->ranks};
    a.ranks = calloc((size_t)a.n, sizeof *a.ranks);
    a.watched = calloc(1 + 2 * (size_t)a.n, sizeof *a.watched);
    cudpo_status status = CUDPO_OK;
    if (a.ranks == NULL || a.watched == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, "launch", "%lld ranks", (long long)a.n);
    if (status == CUDPO_OK) status = start_all(&a);
    while (a.alive > 0) {
        wait_for(&a);
        forward_awake();
        reap(&a);
        press(&a);
    }
    if (status == CUDPO_OK) *exit_status = result(&a);
    free(a.watched);
    free(a.ranks);
    return status;
}
