/* test_token_logprob.c - log-probs, statistics and gradients of rows of logits. */
/* rooms: backend base */
#include "test_ops.h"

typedef struct result {
    float *logp, *stats, *logits;
} result;

/* The rows of a gradient as they are meant: each times its scale. */
static void unscale(ops *o, float *gradient, tensor scale, int64_t V)
{
    float *factor = zeros(scale.rows, sizeof *factor);
    ops_get(o, factor, scale);
    for (int64_t i = 0; i < scale.rows * V; i++) {
        gradient[i] *= factor[i / V];
    }
    free(factor);
}

static result run(backend *be, const float *logits, const int32_t *label, int64_t R, int64_t V,
                  bool with_stats, bool gradient)
{
    const result r = {zeros(R, 4), zeros(R * ROW_STATS, 4), zeros(R * V, 4)};
    ops o = ops_begin(be);
    const tensor z = ops_strided(&o, logits, R, V, V + 3), logp = ops_output(&o, R, 1);
    const tensor stats = with_stats ? ops_output(&o, R, ROW_STATS) : (tensor){0};
    const tensor scale = gradient ? ops_output(&o, R, 1) : (tensor){0};
    const logprob_tensors rows = {.logp = logp,
                                  .stats = stats,
                                  .scale = scale,
                                  .logits = z,
                                  .label = ops_indices(&o, label, R, 1)};
    CHECK_OK(be->token_logprob(be, &rows, gradient));
    ops_get(&o, r.logp, logp);
    ops_get(&o, r.logits, z);
    if (gradient) unscale(&o, r.logits, scale, V);
    if (with_stats) ops_get(&o, r.stats, stats);
    ops_end(&o);
    return r;
}

static void result_free(result *r)
{
    free(r->logp);
    free(r->stats);
    free(r->logits);
}

/* Logits 0, ln 2, ln 5 have p = 1/8, 1/4, 5/8. */
static void three_logits_by_hand(backend *be)
{
    static const float z[] = {0, 0.693147181f, 1.609437912f};
    static const int32_t label[] = {1};
    static const double gradient[] = {0.125, -0.75, 0.625};
    result r = run(be, z, label, 1, 3, true, true);
    CHECK_NEAR(r.logp[0], -1.386294361, 4 * EPS);               /* ln 1/4 */
    CHECK_NEAR(r.stats[STAT_MEAN_LOGIT], 0.767528364, 2 * EPS); /* ln 10 / 3 */
    CHECK_NEAR(r.stats[STAT_ENTROPY], 0.900255958, 4 * EPS);    /* ln 8 - ln 2 / 4 - 5 ln 5 / 8 */
    CHECK_NEAR(r.stats[STAT_SUM_P2], 30.0 / 64, 4 * EPS);
    assert_true(r.stats[STAT_HIT] == 0.0f);
    check_close("gradient", r.logits, gradient, 3, 4 * EPS);
    result_free(&r);
}

/* The exact values, in double. */
typedef struct exact {
    double logp, mean, entropy, sum_p2, hit;
} exact;

static exact exactly(double *p, const double *z, int64_t V, int32_t label)
{
    exact e = {.hit = 1};
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < V; i++) {
        most = fmax(most, z[i]);
        e.mean += z[i] / (double)V;
    }
    for (int64_t i = 0; i < V; i++) {
        sum += exp(z[i] - most);
        if (z[i] > z[label] || (z[i] == z[label] && i < label)) e.hit = 0;
    }
    for (int64_t i = 0; i < V; i++) {
        p[i] = exp(z[i] - most) / sum;
        if (p[i] > 0) e.entropy -= p[i] * (z[i] - most - log(sum));
        e.sum_p2 += p[i] * p[i];
    }
    e.logp = z[label] - most - log(sum);
    return e;
}

/* One rounding of logp and of every statistic, and 2 ulp of the exponentials: relative to values of size about V's
 * logarithm, below 16. */
static void check_rows(backend *be, const float *logits, const int32_t *label, int64_t R, int64_t V)
{
    double *z = zeros(V, 8), *p = zeros(V, 8);
    result r = run(be, logits, label, R, V, true, true);
    result alone = run(be, logits, label, R, V, false, false);
    for (int64_t i = 0; i < R; i++) {
        const float *stats = r.stats + i * ROW_STATS;
        for (int64_t j = 0; j < V; j++) {
            z[j] = (double)logits[i * V + j];
        }
        const exact e = exactly(p, z, V, label[i]);
        const double size = fmax(1.0, fabs(e.logp));
        CHECK_NEAR(r.logp[i], e.logp, (size + 3) * EPS);
        CHECK_NEAR(alone.logp[i], e.logp, (size + 3) * EPS);
        CHECK_NEAR(stats[STAT_MEAN_LOGIT], e.mean, fmax(1.0, fabs(e.mean)) * EPS);
        CHECK_NEAR(stats[STAT_ENTROPY], e.entropy, 4 * 16 * EPS);
        CHECK_NEAR(stats[STAT_SUM_P2], e.sum_p2, 6 * EPS * e.sum_p2);
        assert_true((double)stats[STAT_HIT] == e.hit);
        p[label[i]] -= 1.0;
        check_close("gradient", r.logits + i * V, p, V, 8 * EPS);
    }
    assert_memory_equal(alone.logits, logits, (size_t)(R * V) * 4); /* no gradient: untouched */
    result_free(&r);
    result_free(&alone);
    free(z);
    free(p);
}

static void check_width(backend *be, int64_t R, int64_t V, float spread)
{
    float *z = random_floats((uint64_t)V, R * V);
    int32_t *label = zeros(R, 4);
    for (int64_t i = 0; i < R * V; i++) {
        z[i] *= spread;
    }
    for (int64_t i = 0; i < R; i++) {
        label[i] = (int32_t)rng_below(7, (uint64_t)V, (uint64_t)i, V);
    }
    check_rows(be, z, label, R, V);
    free(z);
    free(label);
}

static void tails_and_blocks(backend *be)
{
    static const int64_t tail[] = {1,   2,   31,  32,   33,   255,  256,  257,
                                   511, 512, 513, 1023, 1025, 2047, 2049, 32000};
    for (int i = 0; i < 16; i++) {
        check_width(be, 3, tail[i], 1.0f);
        check_width(be, 2, tail[i], 8.0f);
    }
    check_width(be, 70, 100, 2.0f);
    check_width(be, 1, 262144, 3.0f);
}

/* The finite difference of logp in a logit is minus the gradient. */
typedef struct row {
    int64_t V;
    int32_t label;
} row;

static double logp_of(const double *z, const void *context)
{
    const row *r = context;
    double p[40];
    return exactly(p, z, r->V, r->label).logp;
}

static void gradient_by_finite_differences(backend *be)
{
    enum { V = 40 };
    const row context = {V, 17};
    float *z = random_floats(9, V);
    double v[V];
    for (int i = 0; i < V; i++) {
        v[i] = (double)z[i];
    }
    result r = run(be, z, &context.label, 1, V, false, true);
    for (int i = 0; i < V; i++) {
        CHECK_NEAR(r.logits[i], -slope(logp_of, v, i, &context), 8 * EPS);
    }
    result_free(&r);
    free(z);
}

/* All equal: logp = entropy = ln V up to sign, sum p^2 = 1/V, and the first largest is the first. */
static void equal_logits(backend *be)
{
    enum { V = 1000 };
    float z[2 * V];
    static const int32_t label[] = {0, 600};
    for (int i = 0; i < 2 * V; i++) {
        z[i] = -3.0f;
    }
    result r = run(be, z, label, 2, V, true, false);
    for (int i = 0; i < 2; i++) {
        CHECK_NEAR(r.logp[i], -6.907755279, 8 * EPS);
        CHECK_NEAR(r.stats[i * ROW_STATS + STAT_ENTROPY], 6.907755279, 8 * EPS);
        CHECK_NEAR(r.stats[i * ROW_STATS + STAT_SUM_P2], 1e-3, 1e-9);
        assert_true(r.stats[i * ROW_STATS + STAT_HIT] == (i == 0 ? 1.0f : 0.0f));
    }
    result_free(&r);
}

/* |z| up to 1e4, one-hot rows in both directions, in the first block and in a later one. */
static void extremes(backend *be)
{
    enum { V = 1200 };
    float z[4 * V];
    static const int32_t label[] = {5, 6, 1100, 3};
    for (int i = 0; i < 4 * V; i++) {
        z[i] = i < V ? -1e4f : i < 2 * V ? -1e4f : i < 3 * V ? 0.0f : 1e4f;
    }
    z[5] = z[V + 5] = z[2 * V + 1100] = 1e4f;
    check_rows(be, z, label, 4, V);
    result r = run(be, z, label, 4, V, false, true);
    assert_true(r.logp[0] == 0.0f && r.logits[5] == 0.0f);
    assert_true(r.logp[1] == -2e4f && r.logits[V + 5] == 1.0f && r.logits[V + 6] == -1.0f);
    assert_true(r.logp[2] == 0.0f && r.logits[2 * V] == 0.0f);
    result_free(&r);
}

/* -inf is probability 0, wherever it stands; NaN and +inf come through, and do not read as a number. */
static void infinities(backend *be)
{
    enum { V = 1100 };
    float z[V];
    static const int32_t label = 1000, dead = 3;
    for (int i = 0; i < V; i++) {
        z[i] = i < 1000 ? -INFINITY : 0.0f; /* a whole block of -inf first */
    }
    result r = run(be, z, &label, 1, V, true, true);
    CHECK_NEAR(r.logp[0], -4.605170186, 8 * EPS); /* ln 1/100 */
    CHECK_NEAR(r.stats[STAT_ENTROPY], 4.605170186, 8 * EPS);
    assert_true(r.stats[STAT_MEAN_LOGIT] == -INFINITY && r.stats[STAT_HIT] == 1.0f);
    assert_true(r.logits[0] == 0.0f && r.logits[999] == 0.0f);
    CHECK_NEAR(r.logits[1000], -0.99, 2 * EPS);
    result_free(&r);
    r = run(be, z, &dead, 1, V, true, false);
    assert_true(r.logp[0] == -INFINITY && r.stats[STAT_HIT] == 0.0f);
    result_free(&r);
    static const float strange[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        for (int at = 7; at < V; at += 1050) {
            float y[V];
            memcpy(y, z, sizeof y);
            y[at] = strange[i];
            r = run(be, y, &label, 1, V, true, false);
            assert_true(isnan(r.logp[0]) || (i == 1 && r.logp[0] == -INFINITY));
            assert_true(isnan(r.stats[STAT_ENTROPY]));
            result_free(&r);
        }
    }
    for (int i = 0; i < V; i++) {
        z[i] = -INFINITY;
    }
    r = run(be, z, &label, 1, V, true, true);
    assert_true(isnan(r.logp[0]) && isnan(r.logits[0]));
    result_free(&r);
}

/* The same row eight times, each at another distance from a vector's boundary: the same bits. */
static void a_row_may_stand_anywhere(backend *be)
{
    enum { R = 8, V = 1000 };
    float *z = random_floats(3, R * V);
    int32_t label[R];
    for (int i = 0; i < R; i++) {
        memcpy(z + i * V, z, V * sizeof *z);
        label[i] = 77;
    }
    result r = run(be, z, label, R, V, true, true); /* rows V + 3 floats apart */
    for (int i = 1; i < R; i++) {
        assert_memory_equal(r.logits + i * V, r.logits, V * sizeof *z);
        assert_memory_equal(r.stats + i * ROW_STATS, r.stats, ROW_STATS * sizeof *z);
        assert_true(r.logp[i] == r.logp[0]);
    }
    result_free(&r);
    free(z);
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 5}, {-1, 0}};
    static const int32_t fine[] = {0, 4};
    ops o = ops_begin(be);
    const logprob_tensors good = {.logp = ops_output(&o, 2, 1),
                                  .stats = ops_output(&o, 2, ROW_STATS),
                                  .scale = ops_output(&o, 2, 1),
                                  .logits = ops_output(&o, 2, 5),
                                  .label = ops_indices(&o, fine, 2, 1)};
    logprob_tensors rows = good;
    for (int i = 0; i < 2 && !be->on_device; i++) {
        rows.label = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "label");
    }
    rows = good, rows.logp = good.logits;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "logp");
    rows = good, rows.stats = good.logits;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "stats");
    rows = good, rows.scale = (tensor){0};
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "scale");
    CHECK_FAILS(be->token_logprob(be, &good, false), CUDPO_EINVAL, "scale");
    rows = good, rows.label = tensor_rows(good.label, 0, 1);
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "label");
    rows = good, rows.logits = good.label;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "logits");
    rows = good, rows.gradient_type = DTYPE_F16;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "gradient_type");
    rows = good, rows.reference_logits = good.logits;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "reference");
    ops_check_untouched(&o, good.logits);
    ops_check_untouched(&o, good.logp);
    ops_check_untouched(&o, good.stats);
    ops_check_untouched(&o, good.scale);
    ops_end(&o);
}

enum { LR = 40, LV = 3000 };

static void run_large(ops *o, float *to)
{
    float *z = random_floats(1, LR * LV);
    int32_t label[LR];
    for (int i = 0; i < LR; i++) {
        label[i] = i * 70;
    }
    const tensor tz = ops_floats(o, z, LR, LV), logp = ops_output(o, LR, 1);
    const tensor stats = ops_output(o, LR, ROW_STATS);
    const logprob_tensors rows = {.logp = logp,
                                  .stats = stats,
                                  .scale = ops_output(o, LR, 1),
                                  .logits = tz,
                                  .label = ops_indices(o, label, LR, 1)};
    CHECK_OK(o->be->token_logprob(o->be, &rows, true));
    ops_get(o, to, tz);
    unscale(o, to, rows.scale, LV);
    ops_get(o, to + LR * LV, logp);
    ops_get(o, to + LR * LV + LR, stats);
    free(z);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, LR * (LV + 1 + ROW_STATS));
}

static const op_case cases[] = {
    {"three_logits_by_hand", three_logits_by_hand},
    {"tails_and_blocks", tails_and_blocks},
    {"gradient_by_finite_differences", gradient_by_finite_differences},
    {"equal_logits", equal_logits},
    {"extremes", extremes},
    {"infinities", infinities},
    {"a_row_may_stand_anywhere", a_row_may_stand_anywhere},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
