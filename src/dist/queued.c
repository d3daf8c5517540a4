/* queued.c - between the main thread's calls and a transport in another thread. */
#include "dist/queued.h"

#include <stdlib.h>

typedef struct queued {
    communicator c; /* first, so that a communicator * is a queued * */
    queued_transport transport;
    queue *jobs;
} queued;

static cudpo_status work(void *context, const queue_job *job)
{
    queued *q = context;
    CUDPO_TRY(control_status(q->c.company));
    flight_mark(q->c.record, job->sequence, FLIGHT_STARTED);
    CUDPO_TRY(q->transport.work(q->transport.context, job));
    flight_mark(q->c.record, job->sequence, FLIGHT_COMPLETED);
    return CUDPO_OK;
}

static cudpo_status push(communicator *c, queue_op op, tensor x, int32_t root, int64_t sequence)
{
    const queue_job job = {.op = op, .x = x, .root = root, .sequence = sequence, .step = c->step};
    return queue_push(((queued *)c)->jobs, c->company, &job);
}

static cudpo_status all_reduce(communicator *c, tensor x, int64_t sequence)
{
    return push(c, QUEUE_ALL_REDUCE, x, 0, sequence);
}

static cudpo_status reduce(communicator *c, tensor x, int32_t root, int64_t sequence)
{
    return push(c, QUEUE_REDUCE, x, root, sequence);
}

static cudpo_status all_gather(communicator *c, tensor x, int64_t sequence)
{
    return push(c, QUEUE_ALL_GATHER, x, 0, sequence);
}

static cudpo_status broadcast(communicator *c, tensor x, int64_t sequence)
{
    return push(c, QUEUE_BROADCAST, x, 0, sequence);
}

static cudpo_status join(communicator *c)
{
    return queue_wait(((queued *)c)->jobs, c->company);
}

static void close_queued(communicator *c)
{
    queued *q = (queued *)c;
    const queue_end end = queue_close(q->jobs);
    if (end == QUEUE_STUCK)
        return; /* the thread may still use what is here; the process is about to end */
    const bool failed = end == QUEUE_FAILED || control_status(c->company) != CUDPO_OK;
    q->transport.close(q->transport.context, failed);
    free(q);
}

cudpo_status communicator_queued(communicator **out, const queued_transport *t, backend *be,
                                 control *company, int32_t rank, int32_t size)
{
    *out = NULL;
    CUDPO_REQUIRE(!be->on_device && rank >= 0 && rank < size);
    queued *q = calloc(1, sizeof *q);
    if (q == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "communicator");
    q->transport = *t;
    q->c = (communicator){.name = t->name,
                          .rank = rank,
                          .size = size,
                          .be = be,
                          .company = company,
                          .close = close_queued,
                          .all_reduce = all_reduce,
                          .reduce = reduce,
                          .all_gather = all_gather,
                          .broadcast = broadcast,
                          .join = join};
    const cudpo_status status = queue_open(&q->jobs, work, q);
    if (status == CUDPO_OK)
        *out = &q->c;
    else
        free(q);
    return status;
}
