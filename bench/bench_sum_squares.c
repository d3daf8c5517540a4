/* bench_sum_squares.c - the squared norm of the gradients of a layer, and the factor that clips them. */
#include "bench/judge.h"
#include "bench/stage.h"

#include <stdio.h>

enum { NORM, FACTOR, GRADIENT, SQUARES, ROWS, TOTAL };

#define MAX_NORM 1.0

/* Reads the gradient once. */
static cudpo_status make(bench_case *c, const bench_shape *s)
{
    const model_config *m = &s->model;
    const int64_t rows = 3 * m->intermediate_size, C = m->hidden_size;
    c->type = s->type;
    c->bytes = (double)(rows * C) * bench_element(s->type);
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)rows, (long long)C);
    bench_add(c, BENCH_OUT, DTYPE_F32, 1, 1, 1);
    bench_add(c, BENCH_OUT, DTYPE_F32, 1, 1, 1);
    bench_add(c, BENCH_IN, s->type, rows, C, 0.02f);
    bench_add(c, BENCH_WORK, DTYPE_F32, rows, C, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, rows, 1, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, 1, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_clip(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->clip(r->be, t[NORM], t[FACTOR], t[GRADIENT], (float)MAX_NORM);
}
static cudpo_status plain_clip(bench_run *r)
{
    const tensor *t = r->t;
    CUDPO_TRY(stage(r, t[SQUARES], MAP_MULTIPLY, t[GRADIENT], t[GRADIENT]));
    CUDPO_TRY(stage_sum(r, t[ROWS], t[SQUARES]));
    CUDPO_TRY(stage_sum(r, t[TOTAL], t[ROWS]));
    CUDPO_TRY(stage(r, t[NORM], MAP_SQRT, t[TOTAL], (tensor){0}));
    CUDPO_TRY(stage_by(r, t[TOTAL], MAP_SHIFT, t[NORM], 1e-6));
    CUDPO_TRY(stage_by(r, t[FACTOR], MAP_SCALE, t[NORM], 0));
    CUDPO_TRY(stage_by(r, t[FACTOR], MAP_SHIFT, t[FACTOR], MAX_NORM));
    return stage(r, t[FACTOR], MAP_DIVIDE, t[FACTOR], t[TOTAL]);
}

static double squares_of(const bench_case *c)
{
    const bench_operand *g = &c->operand[GRADIENT];
    double sum = 0;
    for (int64_t i = 0; i < g->rows * g->cols; i++)
        sum += (double)g->value[i] * (double)g->value[i];
    return sum;
}
static int64_t wrong_clip(const bench_case *c, float *const *got, double value)
{
    const double norm = sqrt(squares_of(c));
    (void)value;
    return is_off((double)got[NORM][0], norm, DTYPE_F32, 4, 0) +
           is_off((double)got[FACTOR][0], fmin(1, MAX_NORM / (norm + 1e-6)), DTYPE_F32, 4, 0);
}

static cudpo_status make_sum(bench_case *c, const bench_shape *s)
{
    CUDPO_TRY(make(c, s));
    c->operand[NORM].role = c->operand[FACTOR].role = BENCH_WORK; /* its result goes to the host */
    return CUDPO_OK;
}
static cudpo_status call_sum(bench_run *r)
{
    return r->be->sum_squares(r->be, &r->value, r->t[GRADIENT]);
}
static int64_t wrong_sum(const bench_case *c, float *const *got, double value)
{
    (void)got;
    return is_off(value, squares_of(c), DTYPE_F32, 8, 0);
}

const bench_op bench_clip = {"clip", "", 0, make, call_clip, plain_clip, wrong_clip};
const bench_op bench_sum_squares = {"sum_squares", "",         0,        make_sum,
                                    call_sum,      plain_clip, wrong_sum};
