/* bench_scores.c - from token scores to the loss: sums of segments, KTO's estimate, the loss, coefficients of rows.  Few
 * numbers: a launch is all that they cost. */
#include "bench/judge.h"
#include "preference/loss.h"

#include <stdio.h>

/* Score rows of all groups; 2 sequences a group. */
static int64_t rows_of(const bench_shape *s)
{
    return 2 * s->length * s->groups;
}

static void describe(bench_case *c, int64_t n, const char *what, int64_t of)
{
    c->type = DTYPE_F32;
    snprintf(c->text, sizeof c->text, "%lld %s%lld", (long long)n, what, (long long)of);
}

enum { SUMS, TERMS, BEGIN };

static cudpo_status make_sum(bench_case *c, const bench_shape *s)
{
    const int64_t R = rows_of(s), S = 2 * s->groups;
    describe(c, S, "sums of ", s->length);
    c->bytes = 4.0 * (double)(R + S);
    bench_add_sum(c, BENCH_OUT, DTYPE_F32, S, 1, (double)s->length);
    bench_add(c, BENCH_IN, DTYPE_F32, R, 1, 1);
    bench_add_index(c, S + 1, 1);
    for (int64_t i = 0; c->operand[BEGIN].index != NULL && i <= S; i++)
        c->operand[BEGIN].index[i] = (int32_t)(i * s->length);
    return CUDPO_OK;
}
static cudpo_status call_sum(bench_run *r)
{
    return r->be->segment_sum(r->be, r->t[SUMS], r->t[TERMS], r->t[BEGIN]);
}
/* Sums in double, rounded once. */
static int64_t wrong_sum(const bench_case *c, float *const *got, double value)
{
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < c->operand[SUMS].rows; i++) {
        double want = 0;
        for (int32_t r = c->operand[BEGIN].index[i]; r < c->operand[BEGIN].index[i + 1]; r++)
            want += (double)c->operand[TERMS].value[r];
        count += is_off((double)got[SUMS][i], want, DTYPE_F32, 1, 1e-6);
    }
    return count;
}

enum { KL, POLICY, REFERENCE };

static cudpo_status make_kl(bench_case *c, const bench_shape *s)
{
    const int64_t n = 2 * s->groups;
    describe(c, n, "units in batches of ", 8);
    c->bytes = 12.0 * (double)n;
    bench_add(c, BENCH_OUT, DTYPE_F32, n, 1, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, n, 1, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, n, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_kl(bench_run *r)
{
    return r->be->kl_estimate(r->be, r->t[KL], r->t[POLICY], r->t[REFERENCE], 8);
}
static int64_t wrong_kl(const bench_case *c, float *const *got, double value)
{
    const int64_t n = c->operand[KL].rows;
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < n; i++) {
        const int64_t begin = i / 8 * 8, end = begin + 8 < n ? begin + 8 : n;
        double sum = 0;
        for (int64_t j = begin; j < end; j++)
            sum += (double)c->operand[POLICY].value[j] - (double)c->operand[REFERENCE].value[j];
        count += is_off((double)got[KL][i], fmax(0, sum / (double)(end - begin)), DTYPE_F32, 4, 1);
    }
    return count;
}

enum { COEFFICIENT, COLUMNS, SCORE, SCORE_REFERENCE, TOKENS };

static loss_parameters parameters(const bench_case *c)
{
    return (loss_parameters){.kind = LOSS_SIGMOID,
                             .beta = 0.1,
                             .desirable_weight = 1,
                             .undesirable_weight = 1,
                             .unit_scale = 1.0 / (double)c->operand[COLUMNS].rows,
                             .token_scale = 1};
}

static cudpo_status make_loss(bench_case *c, const bench_shape *s)
{
    const int64_t G = s->groups, S = 2 * G;
    describe(c, G, "pairs of sigmoid, tokens ", s->length);
    c->bytes = 4.0 * (double)(4 * S + LOSS_COLUMNS * G);
    bench_add(c, BENCH_OUT, DTYPE_F32, S, 1, 1);
    bench_add(c, BENCH_OUT, DTYPE_F32, G, LOSS_COLUMNS, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, S, 1, 10);
    bench_add(c, BENCH_IN, DTYPE_F32, S, 1, 10);
    bench_add_index(c, S, s->length);
    return CUDPO_OK;
}
static cudpo_status call_loss(bench_run *r)
{
    const loss_parameters p = parameters(r->c);
    const loss_outputs out = {.coefficient = r->t[COEFFICIENT], .columns = r->t[COLUMNS]};
    const loss_inputs in = {.policy = r->t[SCORE],
                            .reference = r->t[SCORE_REFERENCE],
                            .tokens = r->t[TOKENS],
                            .completions = 2,
                            .sequences = 2};
    return r->be->preference_loss(r->be, &out, &in, &p);
}
/* The maths is one definition: this looks at what goes in where. */
static int64_t wrong_loss(const bench_case *c, float *const *got, double value)
{
    const loss_parameters p = parameters(c);
    int64_t count = 0;
    (void)value;
    for (int64_t g = 0; g < c->operand[COLUMNS].rows; g++) {
        loss_unit u = {0};
        loss_result want;
        for (int i = 0; i < 2; i++) {
            u.policy[i] = (double)c->operand[SCORE].value[2 * g + i];
            u.reference[i] = (double)c->operand[SCORE_REFERENCE].value[2 * g + i];
            u.tokens[i] = c->operand[TOKENS].index[2 * g + i];
        }
        loss_unit_evaluate(&want, &u, &p);
        for (int i = 0; i < 2; i++)
            count += is_off((double)got[COEFFICIENT][2 * g + i], want.coefficient[i], DTYPE_F32, 2,
                            1e-9);
        for (int i = 0; i < LOSS_COLUMNS; i++)
            count += is_off((double)got[COLUMNS][g * LOSS_COLUMNS + i], want.column[i], DTYPE_F32,
                            2, 1e-9);
    }
    return count;
}

enum { ROW, OF_SEQUENCE, SEQUENCE, ROW_SCALE };

static cudpo_status make_rows(bench_case *c, const bench_shape *s)
{
    const int64_t R = rows_of(s), S = 2 * s->groups;
    describe(c, R, "rows of ", S);
    c->bytes = 12.0 * (double)R + 4.0 * (double)S;
    bench_add(c, BENCH_OUT, DTYPE_F32, R, 1, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, S, 1, 1);
    bench_add_index(c, R, 1);
    for (int64_t i = 0; c->operand[SEQUENCE].index != NULL && i < R; i++)
        c->operand[SEQUENCE].index[i] = (int32_t)(i / s->length);
    bench_add(c, BENCH_IN, DTYPE_F32, R, 1, 1);
    return CUDPO_OK;
}
static cudpo_status call_rows(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->row_coefficients(r->be, t[ROW], t[OF_SEQUENCE], t[SEQUENCE], t[ROW_SCALE]);
}
static int64_t wrong_rows(const bench_case *c, float *const *got, double value)
{
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < c->operand[ROW].rows; i++) {
        const float of = c->operand[OF_SEQUENCE].value[c->operand[SEQUENCE].index[i]];
        const double want = -(double)of * (double)c->operand[ROW_SCALE].value[i];
        count += is_off((double)got[ROW][i], want, DTYPE_F32, 1, 0);
    }
    return count;
}

const bench_op bench_segment_sum = {"segment_sum", "", 0, make_sum, call_sum, NULL, wrong_sum};
const bench_op bench_kl_estimate = {"kl_estimate", "", 0, make_kl, call_kl, NULL, wrong_kl};
const bench_op bench_preference_loss = {"preference_loss", "",   0,         make_loss,
                                        call_loss,         NULL, wrong_loss};
const bench_op bench_row_coefficients = {"row_coefficients", "",   0,         make_rows,
                                         call_rows,          NULL, wrong_rows};
