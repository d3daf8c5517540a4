/* reduce.c - buckets are cut from the end of the block of gradients, which is complete first. */
#include "train/reduce.h"

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

gradient_reducer reducer_of(communicator *c, tensor gradient, double megabytes, bool shared)
{
    const int64_t bucket = (int64_t)(megabytes * 1e6 / (double)dtype_size(gradient.type));
    return (gradient_reducer){.communicator = c,
                              .gradient = gradient,
                              .bucket = later(bucket, SHARE_STEP),
                              .left = tensor_elements(gradient),
                              .shared = shared};
}

/* Whose share element i is in, and where that begins. */
static rank_share owner_of(const gradient_reducer *r, int64_t i, int32_t *rank)
{
    const communicator *c = r->communicator;
    const int64_t n = tensor_elements(r->gradient);
    rank_share s = communicator_share(n, c->size, c->size - 1);
    *rank = c->size - 1;
    while (i < s.begin)
        s = communicator_share(n, c->size, --*rank);
    return s;
}

static cudpo_status hand_on(gradient_reducer *r, int64_t begin)
{
    const int64_t n = r->left - begin;
    const tensor g = r->gradient;
    const tensor part =
        tensor_matrix((char *)g.data + (size_t)begin * dtype_size(g.type), g.type, 1, n);
    int32_t owner;
    (void)owner_of(r, begin, &owner);
    r->left = begin;
    return r->shared ? communicator_reduce(r->communicator, part, owner)
                     : communicator_all_reduce(r->communicator, part);
}

/* Buckets are the same on every rank, whatever is complete where: they depend on `left` alone. */
static int64_t next_begin(const gradient_reducer *r)
{
    int32_t owner;
    const int64_t begin = later(0, r->left - r->bucket);
    const int64_t aligned = (begin + SHARE_STEP - 1) / SHARE_STEP * SHARE_STEP;
    const int64_t cut = aligned < r->left ? aligned : begin;
    return r->shared ? later(cut, owner_of(r, r->left - 1, &owner).begin) : cut;
}

static cudpo_status ready(void *context, int64_t first)
{
    gradient_reducer *r = context;
    while (r->left > 0 && next_begin(r) >= first)
        CUDPO_TRY(hand_on(r, next_begin(r)));
    return CUDPO_OK;
}

void reducer_follow(gradient_reducer *r, model_workspace *ws)
{
    if (r->communicator->size > 1) ws->follower = (gradient_follower){ready, r};
}

cudpo_status reducer_finish(gradient_reducer *r, model_workspace *ws)
{
    ws->follower = (gradient_follower){NULL, NULL};
    if (r->communicator->size == 1) return CUDPO_OK;
    CUDPO_TRY(ready(r, 0));
    r->left = tensor_elements(r->gradient);
    return CUDPO_OK;
}
