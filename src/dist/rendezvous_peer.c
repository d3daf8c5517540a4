/* rendezvous_peer.c - a rank looks for rank 0, which may start later or be at any of several addresses. */
#include "dist/rendezvous.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const double patience = 5;     /* s for each word of rank 0 */
static const double look_every = 0.2; /* s between two looks at whether to stop */

typedef enum attempt {
    JOINED,
    NOBODY,   /* try again soon */
    STRANGER, /* somebody else is there: not so soon */
    REFUSED   /* for good */
} attempt;

typedef struct search {
    const handshake_self *self;
    const rendezvous_target *target;
    double deadline;
    bool (*stopped)(void);          /* or NULL */
    double rest[TARGET_PORTS];      /* not before then: somebody else has the port */
    char why[HANDSHAKE_TEXT + 128]; /* the last attempt came to nothing */
} search;

static int connect_within(const struct addrinfo *a, double deadline)
{
    int why = 0;
    const int one = 1;
    socklen_t size = sizeof why;
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    why = errno;
    while (why == EINPROGRESS || why == EINTR) {
        const double left = deadline - wire_clock();
        const int ready = left <= 0 ? 0 : poll(&p, 1, (int)(left * 1e3) + 1);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0)
            why = ETIMEDOUT;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) != 0)
            why = errno;
        else if (why == 0)
            return fd;
    }
    close(fd);
    errno = why;
    return -1;
}

static bool is_stopped(const search *s)
{
    return s->stopped != NULL && s->stopped();
}

static double soon(const search *s)
{
    const double t = wire_clock() + patience;
    return t < s->deadline ? t : s->deadline;
}

/* The next word of rank 0. */
static wire_event hear(const search *s, wire *w, double until)
{
    for (;;) {
        const double look = wire_clock() + look_every;
        const wire_event e = wire_wait(w, look < until ? look : until);
        if (e != WIRE_NOTHING || wire_clock() >= until || is_stopped(s)) return e;
    }
}

/* The answer to HELLO, or to waiting, is not what was hoped for. */
static attempt read_no(search *s, const wire *w, const handshake_nonces *nonces, wire_event e,
                       const char *at)
{
    char why[HANDSHAKE_TEXT];
    const int error = errno;
    if (e == WIRE_FRAME) {
        const handshake_verdict v = handshake_read_refusal(w, nonces, s->self, why);
        if (v == HANDSHAKE_NONSENSE)
            snprintf(s->why, sizeof s->why, "%s: what is there does not know this run's token", at);
        else
            snprintf(s->why, sizeof s->why, "%s: rank 0 says: %s", at, why);
        if (v == HANDSHAKE_WRONG) return REFUSED;
        return v == HANDSHAKE_FOREIGN && s->target->ports == 1 ? REFUSED : STRANGER;
    }
    snprintf(s->why, sizeof s->why, "%s: %s", at,
             e == WIRE_CLOSED    ? "it closes the connection"
             : e == WIRE_NOTHING ? "something is there, but it does not answer"
             : error == EPROTO   ? "what is there is no cudpo"
                                 : strerror(error));
    return e == WIRE_CLOSED || (e == WIRE_BROKEN && error != EPROTO) ? NOBODY : STRANGER;
}

/* Accepted: wait for the others to come. */
static attempt wait_for_all(search *s, rendezvous_links *out, wire *w,
                            const handshake_nonces *nonces, double seconds, const char *at)
{
    char hub[HANDSHAKE_ADDRESS];
    bool loopback;
    /* Rank 0's patience counts from when it began to listen; it says more on leaving than this rank could. */
    const wire_event e = hear(s, w, wire_clock() + seconds + patience);
    if (e == WIRE_FRAME && handshake_check_welcome(w, nonces, s->self, out->secret, hub)) {
        address_of_socket(out->address, w->fd, &loopback);
        /* On rank 0's host, others find this rank where they find rank 0. */
        if (loopback) memcpy(out->address, hub, sizeof out->address);
        return JOINED;
    }
    if (e == WIRE_FRAME) return read_no(s, w, nonces, e, at);
    snprintf(s->why, sizeof s->why, "%s: rank 0 was there and %s before all ranks had come", at,
             e == WIRE_NOTHING ? "says nothing more" : "went away");
    return REFUSED;
}

static attempt talk(search *s, rendezvous_links *out, wire *w, const char *at)
{
    handshake_nonces nonces = {{0}, {0}};
    double seconds;
    wire_event e = hear(s, w, soon(s));
    if (e != WIRE_FRAME) return read_no(s, w, &nonces, e, at);
    if (!handshake_hello(w, &nonces, s->self)) {
        snprintf(s->why, sizeof s->why, "%s: what is there is no cudpo of this version", at);
        return STRANGER;
    }
    wire_flush(w);
    e = hear(s, w, soon(s));
    if (e != WIRE_FRAME || !handshake_check_accepted(w, &nonces, s->self, &seconds))
        return read_no(s, w, &nonces, e, at);
    return wait_for_all(s, out, w, &nonces, seconds, at);
}

static attempt try_address(search *s, rendezvous_links *out, const struct addrinfo *a, int32_t port)
{
    char address[HANDSHAKE_ADDRESS], at[HANDSHAKE_ADDRESS + 16];
    address_text(address, a->ai_addr);
    snprintf(at, sizeof at, a->ai_family == AF_INET6 ? "[%s]:%d" : "%s:%d", address, (int)port);
    const int fd = connect_within(a, soon(s));
    if (fd < 0) {
        snprintf(s->why, sizeof s->why, "%s: %s", at, strerror(errno));
        return NOBODY;
    }
    wire *w = malloc(sizeof *w);
    if (w == NULL) {
        close(fd);
        snprintf(s->why, sizeof s->why, "memory ran out");
        return REFUSED;
    }
    wire_open(w, fd);
    const attempt got = talk(s, out, w, at);
    if (got == JOINED) {
        out->wires = w;
    } else {
        wire_close(w);
        free(w);
    }
    return got;
}

/* All addresses of a host on one port. */
static attempt try_host(search *s, rendezvous_links *out, const char *host, int port)
{
    struct addrinfo *all;
    attempt got = NOBODY;
    const int e = address_find(&all, host, s->target->port[port]);
    if (e != 0) {
        snprintf(s->why, sizeof s->why, "%s: %s", host, gai_strerror(e));
        return NOBODY;
    }
    for (const struct addrinfo *a = all; a != NULL && got != JOINED && got != REFUSED;
         a = a->ai_next) {
        if (!s->target->open && !address_is_loopback(a->ai_addr)) {
            snprintf(s->why, sizeof s->why, "%s is not on this host: " RENDEZVOUS_ASK, host);
            got = REFUSED;
        } else {
            got = try_address(s, out, a, s->target->port[port]);
        }
        if (got == STRANGER) s->rest[port] = wire_clock() + patience;
    }
    freeaddrinfo(all);
    return got;
}

static attempt try_all(search *s, rendezvous_links *out)
{
    attempt got = NOBODY;
    for (int p = 0; p < s->target->ports; p++) {
        if (wire_clock() < s->rest[p]) continue;
        for (int h = 0; h < s->target->hosts; h++) {
            got = try_host(s, out, s->target->host[h], p);
            if (got == JOINED || got == REFUSED) return got;
        }
    }
    return got;
}

cudpo_status rendezvous_join(rendezvous_links *out, const rendezvous_target *target,
                             const handshake_self *self, double seconds, bool (*stopped)(void))
{
    search s = {
        .self = self, .target = target, .deadline = wire_clock() + seconds, .stopped = stopped};
    double pause = 0.01;
    for (;;) {
        const attempt got = try_all(&s, out);
        if (got == JOINED) return CUDPO_OK;
        if (is_stopped(&s)) return cudpo_fail(CUDPO_ESTOPPED, "rank 0", RENDEZVOUS_STOPPED);
        if (got == REFUSED) return cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0", "%s", s.why);
        if (wire_clock() + pause > s.deadline) break;
        const struct timespec t = {.tv_nsec = (long)(pause * 1e9)};
        nanosleep(&t, NULL);
        pause = pause < 0.25 ? 2 * pause : 0.25;
    }
    return cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0", "was not reached within %g s; %s", seconds,
                      s.why);
}
