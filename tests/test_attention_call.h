/* test_attention_call.h - attention's launchers, called directly. */
#ifndef CUDPO_TEST_ATTENTION_CALL_H
#define CUDPO_TEST_ATTENTION_CALL_H

#include "test_attention.h"
#include "backend/cuda/ops.h"

static const pack_shape small = {2, 1, 8, 0, 2, 1, {5, 4}, {{3}, {2}}}; /* begins 0 5 8 12, of 14 */

/* All tensors of the launchers, dense. */
typedef struct call {
    tensor dqkv, dout, qkv, out, lse, plan, segments, wanted, fault;
    scratch memory;
    attention_shape shape;
    int64_t T;
    cudpo_stream stream;
} call;

static inline call call_create(ops *o, const problem *x, dtype type, size_t bytes)
{
    call c = {.shape = x->shape, .T = x->T, .stream = ((cuda_backend *)o->be)->stream};
    c.qkv = gapped(o, type, x->qkv, x->T, x->W, 0);
    c.dout = gapped(o, type, x->dout, x->T, x->Q, 0);
    c.out = ops_output_as(o, type, x->T, x->Q);
    c.dqkv = ops_output_as(o, type, x->T, x->W);
    c.lse = ops_output(o, x->T, x->shape.heads);
    c.plan = ops_make(o, DTYPE_I32, cuda_attention_plan_words(x->T, x->N), 1, 1);
    c.segments = ops_indices(o, x->segments, x->N, SEGMENT_FIELDS);
    if (x->wanted != NULL) c.wanted = ops_indices(o, x->wanted, x->U, 1);
    const tensor memory = ops_make(o, DTYPE_F32, 1, (int64_t)(bytes / 4), (int64_t)(bytes / 4));
    c.memory = (scratch){memory.data, bytes};
    return c;
}

static inline cudpo_status plan(const call *c)
{
    return cuda_attention_plan(c->plan, c->segments, c->wanted, c->T, c->shape, c->fault,
                               c->stream);
}

static inline cudpo_status forward(const call *c)
{
    return cuda_attention(c->out, c->lse, c->qkv, c->plan, c->shape, c->fault, c->stream);
}

static inline cudpo_status backward(const call *c)
{
    return cuda_attention_backward(c->dqkv, c->dout, c->qkv, c->out, c->lse, c->plan, c->shape,
                                   c->memory, c->fault, c->stream);
}

static inline size_t scratch_bytes(const problem *x, dtype type, int kv_heads)
{
    return cuda_attention_backward_scratch(x->T, x->N, x->shape, type, kv_heads);
}

#endif /* CUDPO_TEST_ATTENTION_CALL_H */
