/* mpi.c - collectives over MPI, as a plugin.
 *
 * Sums are made here, of pieces that ranks send one another, in the order of ranks.  MPI_Allreduce may add in another order for
 * each size, on each machine and even on each rank, for the standard only recommends that it does not; a run must give the same
 * bits each time.  It costs as many bytes as the best of MPI's: every rank sends its part of each share to whom the share
 * belongs, and gets the sums.
 *
 * No call blocks but those that begin and end MPI: requests are tested until they are done or the company fails. */
#include "dist/mpi/mpi_plugin.h"

#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TAG = 1,
    SCRATCH = 1 << 22,     /* floats of others that are held to be added */
    PIECE_LEAST = 1 << 14, /* floats that a rank sends to another at once, at least; */
    PIECE_MOST = 1 << 28,  /* at most, where nothing is added; MPI counts with int */
    BLOCK = 1024           /* floats that are added at once */
};

typedef struct mpi {
    MPI_Comm comm;
    int rank, size;
    control *company;
    float *scratch; /* [size][piece] */
    int64_t piece;
    MPI_Request *requests; /* [2 size] */
    MPI_Status *statuses;  /* [2 size] */
    int pending;           /* requests that were begun and not yet waited for */
} mpi;

static cudpo_status failed(const mpi *m, const char *call, int code)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int n = 0;
    CUDPO_TRY(control_status(m->company)); /* a peer that is gone has a name there */
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS) n = 0;
    text[n] = '\0';
    return cudpo_fail(CUDPO_EDEVICE, call, "%s", n == 0 ? "failed" : text);
}

#define MPI_TRY(m, name, arguments)                                        \
    do {                                                                   \
        const int code_ = MPI_##name arguments;                            \
        if (code_ != MPI_SUCCESS) return failed((m), "MPI_" #name, code_); \
    } while (0)

/* MPI moves data only while it is called: the thread gives its core to whoever wants it at first, and sleeps later. */
static void pause_between(int64_t looks)
{
    enum { YIELDS = 200 };
    if (looks < YIELDS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

/* Of several requests the one that failed says why. */
static int why(const mpi *m, int code)
{
    for (int i = 0; code == MPI_ERR_IN_STATUS && i < m->pending; i++)
        if (m->statuses[i].MPI_ERROR != MPI_SUCCESS && m->statuses[i].MPI_ERROR != MPI_ERR_PENDING)
            return m->statuses[i].MPI_ERROR;
    return code;
}

/* Wait for what is pending. */
static cudpo_status settle(mpi *m)
{
    int done = 0;
    for (int64_t looks = 0;; looks++) {
        const int code = MPI_Testall(m->pending, m->requests, &done, m->statuses);
        if (code != MPI_SUCCESS) return failed(m, "MPI_Testall", why(m, code));
        if (done) break;
        CUDPO_TRY(control_status(m->company));
        pause_between(looks);
    }
    m->pending = 0;
    return CUDPO_OK;
}

static cudpo_status begin_send(mpi *m, const float *x, int64_t n, int to)
{
    if (n > 0)
        MPI_TRY(m, Isend, (x, (int)n, MPI_FLOAT, to, TAG, m->comm, &m->requests[m->pending++]));
    return CUDPO_OK;
}

static cudpo_status begin_receive(mpi *m, float *x, int64_t n, int from)
{
    if (n > 0)
        MPI_TRY(m, Irecv, (x, (int)n, MPI_FLOAT, from, TAG, m->comm, &m->requests[m->pending++]));
    return CUDPO_OK;
}

/* What of a share is in its piece of that offset. */
static rank_share piece_of(rank_share share, int64_t offset, int64_t piece)
{
    const int64_t begin = share.begin + offset, rest = share.end - begin;
    return (rank_share){begin, begin + (rest < 0 ? 0 : rest < piece ? rest : piece)};
}

static int64_t length(rank_share s)
{
    return s.end - s.begin;
}

/* x [n] += nothing but = the sum over ranks, in their order: x is this rank's, the others' are in scratch. */
static void add_up(const mpi *m, float *x, int64_t n)
{
    float sum[BLOCK];
    for (int64_t done = 0; done < n; done += BLOCK) {
        const int64_t block = n - done < BLOCK ? n - done : BLOCK;
        for (int r = 0; r < m->size; r++) {
            const float *part = (r == m->rank ? x : m->scratch + r * m->piece) + done;
            for (int64_t i = 0; i < block; i++)
                sum[i] = r == 0 ? part[i] : sum[i] + part[i];
        }
        memcpy(x + done, sum, (size_t)block * sizeof *sum);
    }
}

/* This rank's share of x [n] = its sum; the longest share is the last. */
static cudpo_status sum_shares(mpi *m, float *x, int64_t n)
{
    const int64_t longest = length(communicator_share(n, m->size, m->size - 1));
    for (int64_t offset = 0; offset < longest; offset += m->piece) {
        const rank_share own = piece_of(communicator_share(n, m->size, m->rank), offset, m->piece);
        for (int r = 0; r < m->size; r++)
            if (r != m->rank)
                CUDPO_TRY(begin_receive(m, m->scratch + r * m->piece, length(own), r));
        for (int r = 0; r < m->size; r++) {
            const rank_share part = piece_of(communicator_share(n, m->size, r), offset, m->piece);
            if (r != m->rank) CUDPO_TRY(begin_send(m, x + part.begin, length(part), r));
        }
        CUDPO_TRY(settle(m));
        add_up(m, x + own.begin, length(own));
    }
    return CUDPO_OK;
}

/* Every share of x [n] goes from whom it belongs to: to all, or, where `root` is none of -1, to that rank. */
static cudpo_status spread_shares(mpi *m, float *x, int64_t n, int root)
{
    const int64_t longest = length(communicator_share(n, m->size, m->size - 1));
    for (int64_t offset = 0; offset < longest; offset += PIECE_MOST) {
        const rank_share own =
            piece_of(communicator_share(n, m->size, m->rank), offset, PIECE_MOST);
        for (int r = 0; r < m->size; r++) {
            const rank_share part = piece_of(communicator_share(n, m->size, r), offset, PIECE_MOST);
            if (r == m->rank) continue;
            if (root < 0 || root == m->rank)
                CUDPO_TRY(begin_receive(m, x + part.begin, length(part), r));
            if (root < 0 || root == r) CUDPO_TRY(begin_send(m, x + own.begin, length(own), r));
        }
        CUDPO_TRY(settle(m));
    }
    return CUDPO_OK;
}

static cudpo_status broadcast(mpi *m, float *x, int64_t n)
{
    for (int64_t done = 0; done < n; done += PIECE_MOST) {
        const int count = (int)(n - done < PIECE_MOST ? n - done : PIECE_MOST);
        MPI_TRY(m, Ibcast, (x + done, count, MPI_FLOAT, 0, m->comm, &m->requests[m->pending++]));
        CUDPO_TRY(settle(m));
    }
    return CUDPO_OK;
}

static cudpo_status work(void *context, const queue_job *job)
{
    mpi *m = context;
    float *x = tensor_f32(job->x);
    const int64_t n = tensor_elements(job->x);
    switch (job->op) {
    case QUEUE_ALL_REDUCE:
        CUDPO_TRY(sum_shares(m, x, n));
        return spread_shares(m, x, n, -1);
    case QUEUE_REDUCE:
        CUDPO_TRY(sum_shares(m, x, n));
        return spread_shares(m, x, n, job->root);
    case QUEUE_ALL_GATHER:
        return spread_shares(m, x, n, -1);
    case QUEUE_BROADCAST:
        return broadcast(m, x, n);
    case QUEUE_OPS:
        break;
    }
    return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "no such collective: %d", (int)job->op);
}

/* All are here: MPI_Finalize(), which can't be left, does not wait for long. */
static cudpo_status meet(mpi *m)
{
    MPI_TRY(m, Ibarrier, (m->comm, &m->requests[m->pending++]));
    return settle(m);
}

static void release(mpi *m)
{
    free(m->statuses);
    free(m->requests);
    free(m->scratch);
    free(m);
}

/* What requests that are still pending may read or write is not freed. */
static void close_mpi(void *context, bool is_lost)
{
    mpi *m = context;
    if (is_lost || m->pending > 0 || meet(m) != CUDPO_OK) return;
    MPI_Finalize();
    release(m);
}

/* The ranks of MPI and those of the company are the same, or all would wait for somebody else. */
static cudpo_status check_ranks(mpi *m)
{
    MPI_TRY(m, Comm_rank, (m->comm, &m->rank));
    MPI_TRY(m, Comm_size, (m->comm, &m->size));
    if (m->rank == control_rank(m->company) && m->size == control_size(m->company)) return CUDPO_OK;
    return cudpo_fail(
        CUDPO_ECONFIG, "MPI",
        "this is rank %d of %d for MPI and rank %d of %d for cudpo: start the ranks with "
        "mpirun, or use --ddp_backend tcp",
        m->rank, m->size, (int)control_rank(m->company), (int)control_size(m->company));
}

static cudpo_status prepare(mpi *m)
{
    int provided = 0;
    MPI_TRY(m, Init_thread, (NULL, NULL, MPI_THREAD_SERIALIZED, &provided));
    m->comm = MPI_COMM_WORLD;
    MPI_TRY(m, Comm_set_errhandler, (m->comm, MPI_ERRORS_RETURN));
    if (provided < MPI_THREAD_SERIALIZED)
        return cudpo_fail(
            CUDPO_EDEVICE, "MPI",
            "it can't be used from another thread than the one that began it: take an "
            "MPI that can, or use --ddp_backend tcp");
    CUDPO_TRY(check_ranks(m));
    m->piece = SCRATCH / m->size > PIECE_LEAST ? SCRATCH / m->size : PIECE_LEAST;
    m->scratch = malloc((size_t)(m->size * m->piece) * sizeof *m->scratch);
    m->requests = calloc(2 * (size_t)m->size, sizeof *m->requests);
    m->statuses = calloc(2 * (size_t)m->size, sizeof *m->statuses);
    if (m->scratch != NULL && m->requests != NULL && m->statuses != NULL) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENOMEM, "MPI", "communicator");
}

const char *communicator_mpi_version(size_t *bytes)
{
    *bytes = sizeof(queued_transport);
    return CUDPO_VERSION " " CUDPO_INTERFACE;
}

cudpo_status communicator_mpi_open(queued_transport *t, control *company)
{
    int begun = 0;
    if (MPI_Initialized(&begun) != MPI_SUCCESS || begun)
        return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "MPI was begun before");
    mpi *m = calloc(1, sizeof *m);
    if (m == NULL) return cudpo_fail(CUDPO_ENOMEM, "MPI", "communicator");
    m->company = company;
    const cudpo_status status = prepare(m);
    if (status == CUDPO_OK) {
        *t = (queued_transport){.name = "mpi", .context = m, .work = work, .close = close_mpi};
        return CUDPO_OK;
    }
    release(m);
    return status;
}
