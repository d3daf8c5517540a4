/* communicator.c - what is the same for all communicators: contracts, the record, and one rank alone. */
#include "dist/communicator.h"

#include <stdlib.h>

share communicator_share(int64_t n, int32_t size, int32_t rank)
{
    const int64_t each = n / size;
    return (share){.begin = rank * each, .end = rank + 1 == size ? n : (rank + 1) * each};
}

typedef cudpo_status (*collective)(communicator *c, tensor x, int64_t sequence);

static cudpo_status run(communicator *c, collective call, tensor x, const char *op)
{
    CUDPO_REQUIRE(tensor_present(x) && tensor_dense(x) && tensor_elements(x) > 0);
    CUDPO_REQUIRE(x.type == DTYPE_F32 || (x.type == DTYPE_BF16 && c->be->on_device));
    if (c->size == 1) return CUDPO_OK;
    CUDPO_TRY(control_status(c->company));
    const int64_t sequence = ++c->sequence;
    flight_schedule(c->record, sequence, op, tensor_elements(x), dtype_name(x.type), c->step);
    return call(c, x, sequence);
}

cudpo_status communicator_all_reduce(communicator *c, tensor x)
{
    return run(c, c->all_reduce, x, "all_reduce");
}

cudpo_status communicator_reduce_scatter(communicator *c, tensor x)
{
    return run(c, c->reduce_scatter, x, "reduce_scatter");
}

cudpo_status communicator_all_gather(communicator *c, tensor x)
{
    return run(c, c->all_gather, x, "all_gather");
}

cudpo_status communicator_broadcast(communicator *c, tensor x)
{
    return run(c, c->broadcast, x, "broadcast");
}

cudpo_status communicator_join(communicator *c)
{
    return c->size == 1 ? CUDPO_OK : c->join(c);
}

void communicator_close(communicator *c)
{
    if (c != NULL) c->close(c);
}

static void close_self(communicator *c)
{
    free(c);
}

cudpo_status communicator_self(communicator **out, backend *be)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "communicator");
    **out = (communicator){.name = "self", .size = 1, .be = be, .close = close_self};
    return CUDPO_OK;
}
