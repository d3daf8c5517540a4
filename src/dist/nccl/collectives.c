/* collectives.c - collectives as groups of NCCL's calls, in its stream beside that of the ops. */
#include "backend/cuda/runtime.h"
#include "dist/nccl/state.h"

typedef struct operand {
    char *data;
    int64_t n, each, rest; /* each: of a share, but for the last rank's, which has the rest, too */
    size_t size;
    nccl_type type;
    int32_t root;
} operand;

static operand operand_of(const nccl *n, tensor x, int32_t root)
{
    const int64_t elements = tensor_elements(x);
    const int64_t each = communicator_share(elements, n->table.size, 0).end;
    return (operand){.data = x.data,
                     .n = elements,
                     .each = each,
                     .rest = elements - each * n->table.size,
                     .size = dtype_size(x.type),
                     .type = x.type == DTYPE_F32 ? NCCL_FLOAT32 : NCCL_BFLOAT16,
                     .root = root};
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

static void group_reduce(calls *c, const operand *x)
{
    if (well(c, "ncclReduce"))
        c->result = c->n->lib.reduce(x->data, x->data, (size_t)x->n, x->type, NCCL_SUM, x->root,
                                     c->comm, c->n->stream);
}

/* NCCL knows shares of one size alone: what the last rank has beside that is a broadcast of its own. */
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
    c->result = nccl_settle(n, c->comm, end, n->company.timeout);
}

static cudpo_status enqueue(nccl *n, group body, const operand *x)
{
    if (n->broken) return cudpo_fail(CUDPO_EDEVICE, "NCCL", "a collective failed before");
    CUDA_TRY(cudaEventRecord(n->ready, n->compute));
    CUDA_TRY(cudaStreamWaitEvent(n->stream, n->ready, 0));
    CUDPO_TRY(pending_begin(&n->pending, n->now, n->stream));
    (void)pthread_mutex_lock(&n->calls);
    calls c = {.n = n, .comm = atomic_load(&n->comm), .call = "ncclCommAbort"};
    c.result = NCCL_IN_PROGRESS;
    if (c.comm != NULL) {
        c.result = NCCL_SUCCESS;
        run_group(&c, body, x);
    }
    (void)pthread_mutex_unlock(&n->calls);
    if (c.result != NCCL_SUCCESS) return nccl_failed(n, c.call, c.result);
    return pending_end(&n->pending, n->stream);
}

static cudpo_status run(communicator *c, const char *op, group body, tensor x, int32_t root,
                        int64_t sequence)
{
    nccl *const n = nccl_of(c);
    const operand o = operand_of(n, x, root);
    n->now = (collective){op, sequence, c->step, c->record};
    return nccl_remember(n, enqueue(n, body, &o));
}

static cudpo_status all_reduce(communicator *c, tensor x, int64_t sequence)
{
    return run(c, "all_reduce", group_all_reduce, x, 0, sequence);
}

static cudpo_status reduce(communicator *c, tensor x, int32_t root, int64_t sequence)
{
    return run(c, "reduce", group_reduce, x, root, sequence);
}

static cudpo_status all_gather(communicator *c, tensor x, int64_t sequence)
{
    return run(c, "all_gather", group_all_gather, x, 0, sequence);
}

static cudpo_status broadcast(communicator *c, tensor x, int64_t sequence)
{
    return run(c, "broadcast", group_broadcast, x, 0, sequence);
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
    table->reduce = reduce;
    table->all_gather = all_gather;
    table->broadcast = broadcast;
    table->join = join;
}
