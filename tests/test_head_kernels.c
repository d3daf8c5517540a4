/* test_head_kernels.c - the ops of the head in a row: from logits of policy and reference to the gradient of the loss. */
/* rooms: preference backend base */
/* backends: cpu cuda */
#include "test_token_logprob.h"
#include "preference/loss.h"

enum { V = 44, ROWS_MAX = 5 };

/* Units of n sequences of 0 to 4 rows; of orpo, which needs tokens, of 1 to 5. */
typedef struct batch {
    score_kind kind;
    loss_parameters p;
    int completions, n;
    int64_t G, S, R;
    float *policy, *reference;         /* [R,V] */
    int32_t *label, *sequence, *begin; /* [R], [R], [S+1] */
    int32_t *tokens, *desirable;       /* [S], [G] */
    float *kl;                         /* [G] */
} batch;

static batch make_batch(loss_kind loss, score_kind kind, int completions, int n, int64_t G)
{
    const int64_t S = G * n;
    batch b = {.kind = kind,
               .p = {.kind = loss,
                     .beta = 0.3,
                     .label_smoothing = 0.1,
                     .desirable_weight = 1.0,
                     .undesirable_weight = 1.5,
                     .unit_scale = 1.0 / (double)G},
               .completions = completions,
               .n = n,
               .G = G,
               .S = S,
               .policy = random_floats(1, S * ROWS_MAX * V),
               .reference = random_floats(2, S * ROWS_MAX * V),
               .label = zeros(S * ROWS_MAX, 4),
               .sequence = zeros(S * ROWS_MAX, 4),
               .begin = zeros(S + 1, 4),
               .tokens = zeros(S, 4),
               .desirable = zeros(G, 4),
               .kl = zeros(G, 4)};
    for (int64_t s = 0; s < S; s++) {
        const int rows = (int)(s * 7 + 3) % 5 + (loss == LOSS_ORPO);
        b.tokens[s] = rows;
        b.begin[s + 1] = b.begin[s] + rows;
        for (int r = 0; r < rows; r++, b.R++) {
            b.label[b.R] = (int32_t)rng_below(5, 1, (uint64_t)b.R, V);
            b.sequence[b.R] = (int32_t)s;
        }
    }
    b.p.token_scale = 1.0 / (double)b.R;
    for (int64_t g = 0; g < G; g++) {
        b.desirable[g] = g % 2 == 0;
        b.kl[g] = 0.25f * (float)(g % 3);
    }
    round_to(kind.logits, b.policy, b.R * V);
    round_to(kind.logits, b.reference, b.R * V);
    return b;
}

static void batch_free(batch *b)
{
    free(b->policy);
    free(b->reference);
    free(b->label);
    free(b->sequence);
    free(b->begin);
    free(b->tokens);
    free(b->desirable);
    free(b->kl);
}

/* What the ops leave. */
typedef struct outcome {
    float *gradient;      /* [R,V] as stored */
    float *row;           /* [R] what to multiply it with */
    float *scores, *hits; /* [S] of the policy; sums of STAT_HIT */
    float *columns;       /* [G,LOSS_COLUMNS] */
} outcome;

static outcome run(backend *be, const batch *b)
{
    const int64_t R = b->R, S = b->S, G = b->G;
    outcome out = {zeros(R * V, 4), zeros(R, 4), zeros(S, 4), zeros(S, 4),
                   zeros(G * LOSS_COLUMNS, 4)};
    float *sums = zeros(S * ROW_STATS, 4);
    ops o = ops_begin(be);
    const logprob_tensors t = {.logp = ops_output(&o, R, 1),
                               .stats = ops_output(&o, R, ROW_STATS),
                               .scale = ops_output(&o, R, 1),
                               .logits = ops_floats_as(&o, b->kind.logits, b->policy, R, V),
                               .label = ops_indices(&o, b->label, R, 1),
                               .reference_logp = ops_output(&o, R, 1),
                               .reference_logits =
                                   ops_floats_as(&o, b->kind.logits, b->reference, R, V),
                               .gradient_type = b->kind.gradient};
    const tensor begin = ops_indices(&o, b->begin, S + 1, 1), row = ops_output(&o, R, 1);
    const tensor policy = ops_output(&o, S, 1), reference = ops_output(&o, S, 1);
    const tensor stats = ops_output(&o, S, ROW_STATS);
    loss_inputs in = {.policy = policy,
                      .tokens = ops_indices(&o, b->tokens, S, 1),
                      .label = ops_indices(&o, b->desirable, G, 1),
                      .kl = ops_floats(&o, b->kl, G, 1),
                      .completions = b->completions,
                      .sequences = b->n};
    const loss_outputs loss = {.coefficient = ops_output(&o, S, 1),
                               .columns = ops_output(&o, G, LOSS_COLUMNS)};
    if (b->p.kind != LOSS_ORPO) in.reference = reference;
    CHECK_OK(be->token_logprob(be, &t, true));
    CHECK_OK(be->segment_sum(be, policy, t.logp, begin));
    CHECK_OK(be->segment_sum(be, reference, t.reference_logp, begin));
    CHECK_OK(be->segment_sum(be, stats, t.stats, begin));
    CHECK_OK(be->preference_loss(be, &loss, &in, &b->p));
    CHECK_OK(be->row_coefficients(be, row, loss.coefficient, ops_indices(&o, b->sequence, R, 1),
                                  t.scale));
    ops_get_floats(&o, out.gradient, gradient_in(t.logits, b->kind.gradient));
    ops_get(&o, out.row, row);
    ops_get(&o, out.scores, policy);
    ops_get(&o, out.columns, loss.columns);
    ops_get(&o, sums, stats);
    for (int64_t s = 0; s < S; s++) {
        out.hits[s] = sums[s * ROW_STATS + STAT_HIT];
    }
    ops_end(&o);
    free(sums);
    return out;
}

static void outcome_free(outcome *out)
{
    free(out->gradient);
    free(out->row);
    free(out->scores);
    free(out->hits);
    free(out->columns);
}

static double log_softmax(const double *z, int32_t label)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++) {
        most = fmax(most, z[i]);
    }
    for (int i = 0; i < V; i++) {
        sum += exp(z[i] - most);
    }
    return z[label] - most - log(sum);
}

/* One unit of a batch, its reference scores fixed. */
typedef struct unit {
    const batch *b;
    int64_t g;
    loss_unit fixed;
} unit;

static int place_of(const batch *b, int i)
{
    return i < b->completions ? i : 2;
}

/* Rows of a sequence of this unit, from its own first one. */
static int64_t rows_of(const unit *u, int i, int64_t *first)
{
    const int32_t *begin = u->b->begin + u->g * u->b->n;
    *first = begin[i] - begin[0];
    return begin[i + 1] - begin[i];
}

static loss_result evaluate(const unit *u, const double *z)
{
    loss_unit x = u->fixed;
    loss_result r;
    const int32_t *label = u->b->label + u->b->begin[u->g * u->b->n];
    for (int i = 0; i < u->b->n; i++) {
        int64_t first;
        const int64_t rows = rows_of(u, i, &first);
        x.policy[place_of(u->b, i)] = 0;
        for (int64_t r_ = first; r_ < first + rows; r_++) {
            x.policy[place_of(u->b, i)] += log_softmax(z + r_ * V, label[r_]);
        }
    }
    loss_unit_evaluate(&r, &x, &u->b->p);
    return r;
}

static double loss_of(const double *z, const void *context)
{
    return evaluate(context, z).column[LOSS_VALUE];
}

/* The unit, and how far its scores may be off: every row by its error, every sum by its rounding. */
static unit unit_of(const batch *b, int64_t g, const outcome *out, double off[3])
{
    unit u = {.b = b, .g = g, .fixed = {.label = b->desirable[g] != 0, .kl = (double)b->kl[g]}};
    for (int i = 0; i < b->n; i++) {
        const int64_t s = g * b->n + i;
        const int place = place_of(b, i);
        double policy = 0, reference = 0, hits = 0, error = 0;
        for (int64_t r = b->begin[s]; r < b->begin[s + 1]; r++) {
            exact x = exactly(b->policy + r * V, V, b->label[r], b->kind.logits);
            exact y = exactly(b->reference + r * V, V, b->label[r], b->kind.logits);
            policy += x.logp, reference += y.logp, hits += x.hit;
            error += x.rest + y.rest + fabs(x.logp) + fabs(y.logp);
            exact_free(&x);
            exact_free(&y);
        }
        off[place] = (error + fabs(policy) + fabs(reference)) * EPS;
        u.fixed.tokens[place] = b->tokens[s];
        u.fixed.policy[place] = policy;
        u.fixed.reference[place] = b->p.kind == LOSS_ORPO ? 0 : reference;
        CHECK_NEAR(out->scores[s], policy, off[place]);
        assert_true((double)out->hits[s] == hits);
    }
    return u;
}

/* How far results may be off because scores are: by their slopes there. */
static loss_result slack_of(const unit *u, const double off[3])
{
    loss_result slack = {{0}, {0}}, at, moved;
    loss_unit_evaluate(&at, &u->fixed, &u->b->p);
    for (int place = 0; place < 3; place++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            loss_unit x = u->fixed;
            x.policy[place] += sign * off[place];
            loss_unit_evaluate(&moved, &x, &u->b->p);
            for (int i = 0; i < 3; i++) {
                slack.coefficient[i] += fabs(moved.coefficient[i] - at.coefficient[i]);
            }
            slack.column[LOSS_VALUE] += fabs(moved.column[LOSS_VALUE] - at.column[LOSS_VALUE]);
        }
    }
    return slack;
}

/* The gradient in all logits of one unit, by finite differences, and what the ops made of it. */
static void check_slopes(const unit *u, const outcome *out, const loss_result *slack)
{
    const batch *b = u->b;
    const int64_t first = b->begin[u->g * b->n], rows = b->begin[(u->g + 1) * b->n] - first;
    double *z = zeros(rows * V, sizeof *z);
    for (int64_t i = 0; i < rows * V; i++) {
        z[i] = (double)b->policy[first * V + i];
    }
    const loss_result at = evaluate(u, z);
    for (int64_t r = 0; r < rows; r++) {
        const int place = place_of(b, b->sequence[first + r] % b->n);
        exact x = exactly(b->policy + (first + r) * V, V, b->label[first + r], b->kind.logits);
        for (int i = 0; i < V; i++) {
            const int64_t at_row = first + r;
            const double got = (double)out->gradient[at_row * V + i] * (double)out->row[at_row];
            const double want = slope(loss_of, z, r * V + i, u);
            const double rounding = b->kind.gradient == DTYPE_F32 ? 1 : EPS_BF16 / EPS;
            /* e, its rounding and 1 / S as check_gradient() has them, the roundings of coefficient and product, what the
             * scores are off, and what finite differences are. */
            const double units = x.error[i] + x.rest + rounding + 4;
            const double size = fabs(at.coefficient[place]);
            const double label_units = i == b->label[at_row] ? (x.rest + 1) * size : 0;
            CHECK_NEAR(got, want,
                       units * EPS * fabs(want) + label_units * EPS + slack->coefficient[place] +
                           1e-9 * (size + 1));
        }
        exact_free(&x);
    }
    free(z);
}

static void check_batch(backend *be, batch b)
{
    outcome out = run(be, &b);
    for (int64_t g = 0; g < b.G; g++) {
        double off[3] = {0};
        const unit u = unit_of(&b, g, &out, off);
        const loss_result slack = slack_of(&u, off);
        loss_result want;
        loss_unit_evaluate(&want, &u.fixed, &b.p);
        CHECK_NEAR(out.columns[g * LOSS_COLUMNS + LOSS_VALUE], want.column[LOSS_VALUE],
                   slack.column[LOSS_VALUE] + fabs(want.column[LOSS_VALUE]) * 2 * EPS);
        if (g < 2 || g == b.G - 1) check_slopes(&u, &out, &slack);
    }
    outcome_free(&out);
    batch_free(&b);
}

static void every_loss(backend *be)
{
    static const struct {
        loss_kind loss;
        int completions, n;
    } c[] = {{LOSS_SIGMOID, 2, 2}, {LOSS_HINGE, 2, 2}, {LOSS_IPO, 2, 2}, {LOSS_KTO, 1, 1},
             {LOSS_ORPO, 2, 3},    {LOSS_SFT, 1, 1},   {LOSS_SFT, 2, 2}};
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        for (int k = 0; k < score_kinds_of(be); k++) {
            check_batch(be, make_batch(c[i].loss, score_kinds[k], c[i].completions, c[i].n, 3));
        }
    }
}

static void batches_of_many_units(backend *be)
{
    static const int64_t G[] = {1, 2, 17, 64};
    for (int i = 0; i < 4; i++) {
        const score_kind kind = score_kinds[i % score_kinds_of(be)];
        check_batch(be, make_batch(LOSS_SIGMOID, kind, 2, 2, G[i]));
    }
}

/* Where reference and policy are one, every score is the same bits, every reward 0, and the loss ln 2. */
static void the_first_step(backend *be)
{
    for (int k = 0; k < score_kinds_of(be); k++) {
        batch b = make_batch(LOSS_SIGMOID, score_kinds[k], 2, 2, 8);
        memcpy(b.reference, b.policy, (size_t)(b.R * V) * sizeof(float));
        outcome out = run(be, &b);
        double total = 0;
        for (int64_t g = 0; g < b.G; g++) {
            const float *columns = out.columns + g * LOSS_COLUMNS;
            assert_true(columns[LOSS_REWARD_CHOSEN] == 0 && columns[LOSS_REWARD_REJECTED] == 0);
            total += (double)columns[LOSS_VALUE];
        }
        CHECK_NEAR(total, 0.69314718056, 2 * EPS);
        outcome_free(&out);
        batch_free(&b);
    }
}

static const op_case cases[] = {
    {"every_loss", every_loss},
    {"batches_of_many_units", batches_of_many_units},
    {"the_first_step", the_first_step},
};
OPS_MAIN(cases)
