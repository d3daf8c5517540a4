/* bench_bias.c - the bias of q, k and v, and its gradient. */
#include "bench/stage.h"

#include <stdio.h>

enum { X, BIAS, PARTIAL, TOTAL };

static int64_t width(const bench_shape *s)
{
    return (s->model.num_attention_heads + 2 * s->model.num_key_value_heads) * s->model.head_dim;
}

static void describe(bench_case *c, const bench_shape *s)
{
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)s->tokens, (long long)width(s));
}

/* Reads x, writes it: 2 T N elements. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    describe(c, s);
    c->bytes = 2.0 * (double)(s->tokens * width(s)) * bench_element(s->type);
    bench_add(c, BENCH_INOUT, s->type, s->tokens, width(s), 1);
    bench_add(c, BENCH_IN, s->type, 1, width(s), 1);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    return r->be->bias_add(r->be, r->t[X], r->t[BIAS]);
}
static cudpo_status plain_forward(bench_run *r)
{
    return stage(r, r->t[X], MAP_ADD, r->t[X], r->t[BIAS]);
}

/* Reads dx: T N elements. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    describe(c, s);
    c->bytes = (double)(s->tokens * width(s)) * bench_element(s->type);
    bench_add(c, BENCH_IN, s->type, s->tokens, width(s), 1);
    bench_add_sum(c, BENCH_INOUT, DTYPE_F32, 1, width(s), (double)s->tokens);
    bench_add(c, BENCH_WORK, DTYPE_F32, 3 * s->groups, width(s), 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, 1, width(s), 1);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    return r->be->bias_backward(r->be, r->t[BIAS], r->t[X]);
}
static cudpo_status plain_backward(bench_run *r)
{
    return stage_column_sum(r, r->t[BIAS], r->t[X], r->t[PARTIAL], r->t[TOTAL]);
}

const bench_op bench_bias_add = {"bias",       "forward",     0,   make_forward,
                                 call_forward, plain_forward, NULL};
const bench_op bench_bias_backward = {"bias",        "backward",     0,   make_backward,
                                      call_backward, plain_backward, NULL};
