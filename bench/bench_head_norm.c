/* bench_head_norm.c - RMSNorm of each query head alone, and its backward pass. */
#include "bench/stage.h"

#include <stdio.h>

#define EPSILON 1e-6

static void describe(bench_case *c, const bench_shape *s)
{
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld heads of %lld", (long long)s->tokens,
             (long long)s->model.num_attention_heads, (long long)s->model.head_dim);
}

enum { Y, RSTD, X, W, SQUARES, MEAN };

/* Reads x, writes y: 2 T Q elements; rstd [T,H] beside them. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, H = s->model.num_attention_heads, D = s->model.head_dim;
    describe(c, s);
    c->bytes = 2.0 * (double)(T * H * D) * bench_element(s->type) + 4.0 * (double)(T * H);
    bench_add(c, BENCH_OUT, s->type, T, H * D, 1);
    bench_add_sum(c, BENCH_OUT, DTYPE_F32, T, H, (double)D);
    bench_add(c, BENCH_IN, s->type, T, H * D, 1);
    bench_add(c, BENCH_IN, s->type, 1, D, 1);
    bench_add(c, BENCH_WORK, s->type, T * H, D, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, T * H, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->head_norm(r->be, t[Y], t[RSTD], t[X], t[W], (float)EPSILON);
}
static cudpo_status plain_forward(bench_run *r)
{
    const int64_t D = r->t[W].cols;
    const tensor x = heads_as_rows(r->t[X], D), y = heads_as_rows(r->t[Y], D), m = r->t[MEAN];
    const tensor rstd = heads_as_rows(r->t[RSTD], 1);
    CUDPO_TRY(stage(r, r->t[SQUARES], MAP_MULTIPLY, x, x));
    CUDPO_TRY(stage_sum(r, m, r->t[SQUARES]));
    CUDPO_TRY(stage_by(r, m, MAP_SCALE, m, 1.0 / (double)D));
    CUDPO_TRY(stage_by(r, m, MAP_SHIFT, m, EPSILON));
    CUDPO_TRY(stage(r, m, MAP_LOG, m, (tensor){0}));
    CUDPO_TRY(stage_by(r, m, MAP_SCALE, m, -0.5));
    CUDPO_TRY(stage(r, rstd, MAP_EXP, m, (tensor){0}));
    CUDPO_TRY(stage(r, y, MAP_MULTIPLY, x, rstd));
    return stage(r, y, MAP_MULTIPLY, y, r->t[W]);
}

enum { DX, DW, DY, OF, ROOT, WEIGHT, A, B, M, PARTIAL, TOTAL };

/* Reads dy and x, writes dx: 3 T Q elements; rstd beside them. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, H = s->model.num_attention_heads, D = s->model.head_dim;
    describe(c, s);
    c->bytes = 3.0 * (double)(T * H * D) * bench_element(s->type) + 4.0 * (double)(T * H);
    bench_add_sum(c, BENCH_OUT, s->type, T, H * D, (double)D);
    bench_add_sum(c, BENCH_INOUT, DTYPE_F32, 1, D, (double)(T * H));
    bench_add(c, BENCH_IN, s->type, T, H * D, 1);
    bench_add(c, BENCH_IN, s->type, T, H * D, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, T, H, 1);
    bench_add(c, BENCH_IN, s->type, 1, D, 1);
    bench_add(c, BENCH_WORK, s->type, T * H, D, 1);
    bench_add(c, BENCH_WORK, s->type, T * H, D, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, T * H, 1, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, 3 * s->groups * H, D, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, 1, D, 1);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->head_norm_backward(r->be, t[DX], t[DW], t[DY], t[OF], t[ROOT], t[WEIGHT]);
}
/* As rmsnorm's, but dx is set. */
static cudpo_status plain_backward(bench_run *r)
{
    const tensor *t = r->t, a = t[A], b = t[B], m = t[M];
    const int64_t D = t[WEIGHT].cols;
    const tensor x = heads_as_rows(t[OF], D), dy = heads_as_rows(t[DY], D);
    const tensor rstd = heads_as_rows(t[ROOT], 1), dx = heads_as_rows(t[DX], D);
    CUDPO_TRY(stage(r, a, MAP_MULTIPLY, dy, t[WEIGHT]));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, a, x));
    CUDPO_TRY(stage_sum(r, m, b));
    CUDPO_TRY(stage_by(r, m, MAP_SCALE, m, 1.0 / (double)D));
    CUDPO_TRY(stage(r, m, MAP_MULTIPLY, m, rstd));
    CUDPO_TRY(stage(r, m, MAP_MULTIPLY, m, rstd));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, x, m));
    CUDPO_TRY(stage(r, a, MAP_SUBTRACT, a, b));
    CUDPO_TRY(stage(r, dx, MAP_MULTIPLY, a, rstd));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, x, rstd));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, b, dy));
    return stage_column_sum(r, t[DW], b, t[PARTIAL], t[TOTAL]);
}

const bench_op bench_head_norm = {"head_norm",  "forward",     0,   make_forward,
                                  call_forward, plain_forward, NULL};
const bench_op bench_head_norm_backward = {"head_norm",   "backward",     0,   make_backward,
                                           call_backward, plain_backward, NULL};
