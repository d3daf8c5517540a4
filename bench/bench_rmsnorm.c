/* bench_rmsnorm.c - RMSNorm with the residual sum, its backward pass, and the forward pass again. */
#include "bench/stage.h"

#include <stdio.h>

#define EPSILON 1e-6

static void sizes(bench_case *c, const bench_shape *s)
{
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)s->tokens,
             (long long)s->model.hidden_size);
}

enum { Y, RSTD, SUM, X, BRANCH, W, SQUARES, MEAN };

/* Reads x and branch, writes sum and y: 4 T C elements; rstd beside them. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, C = s->model.hidden_size;
    sizes(c, s);
    c->rounded = s->type == DTYPE_BF16; /* rstd is that of the sum as it is kept */
    c->bytes = 4.0 * (double)(T * C) * bench_element(s->type) + 4.0 * (double)T;
    bench_add(c, BENCH_OUT, s->type, T, C, 1);
    bench_add_sum(c, BENCH_OUT, DTYPE_F32, T, 1, (double)C);
    bench_add(c, BENCH_OUT, s->type, T, C, 1);
    bench_add(c, BENCH_IN, s->type, T, C, 1);
    bench_add(c, BENCH_IN, s->type, T, C, 1);
    bench_add(c, BENCH_IN, s->type, 1, C, 1);
    bench_add(c, BENCH_WORK, s->type, T, C, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, T, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->add_rmsnorm(r->be, t[Y], t[RSTD], t[SUM], t[X], t[BRANCH], t[W], (float)EPSILON);
}
/* y [n,D] = x / root of its mean square, rstd beside it: 1 / root is exp(-log / 2). */
static cudpo_status plain_norm(const bench_run *r, tensor y, tensor rstd, tensor x, tensor w,
                               tensor squares, tensor mean)
{
    CUDPO_TRY(stage(r, squares, MAP_MULTIPLY, x, x));
    CUDPO_TRY(stage_sum(r, mean, squares));
    CUDPO_TRY(stage_by(r, mean, MAP_SCALE, mean, 1.0 / (double)x.cols));
    CUDPO_TRY(stage_by(r, mean, MAP_SHIFT, mean, EPSILON));
    CUDPO_TRY(stage(r, mean, MAP_LOG, mean, (tensor){0}));
    CUDPO_TRY(stage_by(r, mean, MAP_SCALE, mean, -0.5));
    CUDPO_TRY(stage(r, rstd, MAP_EXP, mean, (tensor){0}));
    CUDPO_TRY(stage(r, y, MAP_MULTIPLY, x, rstd));
    return stage(r, y, MAP_MULTIPLY, y, w);
}
static cudpo_status plain_forward(bench_run *r)
{
    const tensor *t = r->t;
    CUDPO_TRY(stage(r, t[SUM], MAP_ADD, t[X], t[BRANCH]));
    return plain_norm(r, t[Y], t[RSTD], t[SUM], t[W], t[SQUARES], t[MEAN]);
}

enum { DX, DW, DY, OF, ROOT, WEIGHT, A, B, M, PARTIAL, TOTAL };

/* Reads dy, x and dx, writes dx: 4 T C elements; rstd beside them. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, C = s->model.hidden_size;
    sizes(c, s);
    c->bytes = 4.0 * (double)(T * C) * bench_element(s->type) + 4.0 * (double)T;
    bench_add_sum(c, BENCH_INOUT, s->type, T, C, (double)C);
    bench_add_sum(c, BENCH_INOUT, DTYPE_F32, 1, C, (double)T);
    bench_add(c, BENCH_IN, s->type, T, C, 1);
    bench_add(c, BENCH_IN, s->type, T, C, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, T, 1, 1);
    bench_add(c, BENCH_IN, s->type, 1, C, 1);
    bench_add(c, BENCH_WORK, s->type, T, C, 1);
    bench_add(c, BENCH_WORK, s->type, T, C, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, T, 1, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, 3 * s->groups, C, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, 1, C, 1);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->rmsnorm_backward(r->be, t[DX], t[DW], t[DY], t[OF], t[ROOT], t[WEIGHT]);
}
/* a = dy w; dx += (a - x rstd^2 mean(a x)) rstd; dw += sums of dy x rstd. */
static cudpo_status plain_backward(bench_run *r)
{
    const tensor *t = r->t, a = t[A], b = t[B], m = t[M], x = t[OF], rstd = t[ROOT];
    CUDPO_TRY(stage(r, a, MAP_MULTIPLY, t[DY], t[WEIGHT]));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, a, x));
    CUDPO_TRY(stage_sum(r, m, b));
    CUDPO_TRY(stage_by(r, m, MAP_SCALE, m, 1.0 / (double)x.cols));
    CUDPO_TRY(stage(r, m, MAP_MULTIPLY, m, rstd));
    CUDPO_TRY(stage(r, m, MAP_MULTIPLY, m, rstd));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, x, m));
    CUDPO_TRY(stage(r, a, MAP_SUBTRACT, a, b));
    CUDPO_TRY(stage(r, a, MAP_MULTIPLY, a, rstd));
    CUDPO_TRY(stage(r, t[DX], MAP_ADD, t[DX], a));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, x, rstd));
    CUDPO_TRY(stage(r, b, MAP_MULTIPLY, b, t[DY]));
    return stage_column_sum(r, t[DW], b, t[PARTIAL], t[TOTAL]);
}

enum { AGAIN_Y, AGAIN_X, AGAIN_RSTD, AGAIN_W };

/* Reads x, writes y: 2 T C elements. */
static cudpo_status make_again(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, C = s->model.hidden_size;
    sizes(c, s);
    c->bytes = 2.0 * (double)(T * C) * bench_element(s->type) + 4.0 * (double)T;
    bench_add(c, BENCH_OUT, s->type, T, C, 1);
    bench_add(c, BENCH_IN, s->type, T, C, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, T, 1, 1);
    bench_add(c, BENCH_IN, s->type, 1, C, 1);
    return CUDPO_OK;
}
static cudpo_status call_again(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->rmsnorm_again(r->be, t[AGAIN_Y], t[AGAIN_X], t[AGAIN_RSTD], t[AGAIN_W]);
}
static cudpo_status plain_again(bench_run *r)
{
    const tensor *t = r->t;
    CUDPO_TRY(stage(r, t[AGAIN_Y], MAP_MULTIPLY, t[AGAIN_X], t[AGAIN_RSTD]));
    return stage(r, t[AGAIN_Y], MAP_MULTIPLY, t[AGAIN_Y], t[AGAIN_W]);
}

const bench_op bench_add_rmsnorm = {"add_rmsnorm", "forward",     0,   make_forward,
                                    call_forward,  plain_forward, NULL};
const bench_op bench_rmsnorm_backward = {"rmsnorm",     "backward",     0,   make_backward,
                                         call_backward, plain_backward, NULL};
const bench_op bench_rmsnorm_again = {"rmsnorm_again", "forward",   0,   make_again,
                                      call_again,      plain_again, NULL};
