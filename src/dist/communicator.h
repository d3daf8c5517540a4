/* communicator.h - what ranks do together with tensors in backend memory: sums, and copies to all.
 *
 * Calls are made by one thread, in the same order with the same sizes on every rank.  Each begins once all ops that were
 * enqueued on the backend before are done, and runs beside those that are enqueued later: its tensor is the communicator's until
 * an op behind join().  Sums have the same bits on every rank and in every run of as many ranks.
 * A peer that is lost or stands still makes them fail, with control's reason; no wait is for ever. */
#ifndef CUDPO_DIST_COMMUNICATOR_H
#define CUDPO_DIST_COMMUNICATOR_H

#include "backend/backend.h"
#include "cudpo/status.h"
#include "dist/control.h"
#include "dist/flight.h"

#include <stdint.h>

typedef struct communicator communicator;
struct communicator {
    const char *name; /* "self", "tcp", "mpi", "nccl" */
    int32_t rank, size;
    backend *be;
    flight *record; /* NULL: none */
    control *company;
    int64_t step;     /* of what is begun from here on, for messages and the record */
    int64_t sequence; /* collectives begun */
    void (*close)(communicator *c);

    /* As communicator_*() below, which check and record; x is contiguous f32 or, on a GPU, bf16. */
    cudpo_status (*all_reduce)(communicator *c, tensor x, int64_t sequence);
    cudpo_status (*reduce)(communicator *c, tensor x, int32_t root, int64_t sequence);
    cudpo_status (*all_gather)(communicator *c, tensor x, int64_t sequence);
    cudpo_status (*broadcast)(communicator *c, tensor x, int64_t sequence);
    cudpo_status (*join)(communicator *c);
};

/* Elements of a tensor of n that belong to a rank: as many each as are a multiple of SHARE_STEP, and the rest to the last. */
enum { SHARE_STEP = 64 };
typedef struct rank_share {
    int64_t begin, end;
} rank_share;
static inline rank_share communicator_share(int64_t n, int32_t size, int32_t rank)
{
    const int64_t each = n / size / SHARE_STEP * SHARE_STEP;
    return (rank_share){.begin = rank * each, .end = rank + 1 == size ? n : (rank + 1) * each};
}

/** x = its sum over all ranks. */
CUDPO_MUST_USE cudpo_status communicator_all_reduce(communicator *c, tensor x);
/** x of rank `root` = its sum over all ranks; x of the others is undefined then. */
CUDPO_MUST_USE cudpo_status communicator_reduce(communicator *c, tensor x, int32_t root);
/** Every share of x = that of the rank it belongs to. */
CUDPO_MUST_USE cudpo_status communicator_all_gather(communicator *c, tensor x);
/** x = rank 0's. */
CUDPO_MUST_USE cudpo_status communicator_broadcast(communicator *c, tensor x);
/** What is enqueued on the backend from here on finds the results of all of these.  On a CPU: they are done.
 *  Returns: CUDPO_OK; control_status(); CUDPO_EDEVICE. */
CUDPO_MUST_USE cudpo_status communicator_join(communicator *c);
void communicator_close(communicator *c); /* NULL is fine */

/** One rank: nothing to do. */
CUDPO_MUST_USE cudpo_status communicator_self(communicator **out, backend *be);

/** A ring of TCP connections beside control's own, for tensors in host memory.
 *  In:  company  outlives it. */
CUDPO_MUST_USE cudpo_status communicator_tcp(communicator **out, backend *be, control *company);

/** The MPI that started the ranks, for tensors in host memory.  Collective: every rank calls it.  It comes with a plugin,
 *  libcudpo_mpi.so or $CUDPO_MPI_PLUGIN; the program knows no MPI.
 *  In:      company  outlives it, and has the same ranks.
 *  Returns: CUDPO_OK; CUDPO_EDEVICE: no plugin, or MPI fails: what it says, and what to do; CUDPO_ECONFIG: MPI has other ranks;
 *           control_status(); CUDPO_ENOMEM.
 *  Once in a process: MPI begins only once.  Where the company failed MPI is left as it is, because its own end would wait for
 *  the peers that are gone: then the process ends without MPI_Finalize(), upon which mpirun ends the others. */
CUDPO_MUST_USE cudpo_status communicator_mpi(communicator **out, backend *be, control *company);
/** A line that says where its plugin is, or why it can't be used. */
void communicator_mpi_report(void (*line)(void *context, const char *name, const char *value),
                             void *context);

/** NCCL, for tensors of a CUDA backend, each rank on a GPU of its own.  The library is opened here: $CUDPO_NCCL, or libnccl.so.2
 *  as the system finds it.  Collective: every rank calls it.  Sums of bf16 are rounded at each of NCCL's additions.
 *  In:      be       outlives it.
 *           company  outlives it.
 *  Returns: CUDPO_OK; CUDPO_EDEVICE: no NCCL, or one that fails: what it says, and what to do; control_status();
 *           CUDPO_ECONFIG: NCCL_COMM_ID is set; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status communicator_nccl(communicator **out, backend *be, control *company);

#endif /* CUDPO_DIST_COMMUNICATOR_H */
