/* link.c - what goes from one rank to the next at most: large messages, and nothing but these. */
#include "bench/collective.h"
#include "dist/tcp_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE = 1 << 20,
    MESSAGES = 16, /* of a stream: short enough that on a busy machine some are not disturbed */
    TRIES = 20,
    LOOK_MS = 100 /* how often a wait looks at the company */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One message, out or in. */
static cudpo_status move(int s, unsigned char *message, bool out, const control *company)
{
    for (size_t done = 0; done < MESSAGE;) {
        struct pollfd fd = {.fd = s, .events = out ? POLLOUT : POLLIN};
        errno = 0;
        const ssize_t n = out ? send(s, message + done, MESSAGE - done, MSG_NOSIGNAL)
                              : recv(s, message + done, MESSAGE - done, 0);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            return cudpo_fail(CUDPO_EPEER, "bench", "a stream to measure ended: %s",
                              errno != 0 ? strerror(errno) : "its other end was closed");
        (void)poll(&fd, 1, LOOK_MS);
        CUDPO_TRY(control_status(company));
    }
    return CUDPO_OK;
}

/* From a rank to the next.  Out: rate  that the receiver saw, the best of some tries: the same on all ranks. */
static cudpo_status stream(double *rate, int next, int before, unsigned char *message, int32_t from,
                           control *company)
{
    const int32_t rank = control_rank(company), size = control_size(company);
    const int32_t to = (from + 1) % size;
    double mine = 0, *all = calloc((size_t)size, sizeof *all);
    cudpo_status status =
        all == NULL ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)size) : CUDPO_OK;
    for (int i = 0; i < TRIES && status == CUDPO_OK; i++) {
        status = control_barrier(company, "stream of a benchmark");
        const double begin = now();
        for (int k = 0; k < MESSAGES && status == CUDPO_OK; k++) {
            if (rank == from) status = move(next, message, true, company);
            if (rank == to) status = move(before, message, false, company);
        }
        const double reached = (double)MESSAGE * MESSAGES / (now() - begin);
        if (rank == to && reached > mine) mine = reached;
    }
    if (status == CUDPO_OK)
        status = control_exchange(company, all, &mine, sizeof mine, "rate of a stream");
    if (status == CUDPO_OK) *rate = all[to];
    free(all);
    return status;
}

cudpo_status bench_link(double *rate, control *company)
{
    const int32_t rank = control_rank(company), size = control_size(company);
    int next, before;
    double first = 0, last = 0;
    *rate = 0;
    CUDPO_TRY(tcp_ring_connect(&next, &before, company, rank, size));
    unsigned char *message = malloc(MESSAGE);
    cudpo_status status =
        message == NULL ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "message") : CUDPO_OK;
    if (status == CUDPO_OK) {
        for (size_t i = 0; i < MESSAGE; i++)
            message[i] = (unsigned char)(i * 2654435761U >> 24);
        status = stream(&first, next, before, message, 0, company);
    }
    if (status == CUDPO_OK) status = stream(&last, next, before, message, size - 1, company);
    if (status == CUDPO_OK) *rate = first < last ? first : last;
    free(message);
    close(next);
    close(before);
    return status;
}
