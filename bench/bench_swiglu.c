/* bench_swiglu.c - SwiGLU, forward and backward. */
#include "bench/stage.h"

#include <stdio.h>

enum { ACT, GATE_UP, DGATE_UP, WORK, MORE };

static void sizes(bench_case *c, const bench_shape *s)
{
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)s->tokens,
             (long long)s->model.intermediate_size);
}

/* Reads gate and up, writes act: 3 T F elements. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, F = s->model.intermediate_size;
    sizes(c, s);
    c->bytes = 3.0 * (double)(T * F) * bench_element(s->type);
    bench_add(c, BENCH_OUT, s->type, T, F, 1);
    bench_add(c, BENCH_IN, s->type, T, 2 * F, 1);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    return r->be->swiglu(r->be, r->t[ACT], r->t[GATE_UP]);
}
static cudpo_status plain_forward(bench_run *r)
{
    const tensor act = r->t[ACT], gate = tensor_cols(r->t[GATE_UP], 0, act.cols);
    const tensor up = tensor_cols(r->t[GATE_UP], act.cols, act.cols);
    CUDPO_TRY(stage(r, act, MAP_SIGMOID, gate, (tensor){0}));
    CUDPO_TRY(stage(r, act, MAP_MULTIPLY, act, gate));
    return stage(r, act, MAP_MULTIPLY, act, up);
}

/* Reads dact, gate and up, writes dgate and dup: 5 T F elements. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, F = s->model.intermediate_size;
    sizes(c, s);
    c->bytes = 5.0 * (double)(T * F) * bench_element(s->type);
    bench_add(c, BENCH_IN, s->type, T, F, 1); /* dact */
    bench_add(c, BENCH_IN, s->type, T, 2 * F, 1);
    bench_add(c, BENCH_OUT, s->type, T, 2 * F, 1);
    bench_add(c, BENCH_WORK, s->type, T, F, 1);
    bench_add(c, BENCH_WORK, s->type, T, F, 1);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    return r->be->swiglu_backward(r->be, r->t[DGATE_UP], (tensor){0}, r->t[ACT], r->t[GATE_UP]);
}
/* With s = sigmoid(g): dgate = dact up s (1 + g (1 - s)), dup = dact s g. */
static cudpo_status plain_backward(bench_run *r)
{
    const tensor dact = r->t[ACT], gate_up = r->t[GATE_UP], s = r->t[WORK], x = r->t[MORE];
    const int64_t F = dact.cols;
    const tensor gate = tensor_cols(gate_up, 0, F), up = tensor_cols(gate_up, F, F);
    const tensor dgate = tensor_cols(r->t[DGATE_UP], 0, F), dup = tensor_cols(r->t[DGATE_UP], F, F);
    CUDPO_TRY(stage(r, s, MAP_SIGMOID, gate, (tensor){0}));
    CUDPO_TRY(stage_by(r, x, MAP_SCALE, s, -1));
    CUDPO_TRY(stage_by(r, x, MAP_SHIFT, x, 1));
    CUDPO_TRY(stage(r, x, MAP_MULTIPLY, x, gate));
    CUDPO_TRY(stage_by(r, x, MAP_SHIFT, x, 1));
    CUDPO_TRY(stage(r, x, MAP_MULTIPLY, x, s));
    CUDPO_TRY(stage(r, x, MAP_MULTIPLY, x, up));
    CUDPO_TRY(stage(r, dgate, MAP_MULTIPLY, x, dact));
    CUDPO_TRY(stage(r, s, MAP_MULTIPLY, s, gate));
    return stage(r, dup, MAP_MULTIPLY, s, dact);
}

const bench_op bench_swiglu = {"swiglu",     "forward",     0,   make_forward,
                               call_forward, plain_forward, NULL};
const bench_op bench_swiglu_backward = {"swiglu",      "backward",     0,   make_backward,
                                        call_backward, plain_backward, NULL};
