/* communicator.c - what is the same for all communicators: contracts, the record, and one rank alone. */
#include "dist/communicator.h"

#include <stdlib.h>

/* Number of a collective that may begin; 0: there is nothing to do. */
static cudpo_status begin(int64_t *sequence, communicator *c, tensor x, const char *op)
{
    *sequence = 0;
    CUDPO_REQUIRE(tensor_present(x) && tensor_dense(x) && tensor_elements(x) > 0);
    CUDPO_REQUIRE(x.type == DTYPE_F32 || (x.type == DTYPE_BF16 && c->be->on_device));
    if (c->size == 1) return CUDPO_OK;
    CUDPO_TRY(control_status(c->company));
    *sequence = ++c->sequence;
    flight_schedule(c->record, *sequence, op, tensor_elements(x), dtype_name(x.type), c->step);
    return CUDPO_OK;
}

cudpo_status communicator_all_reduce(communicator *c, tensor x)
{
    int64_t sequence;
    CUDPO_TRY(begin(&sequence, c, x, "all_reduce"));
    return sequence == 0 ? CUDPO_OK : c->all_reduce(c, x, sequence);
}

cudpo_status communicator_reduce(communicator *c, tensor x, int32_t root)
{
    int64_t sequence;
    CUDPO_REQUIRE(root >= 0 && root < c->size);
    CUDPO_TRY(begin(&sequence, c, x, "reduce"));
    return sequence == 0 ? CUDPO_OK : c->reduce(c, x, root, sequence);
}

cudpo_status communicator_all_gather(communicator *c, tensor x)
{
    int64_t sequence;
    CUDPO_TRY(begin(&sequence, c, x, "all_gather"));
    return sequence == 0 ? CUDPO_OK : c->all_gather(c, x, sequence);
}

cudpo_status communicator_broadcast(communicator *c, tensor x)
{
    int64_t sequence;
    CUDPO_TRY(begin(&sequence, c, x, "broadcast"));
    return sequence == 0 ? CUDPO_OK : c->broadcast(c, x, sequence);
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
