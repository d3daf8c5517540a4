/* bench_add.c - ops that are one stage: sum, cast, scaled rows, copy, zero, and the stages themselves. */
#include "bench/judge.h"
#include "bench/stage.h"

#include <stdio.h>

enum { OUT, A, B };

static void describe(bench_case *c, const bench_shape *s, double elements)
{
    c->type = s->type;
    c->bytes = elements * (double)(s->tokens * s->model.hidden_size) * bench_element(s->type);
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)s->tokens,
             (long long)s->model.hidden_size);
}

static void add_matrix(bench_case *c, const bench_shape *s, bench_role role)
{
    bench_add(c, role, s->type, s->tokens, s->model.hidden_size, 1);
}

/* x += y: 3 T C elements. */
static cudpo_status make_add(bench_case *c, const bench_shape *s)
{
    describe(c, s, 3);
    add_matrix(c, s, BENCH_INOUT);
    add_matrix(c, s, BENCH_IN);
    return CUDPO_OK;
}
static cudpo_status call_add(bench_run *r)
{
    return r->be->add(r->be, r->t[OUT], r->t[A]);
}
static cudpo_status plain_add(bench_run *r)
{
    return stage(r, r->t[OUT], MAP_ADD, r->t[OUT], r->t[A]);
}

/* From float32 to the type of activations. */
static cudpo_status make_cast(bench_case *c, const bench_shape *s)
{
    describe(c, s, 1);
    c->bytes += 4.0 * (double)(s->tokens * s->model.hidden_size);
    add_matrix(c, s, BENCH_OUT);
    bench_add(c, BENCH_IN, DTYPE_F32, s->tokens, s->model.hidden_size, 1);
    return CUDPO_OK;
}
static cudpo_status call_cast(bench_run *r)
{
    return r->be->cast(r->be, r->t[OUT], r->t[A]);
}
static cudpo_status plain_cast(bench_run *r)
{
    return stage(r, r->t[OUT], MAP_COPY, r->t[A], (tensor){0});
}

/* x *= scale of its row: 2 T C elements. */
static cudpo_status make_scale(bench_case *c, const bench_shape *s)
{
    describe(c, s, 2);
    add_matrix(c, s, BENCH_INOUT);
    bench_add(c, BENCH_IN, DTYPE_F32, s->tokens, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_scale(bench_run *r)
{
    return r->be->scale_rows(r->be, r->t[OUT], r->t[A]);
}
static cudpo_status plain_scale(bench_run *r)
{
    return stage(r, r->t[OUT], MAP_MULTIPLY, r->t[OUT], r->t[A]);
}

/* 2 T C elements. */
static cudpo_status make_copy(bench_case *c, const bench_shape *s)
{
    describe(c, s, 2);
    add_matrix(c, s, BENCH_OUT);
    add_matrix(c, s, BENCH_IN);
    return CUDPO_OK;
}
static cudpo_status call_copy(bench_run *r)
{
    return r->be->copy(r->be, r->t[OUT], r->t[A]);
}

/* T C elements. */
static cudpo_status make_zero(bench_case *c, const bench_shape *s)
{
    describe(c, s, 1);
    add_matrix(c, s, BENCH_OUT);
    return CUDPO_OK;
}
static cudpo_status call_zero(bench_run *r)
{
    return r->be->zero(r->be, r->t[OUT]);
}
static int64_t wrong_zero(const bench_case *c, float *const *got, double value)
{
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < c->operand[OUT].rows * c->operand[OUT].cols; i++)
        count += is_other(got[OUT][i], 0);
    return count;
}

/* out = a b: 3 T C elements. */
static cudpo_status make_map(bench_case *c, const bench_shape *s)
{
    describe(c, s, 3);
    add_matrix(c, s, BENCH_OUT);
    add_matrix(c, s, BENCH_IN);
    add_matrix(c, s, BENCH_IN);
    return CUDPO_OK;
}
static cudpo_status call_map(bench_run *r)
{
    return stage(r, r->t[OUT], MAP_MULTIPLY, r->t[A], r->t[B]);
}
static int64_t wrong_map(const bench_case *c, float *const *got, double value)
{
    const bench_operand *out = &c->operand[OUT];
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < out->rows * out->cols; i++) {
        const double want = (double)c->operand[A].value[i] * (double)c->operand[B].value[i];
        count += is_off((double)got[OUT][i], want, out->type, 1, 0);
    }
    return count;
}

/* The sum of each row: T C elements. */
static cudpo_status make_reduce(bench_case *c, const bench_shape *s)
{
    describe(c, s, 1);
    bench_add(c, BENCH_OUT, DTYPE_F32, s->tokens, 1, 1);
    add_matrix(c, s, BENCH_IN);
    return CUDPO_OK;
}
static cudpo_status call_reduce(bench_run *r)
{
    return stage_sum(r, r->t[OUT], r->t[A]);
}
/* Terms are of size 1. */
static int64_t wrong_reduce(const bench_case *c, float *const *got, double value)
{
    const bench_operand *a = &c->operand[A];
    int64_t count = 0;
    (void)value;
    for (int64_t r = 0; r < a->rows; r++) {
        double want = 0;
        for (int64_t i = 0; i < a->cols; i++)
            want += (double)a->value[r * a->cols + i];
        count += is_off((double)got[OUT][r], want, DTYPE_F32, 1, (double)a->cols);
    }
    return count;
}

const bench_op bench_add_op = {"add", "", 0, make_add, call_add, plain_add, NULL};
const bench_op bench_cast = {"cast", "", 0, make_cast, call_cast, plain_cast, NULL};
const bench_op bench_scale_rows = {"scale_rows", "", 0, make_scale, call_scale, plain_scale, NULL};
const bench_op bench_copy = {"copy", "", 0, make_copy, call_copy, plain_cast, NULL};
const bench_op bench_zero = {"zero", "", 0, make_zero, call_zero, NULL, wrong_zero};
const bench_op bench_map = {"map", "", 0, make_map, call_map, NULL, wrong_map};
const bench_op bench_reduce = {"reduce", "", 0, make_reduce, call_reduce, NULL, wrong_reduce};
