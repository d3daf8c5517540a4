/* collectives.c - collectives as groups of NCCL's calls, in its stream beside that of the ops.
 *
 * Each rank's share is n / size elements, and what is left over, fewer than `size` elements, belongs to the last: see
 * communicator_share(). */
#include "backend/cuda/runtime.h"
#include "dist/nccl/state.h"

typedef struct operand {
    char *data;
    int64_t n, each, rest;
    size_t size;
    nccl_type type;
} operand;

static operand operand_of(const nccl *n, tensor x)
{
    const int64_t elements = tensor_elements(x), each = elements / n->table.size;
    return (operand){.data = x.data,
                     .n = elements,
                     .each = each,
                     .rest = elements - each * n->table.size,
                     .size = dtype_size(x.type),
                     .type = x.type == DTYPE_F32 ? NCCL_FLOAT32 : NCCL_BFLOAT16};
}

static char *element(const operand *x, int64_t i)
{
    return x->data + (size_t)i * x->size;
}

/* Calls of NCCL, one behind the other while they go well; `call` is the last. */
typedef struct calls {
    nccl *n;
    nccl_comm comm;
    nccl_result result;
    const char *call;
} calls;

static bool well(calls *c, const char *call)
{
    const bool fine = c->result == NCCL_SUCCESS || c->result == NCCL_IN_PROGRESS;
    if (fine) c->call = call;
    return fine;
}

static void group_all_reduce(calls *c, const operand *x)
{
    if (well(c, "ncclAllReduce"))
        c->result = c->n->lib.all_reduce(x->data, x->data, (size_t)x->n, x->type, NCCL_SUM, c->comm,
                                         c->n->stream);
}

static void group_reduce_scatter(calls *c, const operand *x)
{
    nccl *const n = c->n;
    char *const own = element(x, x->each * n->table.rank);
    char *const rest = element(x, x->each * n->table.size);
    if (x->each > 0 && well(c, "ncclReduceScatter"))
        c->result = n->lib.reduce_scatter(x->data, own, (size_t)x->each, x->type, NCCL_SUM, c->comm,
                                          n->stream);
    if (x->rest > 0 && well(c, "ncclReduce"))
        c->result = n->lib.reduce(rest, rest, (size_t)x->rest, x->type, NCCL_SUM, n->table.size - 1,
                                  c->comm, n->stream);
}

static void group_all_gather(calls *c, const operand *x)
{
    nccl *const n = c->n;
    char *const own = element(x, x->each * n->table.rank);
    char *const rest = element(x, x->each * n->table.size);
    if (x->each > 0 && well(c, "ncclAllGather"))
        c->result = n->lib.all_gather(own, x->data, (size_t)x->each, x->type, c->comm, n->stream);
    if (x->rest > 0 && well(c, "ncclBroadcast"))
        c->result = n->lib.broadcast(rest, rest, (size_t)x->rest, x->type, n->table.size - 1,
                                     c->comm, n->stream);
}

static void group_broadcast(calls *c, const operand *x)
{
    if (well(c, "ncclBroadcast"))
        c->result =
            c->n->lib.broadcast(x->data, x->data, (size_t)x->n, x->type, 0, c->comm, c->n->stream);
}

typedef void (*group)(calls *c, const operand *x);

/* A group that was started is ended, whatever becomes of its calls: NCCL counts.  Only when it has settled has NCCL put its
 * kernel into the stream, and an event may be recorded behind. */
static void run_group(calls *c, group body, const operand *x)
{
    nccl *const n = c->n;
    c->call = "ncclGroupStart";
    c->result = n->lib.group_start();
    if (!well(c, c->call)) return;
    body(c, x);
    const nccl_result end = n->lib.group_end();
    if (!well(c, "ncclGroupEnd")) return;
    c->result = nccl_settle(n, c->comm, end);
}

static cudpo_status run(nccl *n, const char *op, group body, tensor x, int64_t sequence)
{
    const operand o = operand_of(n, x);
    if (n->broken) return cudpo_fail(CUDPO_EDEVICE, "NCCL", "a collective failed before");
    n->now = (collective){op, sequence, n->table.step, n->table.record};
    CUDA_TRY(cudaEventRecord(n->ready, n->compute));
    CUDA_TRY(cudaStreamWaitEvent(n->stream, n->ready, 0));
    CUDPO_TRY(pending_begin(&n->pending, n->now, n->stream));
    (void)pthread_mutex_lock(&n->calls);
    calls c = {.n = n, .comm = atomic_load(&n->comm), .call = "ncclCommAbort"};
    c.result = NCCL_IN_PROGRESS;
    if (c.comm != NULL) run_group(&c, body, &o);
    (void)pthread_mutex_unlock(&n->calls);
    if (c.result != NCCL_SUCCESS) return nccl_failed(n, c.call, c.result);
    return pending_end(&n->pending, n->stream);
}

static cudpo_status all_reduce(communicator *c, tensor x, int64_t sequence)
{
    return nccl_remember(nccl_of(c), run(nccl_of(c), "all_reduce", group_all_reduce, x, sequence));
}

static cudpo_status reduce_scatter(communicator *c, tensor x, int64_t sequence)
{
    return nccl_remember(nccl_of(c),
                         run(nccl_of(c), "reduce_scatter", group_reduce_scatter, x, sequence));
}

static cudpo_status all_gather(communicator *c, tensor x, int64_t sequence)
{
    return nccl_remember(nccl_of(c), run(nccl_of(c), "all_gather", group_all_gather, x, sequence));
}

static cudpo_status broadcast(communicator *c, tensor x, int64_t sequence)
{
    return nccl_remember(nccl_of(c), run(nccl_of(c), "broadcast", group_broadcast, x, sequence));
}

/* The ops wait, not the host. */
static cudpo_status join(communicator *c)
{
    CUDPO_TRY(nccl_status(nccl_of(c)));
    return nccl_remember(nccl_of(c), pending_join(&nccl_of(c)->pending, nccl_of(c)->compute));
}

void nccl_install(communicator *table)
{
    table->all_reduce = all_reduce;
    table->reduce_scatter = reduce_scatter;
    table->all_gather = all_gather;
    table->broadcast = broadcast;
    table->join = join;
}
