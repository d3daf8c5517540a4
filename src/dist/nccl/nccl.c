/* nccl.c - a communicator of GPUs: NCCL in a stream of its own beside that of the ops.
 *
 * NCCL's communicator does not block, so that no call of it is for ever: what is in progress is polled, with a limit and an
 * eye on the company.  What hangs on the GPU, or in a wait of the host for it, ends when the watch aborts NCCL: ncclCommAbort
 * makes its kernels return.  Then such a wait succeeds with tensors that hold anything, and it is control_status() that tells. */
#include "backend/cuda/ops.h"
#include "backend/cuda/runtime.h"
#include "base/log.h"
#include "dist/nccl/state.h"

#include <stdlib.h>
#include <string.h>

/* Are all collectives done, and well?  The watch still looks: a lost peer ends the wait. */
static bool is_done(nccl *n)
{
    pending_view view;
    return !n->broken && nccl_status(n) == CUDPO_OK &&
           cudaStreamSynchronize(n->stream) == cudaSuccess &&
           pending_look(&n->pending, &view) == CUDPO_OK && nccl_status(n) == CUDPO_OK;
}

static void close_nccl(communicator *c)
{
    nccl *const n = nccl_of(c);
    const bool done = is_done(n);
    /* Where stop() hangs after a failure, control ends the process. */
    const bool alone = n->company.set_watch(n->company.control, NULL);
    if (n->told.op != NULL) n->company.waits(n->company.control, NULL, 0, 0);
    if (!alone || !nccl_end(n, !done)) {
        log_warn("NCCL on rank %d does not end: it is left behind", n->table.rank);
        return; /* its threads may still use what is here; the process is about to end */
    }
    pending_close(&n->pending);
    if (n->ready != NULL) (void)cudaEventDestroy(n->ready);
    if (n->stream != NULL) (void)cudaStreamDestroy(n->stream);
    (void)sem_destroy(&n->ended);
    (void)pthread_mutex_destroy(&n->calls);
    free(n);
}

/* The beginning. */

/* Whoever knows the id can join: it goes through control alone. */
static cudpo_status agree_on_id(nccl *n, nccl_id *id)
{
    memset(id, 0, sizeof *id);
    if (n->table.rank == 0) {
        const nccl_result r = n->lib.get_unique_id(id);
        if (r != NCCL_SUCCESS) return nccl_failed(n, "ncclGetUniqueId", r);
    }
    return n->company.broadcast(n->company.control, id, sizeof *id, "NCCL's id");
}

static cudpo_status join_comm(nccl *n)
{
    nccl_id id;
    nccl_comm comm = NULL;
    nccl_config config = {.size = sizeof config,
                          .magic = NCCL_MAGIC,
                          .version = NCCL_CONFIG_VERSION,
                          .blocking = 0,
                          .cga_cluster_size = NCCL_UNDEFINED,
                          .min_ctas = NCCL_UNDEFINED,
                          .max_ctas = NCCL_UNDEFINED,
                          .split_share = NCCL_UNDEFINED,
                          .traffic_class = NCCL_UNDEFINED,
                          .comm_name = "cudpo"};
    CUDPO_TRY(agree_on_id(n, &id));
    nccl_result r = n->lib.comm_init(&comm, n->table.size, id, n->table.rank, &config);
    atomic_store(&n->comm, comm);
    if (comm != NULL) r = nccl_settle(n, comm, r, n->company.timeout);
    if (r != NCCL_SUCCESS) return nccl_failed(n, "ncclCommInitRankConfig", r);
    CUDPO_REQUIRE(comm != NULL);
    (void)n->company.set_watch(n->company.control, &(control_watch){nccl_look, nccl_stop, n});
    return CUDPO_OK;
}

static cudpo_status start(nccl *n)
{
    int least, greatest;
    /* NVLink's switches add in no fixed order, so sums would differ from run to run (NVIDIA/nccl issue 1497). */
    if (setenv("NCCL_NVLS_ENABLE", "0", 0) != 0)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory for the environment");
    CUDPO_TRY(nccl_load(&n->lib));
    CUDA_TRY(cudaGetDevice(&n->device));
    CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_TRY(cudaStreamCreateWithPriority(&n->stream, cudaStreamNonBlocking, greatest));
    CUDA_TRY(cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming));
    CUDPO_TRY(pending_open(&n->pending, n->company.mark));
    return join_comm(n);
}

cudpo_status communicator_nccl_open(communicator **out, backend *be, const nccl_company *company)
{
    CUDPO_REQUIRE(out != NULL && be != NULL && be->on_device && company != NULL);
    *out = NULL;
    if (getenv("NCCL_COMM_ID") != NULL)
        return cudpo_fail(CUDPO_ECONFIG, "NCCL_COMM_ID",
                          "unset it: with it anybody who reaches that address can join the run");
    nccl *n = calloc(1, sizeof *n);
    if (n == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory for a communicator");
    n->company = *company;
    n->compute = ((cuda_backend *)be)->stream;
    n->table = (communicator){.name = "nccl",
                              .rank = company->rank,
                              .size = company->size,
                              .be = be,
                              .company = company->control,
                              .close = close_nccl};
    nccl_install(&n->table);
    if (pthread_mutex_init(&n->calls, NULL) != 0 || sem_init(&n->ended, 0, 0) != 0) {
        free(n);
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory for a lock");
    }
    const cudpo_status status = nccl_remember(n, start(n));
    if (status == CUDPO_OK)
        *out = &n->table;
    else
        close_nccl(&n->table);
    return status;
}
