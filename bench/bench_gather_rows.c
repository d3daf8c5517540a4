/* bench_gather_rows.c - the hidden rows that score rows read, and their gradient back. */
#include "bench/judge.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS, HIDDEN, INDEX, SCALE };

static void describe(bench_case *c, const bench_shape *s, int64_t R)
{
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld of %lld", (long long)R,
             (long long)s->model.hidden_size, (long long)s->tokens);
}

/* As the head sees a pack: per group the last row of the prompt and all rows but the last of the first completion, then
 * the same of the second.  Each row but the prompts' last is read once. */
static int64_t add_operands(bench_case *c, const bench_shape *s, bool forward)
{
    const int64_t n = s->length, R = 2 * n * s->groups, C = s->model.hidden_size;
    describe(c, s, R);
    bench_add(c, forward ? BENCH_OUT : BENCH_IN, s->type, R, C, 1);
    bench_add(c, forward ? BENCH_IN : BENCH_OUT, s->type, s->tokens, C, 1);
    bench_add_index(c, R, s->tokens);
    for (int64_t i = 0; c->operand[INDEX].index != NULL && i < R; i++) {
        const int64_t group = i / (2 * n), completion = i / n % 2, token = i % n;
        const int64_t prompt = group * 3 * n;
        c->operand[INDEX].index[i] =
            (int32_t)(token == 0 ? prompt + n - 1 : prompt + (1 + completion) * n + token - 1);
    }
    return R * C;
}

/* Reads and writes R rows. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    c->bytes = 2.0 * (double)add_operands(c, s, true) * bench_element(s->type);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    return r->be->gather_rows(r->be, r->t[ROWS], r->t[HIDDEN], r->t[INDEX]);
}
static int64_t wrong_forward(const bench_case *c, float *const *got, double value)
{
    const bench_operand *x = &c->operand[HIDDEN], *index = &c->operand[INDEX];
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < index->rows * x->cols; i++)
        count +=
            is_other(got[ROWS][i], x->value[index->index[i / x->cols] * x->cols + i % x->cols]);
    return count;
}

/* Reads R rows, writes all T. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    const int64_t read = add_operands(c, s, false);
    c->bytes = (double)(read + s->tokens * s->model.hidden_size) * bench_element(s->type);
    bench_add(c, BENCH_IN, DTYPE_F32, 2 * s->length * s->groups, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    return r->be->scatter_rows(r->be, r->t[HIDDEN], r->t[ROWS], r->t[INDEX], r->t[SCALE]);
}
static int64_t wrong_backward(const bench_case *c, float *const *got, double value)
{
    const bench_operand *rows = &c->operand[ROWS], *dx = &c->operand[HIDDEN];
    const int64_t C = dx->cols, n = dx->rows * C;
    double *want = calloc((size_t)n, sizeof *want);
    int64_t count = want == NULL ? n : 0;
    (void)value;
    for (int64_t i = 0; want != NULL && i < rows->rows * C; i++)
        want[c->operand[INDEX].index[i / C] * C + i % C] +=
            (double)rows->value[i] * (double)c->operand[SCALE].value[i / C];
    for (int64_t i = 0; want != NULL && i < n; i++) /* of two terms of size 1, at most */
        count += is_off((double)got[HIDDEN][i], want[i], dx->type, 2, want[i] == 0 ? 0 : 1);
    free(want);
    return count;
}

const bench_op bench_gather_rows = {"gather_rows", "forward",    0, make_forward, call_forward,
                                    NULL,          wrong_forward};
const bench_op bench_scatter_rows = {"gather_rows", "backward",    0, make_backward, call_backward,
                                     NULL,          wrong_backward};
