/* test_token_logprob.h - scores of rows of logits on a backend, and what they are in double, within what error. */
#ifndef CUDPO_TEST_TOKEN_LOGPROB_H
#define CUDPO_TEST_TOKEN_LOGPROB_H

#include "test_ops.h"

/* What logits are stored as, and what their gradient is.  The CPU has the first alone. */
typedef struct score_kind {
    dtype logits, gradient;
} score_kind;

static const score_kind score_kinds[] = {
    {DTYPE_F32, DTYPE_F32}, {DTYPE_F32, DTYPE_BF16}, {DTYPE_BF16, DTYPE_BF16}};

static inline int score_kinds_of(const backend *be)
{
    return be->on_device ? 3 : 1;
}

/* Rows stand V + gap elements apart, the first one `shift` elements behind a 256-byte boundary.  gap < 0: the next multiple
 * of 16 bytes. */
typedef struct layout {
    int64_t gap;
    int shift;
} layout;

static inline int64_t layout_stride(layout l, int64_t V)
{
    return l.gap < 0 ? (V + 7) / 8 * 8 : V + l.gap;
}

/* Inputs of a call: host floats, which are rounded to the kind's type in place. */
typedef struct score_call {
    score_kind kind;
    layout at, reference_at;
    float *logits, *reference; /* [R,V]; reference may be NULL */
    const int32_t *label;      /* [R] */
    int64_t R, V;
    bool stats, gradient;
} score_call;

typedef struct scores {
    float *logp, *stats, *scale, *reference_logp;
    float *gradient; /* [R,V] as stored; without a gradient, what the logits are afterwards */
} scores;

/* The rows of a gradient, where they lie in their logits. */
static inline tensor gradient_in(tensor logits, dtype type)
{
    tensor g = logits;
    if (logits.type != type) g.type = type, g.stride *= 2;
    return g;
}

static inline scores score(backend *be, const score_call *c)
{
    const int64_t R = c->R, V = c->V, stride = layout_stride(c->at, V);
    scores s = {zeros(R, 4), zeros(R * ROW_STATS, 4), zeros(R, 4), zeros(R, 4), zeros(R * V, 4)};
    ops o = ops_begin(be);
    logprob_tensors t = {.logits = ops_make_at(&o, c->kind.logits, R, V, stride, c->at.shift),
                         .logp = ops_output(&o, R, 1),
                         .label = ops_indices(&o, c->label, R, 1),
                         .gradient_type = c->kind.gradient};
    round_to(c->kind.logits, c->logits, R * V);
    ops_put_floats(&o, t.logits, c->logits);
    if (c->stats) t.stats = ops_output(&o, R, ROW_STATS);
    if (c->gradient) t.scale = ops_output(&o, R, 1);
    if (c->reference != NULL) {
        t.reference_logits = ops_make_at(&o, c->kind.logits, R, V,
                                         layout_stride(c->reference_at, V), c->reference_at.shift);
        t.reference_logp = ops_output(&o, R, 1);
        round_to(c->kind.logits, c->reference, R * V);
        ops_put_floats(&o, t.reference_logits, c->reference);
    }
    CHECK_OK(be->token_logprob(be, &t, c->gradient));
    ops_get(&o, s.logp, t.logp);
    if (c->stats) ops_get(&o, s.stats, t.stats);
    if (c->gradient) ops_get(&o, s.scale, t.scale);
    ops_get_floats(&o, s.gradient,
                   c->gradient ? gradient_in(t.logits, c->kind.gradient) : t.logits);
    if (c->reference != NULL) {
        float *after = zeros(R * V, 4);
        ops_get(&o, s.reference_logp, t.reference_logp);
        ops_get_floats(&o, after, t.reference_logits);
        assert_memory_equal(after, c->reference, (size_t)(R * V) * 4);
        free(after);
    }
    ops_end(&o);
    return s;
}

static inline void scores_free(scores *s)
{
    free(s->logp);
    free(s->stats);
    free(s->scale);
    free(s->reference_logp);
    free(s->gradient);
}

/* How the device goes through a row of that type: chunks, and the rise of a maximum that raises k (token_logprob.cu). */
enum { CHUNK_F32 = 256 * 3 * 4, CHUNK_BF16 = 256 * 3 * 8 };
#define RAISED_BY 20.0

/* One row in double, with what may be wrong with it on the device, in units of EPS.
 * e = exp2((z - k) * log2(e)): z - k and the product round, the constant is off by 0.23, each relative to |z - k|, and
 * exp2 errs by 2 ulp = 4.  So e errs by 4 + 2.3 |z - k|.  Sums round at every one of a thread's additions in a chunk, and
 * go on in double.  Where k rises by h, what was stored is multiplied by exp(h / 2) twice: 2 (4 + 2.3 h / 2 + 1) more,
 * and one more rounding to the stored type. */
typedef struct exact {
    double logp, mean, entropy, sum_p2, hit;
    double *gradient, *error; /* [V] softmax - onehot; of e */
    int *raises;              /* [V] of k since e was stored */
    double rest;              /* error of the sum of all e but the label's, over the sum of all */
    double mean_error, entropy_error, p2_error;
    int additions;
} exact;

static inline double largest_of(const float *z, int64_t n)
{
    double most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, (double)z[i]);
    }
    return most;
}

/* error[] and raises[] of the e as they are at the end of the row; `sum_error` of the e as they were added up. */
static inline void follow_k(exact *x, double *sum_error, const float *z, int64_t V, int64_t chunk)
{
    double k = -INFINITY;
    for (int64_t begin = 0; begin < V; begin += chunk) {
        const int64_t n = V - begin < chunk ? V - begin : chunk;
        const double most = largest_of(z + begin, n), rise = most - k;
        if (rise > RAISED_BY) {
            for (int64_t i = 0; k > -INFINITY && i < begin; i++) {
                x->error[i] += 10 + 2.3 * rise;
                x->raises[i]++;
            }
            k = most;
        }
        for (int64_t i = begin; i < begin + n; i++) {
            x->error[i] = 4 + (z[i] > -INFINITY ? 2.3 * fabs((double)z[i] - k) : 0);
            sum_error[i] = x->error[i];
        }
    }
}

static inline exact exactly(const float *z, int64_t V, int32_t label, dtype type)
{
    exact x = {.hit = 1,
               .gradient = zeros(V, sizeof(double)),
               .error = zeros(V, sizeof(double)),
               .raises = zeros(V, sizeof(int)),
               .additions = type == DTYPE_F32 ? 3 * 4 : 3 * 8};
    double *p = x.gradient, *sum_error = zeros(V, sizeof(double));
    const double most = largest_of(z, V), target = (double)z[label];
    double sum = 0, rest = 0, size = 0, distance = 0;
    follow_k(&x, sum_error, z, V, type == DTYPE_F32 ? CHUNK_F32 : CHUNK_BF16);
    for (int64_t i = 0; i < V; i++) {
        p[i] = exp((double)z[i] - most);
        sum += p[i];
        rest += i == label ? 0 : p[i];
        x.mean += (double)z[i] / (double)V;
        size += fabs((double)z[i]) / (double)V;
        if (z[i] > z[label] || (z[i] == z[label] && i < label)) x.hit = 0;
    }
    for (int64_t i = 0; i < V; i++) {
        p[i] /= sum;
        x.sum_p2 += p[i] * p[i];
        if (p[i] > 0) x.entropy -= p[i] * ((double)z[i] - most - log(sum));
        if (i != label) x.rest += p[i] * (x.additions + sum_error[i]);
    }
    /* entropy = log S - W / S with W the sum of e d, d = z - k: an error u of e is p u (1 - log p - entropy) of it. */
    for (int64_t i = 0; i < V; i++) {
        x.p2_error += p[i] * p[i] * (2 * sum_error[i] + 1 + x.additions + 2 * x.rest + 1);
        if (!(p[i] > 0)) continue;
        x.entropy_error += p[i] * sum_error[i] * fabs(1 - log(p[i]) - x.entropy);
        distance += p[i] * sum_error[i] / 2.3; /* at least |d| */
    }
    x.entropy_error += x.entropy + x.additions + (x.additions + 1) * distance;
    x.mean_error = x.additions * size + fabs(x.mean);
    /* Not target - most - log(sum), and not p - 1: those cancel near 0. */
    x.logp = target - most > -1 ? -log1p(rest / exp(target - most)) : target - most - log(sum);
    p[label] = -rest / sum;
    free(sum_error);
    return x;
}

static inline void exact_free(exact *x)
{
    free(x->gradient);
    free(x->error);
    free(x->raises);
}

/* A row's gradient, stored times scale.  What is below the smallest normal float at the time may be 0. */
static inline void check_gradient(const exact *x, const float *stored, float scale, int64_t V,
                                  int32_t label, dtype type, bool on_device)
{
    const double rounding = type == DTYPE_F32 ? 1 : EPS_BF16 / EPS;
    for (int64_t i = 0; i < V; i++) {
        const double got = (double)stored[i] * (double)scale, want = x->gradient[i];
        /* of e, of its rounding as often as it was stored, of 1 / S and of its rounding */
        double units = x->error[i] + (1 + x->raises[i]) * rounding + x->rest + 1, floor = 0x1p-125;
        if (i == label) units = x->rest / fmax(fabs(want), 1e-300) + rounding + 1;
        if (i == label && !on_device) floor = EPS; /* the CPU subtracts 1 */
        if (!(fabs(got - want) <= units * EPS * fabs(want) + floor))
            fail_msg("gradient[%lld] = %.9g, want %.9g within %g of it", (long long)i, got, want,
                     units * EPS);
    }
}

/* A row's scores within their errors.  The CPU sums in double, and misses by one rounding and 2 ulp of exponentials. */
static inline void check_row(const score_call *c, const scores *s, int64_t r, bool on_device)
{
    const int64_t V = c->V;
    exact x = exactly(c->logits + r * V, V, c->label[r], c->kind.logits);
    const float *stats = s->stats + r * ROW_STATS;
    const double units = on_device ? x.rest : 3;
    const double vanished = (double)V * 0x1p-126; /* e that were flushed to 0 */
    CHECK_NEAR(s->logp[r], x.logp, (fabs(x.logp) + units) * EPS + vanished);
    if (c->stats) {
        const double entropy = on_device ? x.entropy_error : 4 * 16;
        CHECK_NEAR(stats[STAT_MEAN_LOGIT], x.mean,
                   (on_device ? x.mean_error : fmax(1, fabs(x.mean))) * EPS);
        CHECK_NEAR(stats[STAT_ENTROPY], x.entropy, entropy * EPS);
        CHECK_NEAR(stats[STAT_SUM_P2], x.sum_p2, (on_device ? x.p2_error : 6 * x.sum_p2) * EPS);
        assert_true((double)stats[STAT_HIT] == x.hit);
    }
    if (c->gradient)
        check_gradient(&x, s->gradient + r * V, s->scale[r], V, c->label[r], c->kind.gradient,
                       on_device);
    exact_free(&x);
}

/* Every row; without a gradient, the logits stay. */
static inline void check_scores(backend *be, const score_call *c)
{
    scores s = score(be, c);
    for (int64_t r = 0; r < c->R; r++) {
        check_row(c, &s, r, be->on_device);
    }
    if (!c->gradient) assert_memory_equal(s.gradient, c->logits, (size_t)(c->R * c->V) * 4);
    scores_free(&s);
}

#endif /* CUDPO_TEST_TOKEN_LOGPROB_H */
