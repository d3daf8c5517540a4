/* rendezvous_hub.c - rank 0 waits for the others.  Whoever connects is a guest until its HELLO is right, and is shown out after
 * a few seconds.  There are only so many guests; of too many the oldest goes, but not before a rank would have said HELLO, so
 * that strangers who sit and say nothing don't keep ranks out.  A rank that was shown out comes again. */
#include "dist/rendezvous.h"
#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SPARE_GUESTS = 16, WARNINGS = 8, SPARE_FILES = 64 };
static const double patience = 5;    /* s for a guest */
static const double at_least = 0.05; /* s for one of too many */

typedef struct guest {
    wire w;
    handshake_nonces nonces;
    double deadline;
    char from[HANDSHAKE_ADDRESS];
} guest;

typedef struct hub {
    const handshake_self *self;
    rendezvous_listener *listener;
    guest **guests; /* in order of arrival */
    int32_t n_guests, max_guests;
    wire *seats;              /* [size], by rank; fd < 0: has not come */
    handshake_nonces *nonces; /* [size] */
    int32_t seated;
    struct pollfd *polls; /* listeners, guests, seats */
    double deadline;
    bool (*stopped)(void); /* or NULL */
    int warnings;
} hub;

static void warn(hub *h, const char *from, const char *why)
{
    if (h->warnings < WARNINGS) log_warn("rank 0: turned away %s: %s", from, why);
    if (++h->warnings == WARNINGS) log_warn("rank 0: what else is turned away is not shown");
}

/* Close so that what was sent last arrives: unread input would make the system withdraw it. */
static void say_last(wire *w)
{
    wire_flush(w);
    if (w->fd >= 0) {
        shutdown(w->fd, SHUT_WR);
        (void)wire_drain(w);
    }
    wire_close(w);
}

static void remove_guest(hub *h, int32_t i)
{
    wire_close(&h->guests[i]->w);
    free(h->guests[i]);
    h->n_guests--;
    memmove(h->guests + i, h->guests + i + 1, (size_t)(h->n_guests - i) * sizeof *h->guests);
}

static bool has_room(const hub *h)
{
    return h->n_guests < h->max_guests ||
           wire_clock() > h->guests[0]->deadline - patience + at_least;
}

static void accept_guests(hub *h, int listener)
{
    const int one = 1;
    while (has_room(h)) {
        struct sockaddr_storage a = {0};
        socklen_t size = sizeof a;
        const int fd = accept(listener, (struct sockaddr *)&a, &size);
        if (fd < 0) return;
        if (h->n_guests == h->max_guests) remove_guest(h, 0);
        guest *g = malloc(sizeof *g);
        if (g == NULL) {
            close(fd);
            return;
        }
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        wire_open(&g->w, fd);
        g->deadline = wire_clock() + patience;
        address_text(g->from, (struct sockaddr *)&a);
        h->guests[h->n_guests++] = g;
        (void)handshake_challenge(&g->w, &g->nonces);
        wire_flush(&g->w);
    }
}

static bool is_seated(hub *h, int32_t rank)
{
    wire *w = &h->seats[rank];
    if (w->fd < 0) return false;
    if (wire_drain(w) == WIRE_NOTHING) return true;
    wire_close(w);
    h->seated--;
    return false;
}

/* A guest has said something; it is a guest no longer.  Fails where the run can't begin. */
static cudpo_status judge(hub *h, int32_t i)
{
    guest *g = h->guests[i];
    char why[HANDSHAKE_TEXT];
    int32_t rank = -1;
    const handshake_verdict v = handshake_check_hello(&g->w, &g->nonces, h->self, &rank, why);
    cudpo_status s = CUDPO_OK;
    if (v == HANDSHAKE_GOOD && is_seated(h, rank)) {
        snprintf(why, sizeof why, "two processes call themselves rank %d, the second at %s",
                 (int)rank, g->from);
        (void)handshake_refuse(&g->w, &g->nonces, h->self, HANDSHAKE_WRONG, why);
        say_last(&g->w);
        s = cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0", "%s", why);
    } else if (v == HANDSHAKE_GOOD) {
        (void)handshake_accept(&g->w, &g->nonces, h->self, h->deadline - wire_clock());
        wire_flush(&g->w);
        h->seats[rank] = g->w;
        h->nonces[rank] = g->nonces;
        h->seated++;
        g->w = (wire){.fd = -1};
    } else {
        warn(h, g->from, why);
        if (v != HANDSHAKE_NONSENSE) (void)handshake_refuse(&g->w, &g->nonces, h->self, v, why);
        say_last(&g->w);
    }
    remove_guest(h, i);
    return s;
}

static cudpo_status hear_guests(hub *h, const struct pollfd *polls)
{
    const double now = wire_clock();
    for (int32_t i = h->n_guests; i-- > 0;) { /* backwards: the list shrinks */
        const wire_event e = polls[i].revents != 0 ? wire_read(&h->guests[i]->w) : WIRE_NOTHING;
        if (e == WIRE_FRAME) {
            CUDPO_TRY(judge(h, i));
        } else if (e != WIRE_NOTHING || now > h->guests[i]->deadline) {
            if (e == WIRE_BROKEN && errno == EPROTO)
                warn(h, h->guests[i]->from, "it talks nonsense");
            if (e == WIRE_NOTHING) warn(h, h->guests[i]->from, "it said nothing whole in time");
            remove_guest(h, i);
        }
    }
    return CUDPO_OK;
}

static cudpo_status one_turn(hub *h)
{
    nfds_t n = 0;
    const bool room = has_room(h);
    for (int i = 0; i < 2; i++)
        h->polls[n++] = (struct pollfd){.fd = room ? h->listener->fd[i] : -1, .events = POLLIN};
    for (int32_t i = 0; i < h->n_guests; i++)
        h->polls[n++] = (struct pollfd){.fd = h->guests[i]->w.fd, .events = POLLIN};
    const nfds_t first_seat = n;
    for (int32_t r = 0; r < h->self->size; r++)
        h->polls[n++] = (struct pollfd){.fd = h->seats[r].fd, .events = POLLIN};
    if (poll(h->polls, n, room ? 200 : 10) <= 0)
        return hear_guests(h, h->polls + 2); /* revents are 0 */
    for (int32_t r = 0; r < h->self->size; r++)
        if (h->polls[first_seat + (nfds_t)r].revents != 0 && !is_seated(h, r))
            log_warn("rank 0: rank %d came and went", (int)r);
    CUDPO_TRY(hear_guests(h, h->polls + 2));
    for (int i = 0; i < 2; i++)
        if (h->polls[i].revents != 0) accept_guests(h, h->listener->fd[i]);
    return CUDPO_OK;
}

static cudpo_status too_late(const hub *h, double seconds)
{
    char list[RANKS_TEXT];
    bool *missing = calloc((size_t)h->self->size, sizeof *missing);
    if (missing == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "list of ranks");
    for (int32_t r = 1; r < h->self->size; r++)
        missing[r] = h->seats[r].fd < 0;
    rendezvous_ranks(list, missing, h->self->size);
    free(missing);
    return cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0", "%s of %d did not come within %g s", list,
                      (int)h->self->size, seconds);
}

static cudpo_status receive_all(hub *h, double seconds)
{
    double told = wire_clock();
    while (h->seated < h->self->size - 1) {
        const double now = wire_clock();
        if (now > h->deadline) return too_late(h, seconds);
        if (h->stopped != NULL && h->stopped())
            return cudpo_fail(CUDPO_ESTOPPED, "rank 0", RENDEZVOUS_STOPPED);
        if (now > told + 30) {
            log_info("rank 0: %d of %d ranks are here", (int)h->seated + 1, (int)h->self->size);
            told = now;
        }
        CUDPO_TRY(one_turn(h));
    }
    return CUDPO_OK;
}

/* The address at which most can reach rank 0: one that a peer of another host came to, where there is any. */
static void own_address(const hub *h, char out[HANDSHAKE_ADDRESS])
{
    bool loopback = true;
    for (int32_t r = 1; r < h->self->size && loopback; r++)
        address_of_socket(out, h->seats[r].fd, &loopback);
}

/* Every rank is an open file here. */
static cudpo_status allow_files(const hub *h)
{
    struct rlimit l;
    const rlim_t want = (rlim_t)h->self->size + (rlim_t)h->max_guests + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= want) return CUDPO_OK;
    l.rlim_cur = l.rlim_max < want ? l.rlim_max : want;
    if (l.rlim_cur == want && setrlimit(RLIMIT_NOFILE, &l) == 0) return CUDPO_OK;
    return cudpo_fail(
        CUDPO_ERENDEZVOUS, "rank 0",
        "needs %llu open files for %d ranks and may have %llu: raise the limit (ulimit -n)",
        (unsigned long long)want, (int)h->self->size, (unsigned long long)l.rlim_max);
}

static cudpo_status make_room(hub *h)
{
    const size_t size = (size_t)h->self->size;
    h->max_guests = h->self->size + SPARE_GUESTS;
    h->guests = calloc((size_t)h->max_guests, sizeof *h->guests);
    h->seats = calloc(size, sizeof *h->seats);
    h->nonces = calloc(size, sizeof *h->nonces);
    h->polls = calloc(2 + (size_t)h->max_guests + size, sizeof *h->polls);
    if (h->guests == NULL || h->seats == NULL || h->nonces == NULL || h->polls == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu ranks", size);
    for (size_t r = 0; r < size; r++)
        h->seats[r].fd = -1;
    return allow_files(h);
}

cudpo_status rendezvous_receive(rendezvous_links *out, rendezvous_listener *l,
                                const handshake_self *self, double seconds, bool (*stopped)(void))
{
    hub h = {.self = self, .listener = l, .deadline = wire_clock() + seconds, .stopped = stopped};
    cudpo_status s = make_room(&h);
    if (s == CUDPO_OK) s = receive_all(&h, seconds);
    while (h.n_guests > 0)
        remove_guest(&h, h.n_guests - 1);
    if (s == CUDPO_OK) {
        randombytes_buf(out->secret, sizeof out->secret);
        own_address(&h, out->address);
    }
    for (int32_t r = 1; h.seats != NULL && r < self->size; r++) {
        if (s == CUDPO_OK) {
            (void)handshake_welcome(&h.seats[r], &h.nonces[r], self, out->secret, out->address);
            wire_flush(&h.seats[r]);
        } else {
            (void)handshake_refuse(&h.seats[r], &h.nonces[r], self, HANDSHAKE_WRONG,
                                   cudpo_error_message());
            say_last(&h.seats[r]);
        }
    }
    free(h.guests);
    free(h.nonces);
    free(h.polls);
    if (s == CUDPO_OK)
        out->wires = h.seats;
    else
        free(h.seats);
    return s;
}
