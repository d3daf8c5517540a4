/* tcp_ring.c - every rank listens on a free port and tells the others through the control plane which it is. */
#include "dist/tcp_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ADDRESS = 64,
    LOOK_MS = 100,        /* how often a wait looks at the company */
    CONNECT_SECONDS = 60, /* all have joined already */
    STRANGER_SECONDS = 5, /* that a connection has to say who it is */
    STRANGERS = 16        /* that may be heard at the same time */
};

/* Where a rank listens. */
typedef struct endpoint {
    char address[ADDRESS];
    int32_t port;
} endpoint;

/* Proof of being a rank of this run. */
typedef struct greeting {
    unsigned char mac[crypto_auth_BYTES];
} greeting;

static greeting greeting_of(const control *company, int32_t rank)
{
    char text[40];
    greeting g;
    _Static_assert(crypto_auth_KEYBYTES == CONTROL_SECRET, "the secret is a key");
    const int n = snprintf(text, sizeof text, "cudpo ring %d", (int)rank);
    crypto_auth(g.mac, (const unsigned char *)text, (unsigned long long)n, control_secret(company));
    return g;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* In: port  0: a free one. */
static cudpo_status resolve(struct addrinfo **out, const char *address, int32_t port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    char service[16];
    snprintf(service, sizeof service, "%d", (int)port);
    const int error = getaddrinfo(address, service, &hints, out);
    if (error == 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_EPEER, address, "is no address: %s", gai_strerror(error));
}

static bool make_nonblocking(int s)
{
    const int one = 1;
    (void)setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* it is slower without */
    return fcntl(s, F_SETFL, fcntl(s, F_GETFL) | O_NONBLOCK) == 0 &&
           fcntl(s, F_SETFD, FD_CLOEXEC) == 0;
}

static cudpo_status fail_here(const char *what, int socket)
{
    const int error = errno;
    if (socket >= 0) close(socket);
    return cudpo_fail(CUDPO_EPEER, CUDPO_HERE, "can't %s: %s", what, strerror(error));
}

static cudpo_status listen_here(int *out, endpoint *mine, const char *address)
{
    struct addrinfo *a = NULL;
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    *mine = (endpoint){.port = 0};
    snprintf(mine->address, sizeof mine->address, "%s", address);
    CUDPO_TRY(resolve(&a, address, 0));
    const int s = socket(a->ai_family, SOCK_STREAM, 0);
    const bool ready = s >= 0 && make_nonblocking(s) && bind(s, a->ai_addr, a->ai_addrlen) == 0 &&
                       listen(s, STRANGERS) == 0 &&
                       getsockname(s, (struct sockaddr *)&bound, &n) == 0;
    freeaddrinfo(a);
    if (!ready) return fail_here("listen", s);
    mine->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                   : ((struct sockaddr_in *)&bound)->sin_port);
    *out = s;
    return CUDPO_OK;
}

/* Wait for an event of one socket. */
static cudpo_status wait_for(const control *company, int s, short events, double deadline,
                             int32_t rank)
{
    for (;;) {
        struct pollfd fd = {.fd = s, .events = events};
        const int n = poll(&fd, 1, LOOK_MS);
        CUDPO_TRY(control_status(company));
        if (n > 0) return CUDPO_OK;
        if (now() > deadline)
            return cudpo_fail(CUDPO_EPEER, CUDPO_HERE, "rank %d does not answer", (int)rank);
    }
}

static cudpo_status connect_to(int *out, const control *company, const endpoint *e, int32_t rank,
                               int32_t own_rank)
{
    struct addrinfo *a = NULL;
    int error = 0;
    socklen_t n = sizeof error;
    CUDPO_TRY(resolve(&a, e->address, e->port));
    const int s = socket(a->ai_family, SOCK_STREAM, 0);
    const bool begun = s >= 0 && make_nonblocking(s) &&
                       (connect(s, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS);
    freeaddrinfo(a);
    if (!begun) return fail_here("connect to the next rank", s);
    *out = s; /* the caller's, also where this fails */
    CUDPO_TRY(wait_for(company, s, POLLOUT, now() + CONNECT_SECONDS, rank));
    if (getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &n) != 0 || error != 0)
        return cudpo_fail(CUDPO_EPEER, e->address, "can't connect to rank %d at port %d: %s",
                          (int)rank, (int)e->port, strerror(error));
    const greeting g = greeting_of(company, own_rank);
    if (send(s, &g, sizeof g, MSG_NOSIGNAL) != (ssize_t)sizeof g) /* the first bytes always fit */
        return cudpo_fail(CUDPO_EPEER, e->address, "can't greet rank %d", (int)rank);
    return CUDPO_OK;
}

/* Somebody who has connected and not said who it is yet. */
typedef struct stranger {
    int socket; /* -1: none */
    size_t heard;
    double deadline;
    greeting said;
} stranger;

static void turn_away(stranger *s)
{
    if (s->socket >= 0) close(s->socket);
    s->socket = -1;
}

/* Read on.  Returns whether it is the one who is expected. */
static bool hear(stranger *s, const greeting *expected)
{
    const ssize_t n =
        recv(s->socket, (unsigned char *)&s->said + s->heard, sizeof s->said - s->heard, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
    if (n <= 0) {
        turn_away(s);
        return false;
    }
    s->heard += (size_t)n;
    if (s->heard < sizeof s->said) return false;
    if (sodium_memcmp(&s->said, expected, sizeof *expected) == 0) return true;
    turn_away(s);
    return false;
}

/* Where all places are taken the one goes that has said nothing for longest: a rank greets as it connects. */
static void welcome(stranger *list, int listener)
{
    const int s = accept(listener, NULL, NULL);
    int at = 0;
    if (s < 0) return;
    for (int i = 0; i < STRANGERS && list[at].socket >= 0; i++)
        if (list[i].socket < 0 || list[i].deadline < list[at].deadline) at = i;
    turn_away(&list[at]);
    list[at] = (stranger){.socket = s, .deadline = now() + STRANGER_SECONDS};
    if (!make_nonblocking(s)) turn_away(&list[at]);
}

static cudpo_status hear_all(int *out, stranger *list, const control *company, int listener,
                             int32_t rank)
{
    const greeting expected = greeting_of(company, rank);
    const double deadline = now() + CONNECT_SECONDS;
    while (*out < 0) {
        struct pollfd fds[STRANGERS + 1] = {{.fd = listener, .events = POLLIN}};
        for (int i = 0; i < STRANGERS; i++)
            fds[i + 1] = (struct pollfd){.fd = list[i].socket, .events = POLLIN};
        const int n = poll(fds, STRANGERS + 1, LOOK_MS);
        CUDPO_TRY(control_status(company));
        if (now() > deadline)
            return cudpo_fail(CUDPO_EPEER, CUDPO_HERE, "rank %d did not connect", (int)rank);
        for (int i = 0; i < STRANGERS && n > 0 && *out < 0; i++) {
            if (fds[i + 1].revents == 0 || !hear(&list[i], &expected)) continue;
            *out = list[i].socket;
            list[i].socket = -1;
        }
        for (int i = 0; i < STRANGERS; i++)
            if (list[i].socket >= 0 && now() > list[i].deadline) turn_away(&list[i]);
        if (n > 0 && fds[0].revents != 0) welcome(list, listener);
    }
    return CUDPO_OK;
}

/* The connection of the rank before, whoever else connects. */
static cudpo_status accept_from(int *out, const control *company, int listener, int32_t rank)
{
    stranger list[STRANGERS];
    for (int i = 0; i < STRANGERS; i++)
        list[i].socket = -1;
    const cudpo_status status = hear_all(out, list, company, listener, rank);
    for (int i = 0; i < STRANGERS; i++)
        turn_away(&list[i]);
    return status;
}

cudpo_status tcp_ring_connect(int *next, int *before, control *company, int32_t rank, int32_t size)
{
    int listener = -1;
    endpoint mine, *all = calloc((size_t)size, sizeof *all);
    *next = *before = -1;
    if (all == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)size);
    const int32_t after = (rank + 1) % size, previous = (rank + size - 1) % size;
    cudpo_status status = listen_here(&listener, &mine, control_address(company));
    if (status == CUDPO_OK)
        status = control_exchange(company, all, &mine, sizeof mine, "addresses of a ring");
    if (status == CUDPO_OK) {
        all[after].address[ADDRESS - 1] = '\0';
        status = connect_to(next, company, &all[after], after, rank);
    }
    if (status == CUDPO_OK) status = accept_from(before, company, listener, previous);
    if (listener >= 0) close(listener);
    free(all);
    if (status == CUDPO_OK) return status;
    if (*next >= 0) close(*next);
    if (*before >= 0) close(*before);
    *next = *before = -1;
    return status;
}
