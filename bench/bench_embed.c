/* bench_embed.c - embedding rows by token, and their gradient. */
#include "bench/judge.h"

#include <stdio.h>
#include <stdlib.h>

enum { X, TABLE, TOKEN };

static void describe(bench_case *c, const bench_shape *s)
{
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld of %lld", (long long)s->tokens,
             (long long)s->model.hidden_size, (long long)s->model.vocab_size);
}

/* Reads a row of the table, writes one of x for each token. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, C = s->model.hidden_size, V = s->model.vocab_size;
    describe(c, s);
    c->bytes = 2.0 * (double)(T * C) * bench_element(s->type) + 4.0 * (double)T;
    bench_add(c, BENCH_OUT, s->type, T, C, 1);
    bench_add(c, BENCH_IN, s->type, V, C, 1);
    bench_add_index(c, T, V);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    return r->be->embed(r->be, r->t[X], r->t[TABLE], r->t[TOKEN]);
}
static int64_t wrong_forward(const bench_case *c, float *const *got, double value)
{
    const bench_operand *table = &c->operand[TABLE], *token = &c->operand[TOKEN];
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < token->rows * table->cols; i++) {
        const int64_t row = token->index[i / table->cols];
        count += is_other(got[X][i], table->value[row * table->cols + i % table->cols]);
    }
    return count;
}

/* Reads a row of dx, reads and writes one of the table's gradient for each token: random tokens are nearly all different. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, C = s->model.hidden_size, V = s->model.vocab_size;
    describe(c, s);
    c->bytes = (double)(T * C) * (bench_element(s->type) + 8) + 4.0 * (double)T;
    bench_add(c, BENCH_IN, s->type, T, C, 1);
    bench_add(c, BENCH_INOUT, DTYPE_F32, V, C, 1);
    bench_add_index(c, T, V);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    return r->be->embed_backward(r->be, r->t[TABLE], r->t[X], r->t[TOKEN]);
}
static int64_t wrong_backward(const bench_case *c, float *const *got, double value)
{
    const bench_operand *dx = &c->operand[X], *table = &c->operand[TABLE];
    const int64_t C = table->cols, n = table->rows * C;
    double *want = malloc((size_t)n * sizeof *want);
    int64_t count = want == NULL ? n : 0;
    (void)value;
    for (int64_t i = 0; want != NULL && i < n; i++)
        want[i] = (double)table->value[i];
    for (int64_t i = 0; want != NULL && i < dx->rows * C; i++)
        want[c->operand[TOKEN].index[i / C] * C + i % C] += (double)dx->value[i];
    for (int64_t i = 0; want != NULL && i < n; i++)
        count += is_off((double)got[TABLE][i], want[i], DTYPE_F32, 4, 1);
    free(want);
    return count;
}

const bench_op bench_embed = {"embed", "forward",    0, make_forward, call_forward,
                              NULL,    wrong_forward};
const bench_op bench_embed_backward = {"embed", "backward",    0, make_backward, call_backward,
                                       NULL,    wrong_backward};
