/* tcp.c - sums over TCP: ranks form a ring, in which each sends to the next and receives from the one before.
 *
 * all_reduce adds up share by share: share k starts at rank k+1, every rank on its way to rank k adds its own, and the sum then
 * goes once around (Patarasuk and Yuan 2009: each rank sends 2 (N-1)/N of the tensor).  The order of additions is that of the ring, so
 * the bits are those of every run of as many ranks. */
#include "dist/queued.h"
#include "dist/tcp_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    SEGMENT = 1 << 18, /* bytes that are received before they are added, or sent on */
    LOOK_MS = 100,     /* how often a wait looks at the company */
    HEARSAY_MS = 1000  /* that control has to say why a connection ended */
};

typedef struct ring {
    control *company;
    int32_t rank, size;
    int next, before;       /* sockets; -1: none */
    unsigned char *segment; /* [SEGMENT] */
} ring;

/* ---- bytes ---- */

/* The ring may be the first to notice a lost peer, but only control knows why, and a moment later. */
static cudpo_status lost(const ring *r, int32_t rank, const char *what)
{
    const int error = errno;
    const struct timespec pause = {.tv_nsec = 10000000};
    for (int i = 0; i < HEARSAY_MS / 10; i++) {
        CUDPO_TRY(control_status(r->company));
        nanosleep(&pause, NULL);
    }
    return cudpo_fail(CUDPO_EPEER, CUDPO_HERE, "%s rank %d: %s", what, (int)rank,
                      error != 0 ? strerror(error) : "it closed the connection");
}

static int32_t neighbour(const ring *r, int32_t distance)
{
    return (r->rank + distance + r->size) % r->size;
}

/* What is to go out and to come in at the same time. */
typedef struct transfer {
    const unsigned char *out;
    size_t out_bytes;
    unsigned char *in;
    size_t in_bytes;
} transfer;

static bool blocked(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* One look at both connections.  Moves what can be moved. */
static cudpo_status move(ring *r, transfer *t)
{
    struct pollfd fds[] = {{.fd = t->out_bytes > 0 ? r->next : -1, .events = POLLOUT},
                           {.fd = t->in_bytes > 0 ? r->before : -1, .events = POLLIN}};
    if (poll(fds, 2, LOOK_MS) < 0 && errno != EINTR) return lost(r, r->rank, "waiting at");
    CUDPO_TRY(control_status(r->company));
    if (fds[0].revents != 0) {
        errno = 0;
        const ssize_t n = send(r->next, t->out, t->out_bytes, MSG_NOSIGNAL);
        if (n < 0 && !blocked()) return lost(r, neighbour(r, 1), "can't send to");
        if (n > 0) {
            t->out += n;
            t->out_bytes -= (size_t)n;
        }
    }
    if (fds[1].revents != 0) {
        errno = 0;
        const ssize_t n = recv(r->before, t->in, t->in_bytes, 0);
        if (n == 0 || (n < 0 && !blocked())) return lost(r, neighbour(r, -1), "can't hear from");
        if (n > 0) {
            t->in += n;
            t->in_bytes -= (size_t)n;
        }
    }
    return CUDPO_OK;
}

static cudpo_status transfer_all(ring *r, transfer t)
{
    while (t.out_bytes > 0 || t.in_bytes > 0)
        CUDPO_TRY(move(r, &t));
    return CUDPO_OK;
}

static void add(float *sum, const unsigned char *bytes, size_t n)
{
    const float *x = (const float *)(const void *)bytes;
    for (size_t i = 0; i < n; i++)
        sum[i] += x[i];
}

/* Send n floats and add as many that come to `sum`, a segment at a time. */
static cudpo_status send_and_add(ring *r, const float *out, size_t n_out, float *sum, size_t n_in)
{
    transfer t = {.out = (const unsigned char *)(const void *)out,
                  .out_bytes = n_out * sizeof *out};
    for (size_t done = 0; done < n_in;) {
        const size_t rest = n_in - done, most = SEGMENT / sizeof *sum;
        const size_t n = rest < most ? rest : most;
        t.in = r->segment;
        t.in_bytes = n * sizeof *sum;
        while (t.in_bytes > 0)
            CUDPO_TRY(move(r, &t));
        add(sum + done, r->segment, n);
        done += n;
    }
    t.in_bytes = 0;
    return transfer_all(r, t);
}

/* ---- collectives, in the queue's thread ---- */

static cudpo_status all_gather(ring *r, float *x, int64_t n)
{
    const int32_t size = r->size;
    for (int32_t i = 0; i + 1 < size; i++) {
        const rank_share out = communicator_share(n, size, neighbour(r, -i)),
                         in = communicator_share(n, size, neighbour(r, -i - 1));
        const transfer t = {.out = (const unsigned char *)(const void *)(x + out.begin),
                            .out_bytes = (size_t)(out.end - out.begin) * sizeof *x,
                            .in = (unsigned char *)(void *)(x + in.begin),
                            .in_bytes = (size_t)(in.end - in.begin) * sizeof *x};
        CUDPO_TRY(transfer_all(r, t));
    }
    return CUDPO_OK;
}

/* After it share k is complete at rank k. */
static cudpo_status all_reduce(ring *r, float *x, int64_t n)
{
    const int32_t size = r->size;
    for (int32_t i = 0; i + 1 < size; i++) {
        const rank_share out = communicator_share(n, size, neighbour(r, -i - 1)),
                         in = communicator_share(n, size, neighbour(r, -i - 2));
        CUDPO_TRY(send_and_add(r, x + out.begin, (size_t)(out.end - out.begin), x + in.begin,
                               (size_t)(in.end - in.begin)));
    }
    return all_gather(r, x, n);
}

/* From the rank behind the root once around: each adds its own and sends it on, a segment at a time. */
static cudpo_status reduce(ring *r, float *x, int64_t n, int32_t root)
{
    const bool first = neighbour(r, -1) == root, last = r->rank == root;
    if (first)
        return transfer_all(r, (transfer){.out = (const unsigned char *)(const void *)x,
                                          .out_bytes = (size_t)n * sizeof *x});
    if (last) return send_and_add(r, NULL, 0, x, (size_t)n);
    const size_t most = SEGMENT / sizeof *x;
    for (size_t done = 0; done < (size_t)n;) {
        const size_t rest = (size_t)n - done, now = rest < most ? rest : most;
        CUDPO_TRY(send_and_add(r, NULL, 0, x + done, now));
        CUDPO_TRY(transfer_all(r, (transfer){.out = (const unsigned char *)(const void *)(x + done),
                                             .out_bytes = now * sizeof *x}));
        done += now;
    }
    return CUDPO_OK;
}

static cudpo_status broadcast(ring *r, float *x, int64_t n)
{
    const bool first = r->rank == 0, last = r->rank + 1 == r->size;
    for (size_t done = 0, all = (size_t)n * sizeof *x; done < all;) {
        const size_t rest = all - done, now = rest < SEGMENT ? rest : SEGMENT;
        unsigned char *at = (unsigned char *)(void *)x + done;
        if (!first) CUDPO_TRY(transfer_all(r, (transfer){.in = at, .in_bytes = now}));
        if (!last) CUDPO_TRY(transfer_all(r, (transfer){.out = at, .out_bytes = now}));
        done += now;
    }
    return CUDPO_OK;
}

static cudpo_status work(void *context, const queue_job *job)
{
    ring *r = context;
    float *x = tensor_f32(job->x);
    const int64_t n = tensor_elements(job->x);
    cudpo_status status = CUDPO_OK;
    switch (job->op) {
    case QUEUE_ALL_REDUCE:
        status = all_reduce(r, x, n);
        break;
    case QUEUE_REDUCE:
        status = reduce(r, x, n, job->root);
        break;
    case QUEUE_ALL_GATHER:
        status = all_gather(r, x, n);
        break;
    case QUEUE_BROADCAST:
        status = broadcast(r, x, n);
        break;
    case QUEUE_OPS:
        break;
    }
    return status;
}

static void close_ring(void *context, bool failed)
{
    ring *r = context;
    (void)failed; /* peers that still wait see the connection end */
    if (r->next >= 0) close(r->next);
    if (r->before >= 0) close(r->before);
    free(r->segment);
    free(r);
}

cudpo_status communicator_tcp(communicator **out, backend *be, control *company)
{
    const int32_t rank = control_rank(company), size = control_size(company);
    ring *r = calloc(1, sizeof *r);
    *out = NULL;
    if (r == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "communicator");
    *r = (ring){.company = company,
                .rank = rank,
                .size = size,
                .next = -1,
                .before = -1,
                .segment = malloc(SEGMENT)};
    const queued_transport transport = {
        .name = "tcp", .context = r, .work = work, .close = close_ring};
    cudpo_status status = r->segment != NULL
                              ? tcp_ring_connect(&r->next, &r->before, company, rank, size)
                              : cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "communicator");
    if (status == CUDPO_OK) status = communicator_queued(out, &transport, be, company, rank, size);
    if (status != CUDPO_OK) close_ring(r, true);
    return status;
}
