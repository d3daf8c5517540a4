/* test_token_logprob.c - log-probs, statistics and gradients of rows of logits of every size, type and layout. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_token_logprob.h"

/* A call on float32, rows at odd distances. */
static score_call call_of(float *logits, const int32_t *label, int64_t R, int64_t V)
{
    return (score_call){.kind = score_kinds[0],
                        .at = {3, 0},
                        .logits = logits,
                        .label = label,
                        .R = R,
                        .V = V,
                        .stats = true,
                        .gradient = true};
}

/* Logits 0, ln 2, ln 5 have p = 1/8, 1/4, 5/8. */
static void three_logits_by_hand(backend *be)
{
    float z[] = {0, 0.693147181f, 1.609437912f};
    static const int32_t label[] = {1};
    static const double gradient[] = {0.125, -0.75, 0.625};
    const score_call c = call_of(z, label, 1, 3);
    scores s = score(be, &c);
    CHECK_NEAR(s.logp[0], -1.386294361, 4 * EPS);               /* ln 1/4 */
    CHECK_NEAR(s.stats[STAT_MEAN_LOGIT], 0.767528364, 2 * EPS); /* ln 10 / 3 */
    CHECK_NEAR(s.stats[STAT_ENTROPY], 0.900255958, 8 * EPS);    /* ln 8 - ln 2 / 4 - 5 ln 5 / 8 */
    CHECK_NEAR(s.stats[STAT_SUM_P2], 30.0 / 64, 4 * EPS);
    assert_true(s.stats[STAT_HIT] == 0.0f);
    for (int i = 0; i < 3; i++) {
        CHECK_NEAR((double)s.gradient[i] * (double)s.scale[0], gradient[i], 8 * EPS);
    }
    scores_free(&s);
}

/* Powers of two, which nothing rounds.  On the device e = 1, 1, 0 and 0 relative to k = 64: the rest of label 0 is 1, so
 * that -1 and 1 are stored, with the scale 1/2.  On the CPU the same, times 1/2. */
static void two_of_four_by_hand(backend *be)
{
    static const int32_t label[] = {0, 3};
    for (int k = 0; k < score_kinds_of(be); k++) {
        float z[] = {64, 64, -64, -INFINITY, 64, 64, -64, -INFINITY};
        score_call c = call_of(z, label, 2, 4);
        c.kind = score_kinds[k];
        c.at = (layout){k == 1 ? 4 : 5, k};
        scores s = score(be, &c);
        CHECK_NEAR(s.logp[0], -0.693147181, EPS);
        assert_true(s.logp[1] == -INFINITY);
        static const double want[] = {-0.5, 0.5, 0, 0, 0.5, 0.5, 0, -1};
        for (int i = 0; i < 8; i++) {
            CHECK_NEAR((double)s.gradient[i] * (double)s.scale[i / 4], want[i], 0);
        }
        for (int r = 0; r < 2; r++) {
            CHECK_NEAR(s.stats[r * ROW_STATS + STAT_SUM_P2], 0.5, 0);
            CHECK_NEAR(s.stats[r * ROW_STATS + STAT_ENTROPY], 0.693147181, EPS);
            assert_true(s.stats[r * ROW_STATS + STAT_HIT] == (r == 0 ? 1.0f : 0.0f));
            assert_true(s.stats[r * ROW_STATS + STAT_MEAN_LOGIT] == -INFINITY);
        }
        scores_free(&s);
    }
}

/* Labels in the first, the last and other places. */
static void check_width(backend *be, int kind, layout at, int64_t R, int64_t V, float spread)
{
    float *z = random_floats((uint64_t)V, R * V);
    int32_t *label = zeros(R, 4);
    for (int64_t i = 0; i < R * V; i++) {
        z[i] *= spread;
    }
    for (int64_t i = 0; i < R; i++) {
        label[i] = (int32_t)(i == 0   ? V - 1
                             : i == 1 ? 0
                                      : rng_below(7, (uint64_t)V, (uint64_t)i, (uint64_t)V));
    }
    score_call c = call_of(z, label, R, V);
    c.kind = score_kinds[kind];
    c.at = at;
    check_scores(be, &c);
    c.stats = c.gradient = false;
    check_scores(be, &c);
    free(z);
    free(label);
}

/* Every kind in rows on 16-byte boundaries, whole vectors or not, and off them. */
static const layout layouts[] = {{-1, 0}, {3, 0}, {-1, 1}, {8, 8}, {-1, 2}};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

static void tails(backend *be)
{
    static const int64_t width[] = {1,   2,   3,    4,    5,    7,    8,   9,   31,
                                    32,  33,  127,  128,  129,  255,  256, 257, 511,
                                    512, 513, 1000, 1023, 1025, 2047, 2049};
    for (int i = 0; i < (int)(sizeof width / sizeof width[0]); i++) {
        for (int kind = 0; kind < score_kinds_of(be); kind++) {
            check_width(be, kind, layouts[i % LAYOUTS], 3, width[i], 1.0f);
            check_width(be, kind, layouts[(i + 1) % LAYOUTS], 2, width[i], 8.0f);
        }
    }
}

/* Where a row of the device is one chunk more, and where the chunks at hand come round. */
static void chunks(backend *be)
{
    for (int kind = 0; kind < score_kinds_of(be); kind++) {
        const int64_t chunk = score_kinds[kind].logits == DTYPE_F32 ? CHUNK_F32 : CHUNK_BF16;
        for (int64_t n = 1; n <= 5; n++) {
            check_width(be, kind, layouts[0], 2, n * chunk, 2.0f);
            check_width(be, kind, layouts[n % LAYOUTS], 1, n * chunk - 1, 2.0f);
            check_width(be, kind, layouts[(n + 1) % LAYOUTS], 1, n * chunk + 1, 2.0f);
            check_width(be, kind, layouts[(n + 2) % LAYOUTS], 1, n * chunk + 8, 2.0f);
        }
        check_width(be, kind, layouts[kind % 2], 2, 32000, 3.0f);
        check_width(be, kind, layouts[1 - kind % 2], 70, 100, 2.0f);
    }
}

/* A label in every vector of every thread, nearly: its place decides nothing but its own. */
static void labels_everywhere(backend *be)
{
    enum { V = CHUNK_F32 + 500, R = 24 };
    float *z = random_floats(5, R * V);
    int32_t label[R];
    for (int i = 0; i < R; i++) {
        label[i] = i < 12 ? i : i < 20 ? 37 * i * i % V : V - 1 - (i - 20) * 200;
    }
    for (int k = 0; k < score_kinds_of(be); k++) {
        score_call c = call_of(z, label, R, V);
        c.kind = score_kinds[k];
        c.at = (layout){-1, 0};
        check_scores(be, &c);
    }
    free(z);
}

/* The finite difference of logp in a logit is minus the gradient. */
typedef struct row {
    int64_t V;
    int32_t label;
} row;

static double logp_of(const double *z, const void *context)
{
    const row *r = context;
    double sum = 0;
    for (int64_t i = 0; i < r->V; i++) {
        sum += exp(z[i]);
    }
    return z[r->label] - log(sum);
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
    const score_call c = call_of(z, &context.label, 1, V);
    scores s = score(be, &c);
    for (int i = 0; i < V; i++) { /* p is at most 0.3, and errs by 4 + 12 + 10 units */
        CHECK_NEAR((double)s.gradient[i] * (double)s.scale[0], -slope(logp_of, v, i, &context),
                   8 * EPS);
    }
    scores_free(&s);
    free(z);
}

/* All equal, in one chunk and in several: logp = entropy = ln V up to sign, sum p^2 = 1/V, and the first largest is the
 * first.  e is 1, and sums of it are exact, so that each result has one rounding. */
static void equal_logits(backend *be)
{
    enum { MOST = 3 * CHUNK_BF16 + 5 };
    static const int64_t width[] = {1000, MOST};
    static const float value[] = {-3.0f, 1e4f, -1e4f};
    float *z = zeros(2 * MOST, sizeof *z);
    for (int n = 0; n < 6 * score_kinds_of(be); n++) {
        const int64_t V = width[n % 2];
        const int32_t label[] = {0, (int32_t)(V - 400)};
        for (int64_t i = 0; i < 2 * V; i++) {
            z[i] = value[n / 2 % 3];
        }
        score_call c = call_of(z, label, 2, V);
        c.kind = score_kinds[n / 6];
        check_scores(be, &c);
        scores s = score(be, &c);
        const double ln = log((double)V), one = 1.001 * EPS;
        for (int i = 0; i < 2; i++) {
            CHECK_NEAR(s.logp[i], -ln, ln * one);
            CHECK_NEAR(s.stats[i * ROW_STATS + STAT_ENTROPY], ln, ln * one);
            CHECK_NEAR(s.stats[i * ROW_STATS + STAT_SUM_P2], 1 / (double)V, one / (double)V);
            assert_true(s.stats[i * ROW_STATS + STAT_HIT] == (i == 0 ? 1.0f : 0.0f));
        }
        scores_free(&s);
    }
    free(z);
}

/* The largest logit twice: the label hits where it is the first of them, wherever the other one is. */
static void ties(backend *be)
{
    /* CHUNK elements apart, one thread of the device has both. */
    static const int32_t place[][2] = {{0, 1},
                                       {2, 5},
                                       {3, 1100},
                                       {8, 11},
                                       {3, 4000},
                                       {3072, 3073},
                                       {4000, 7000},
                                       {7000, 7198},
                                       {5, 5 + CHUNK_F32},
                                       {6, 6 + CHUNK_BF16},
                                       {9, 9 + 2 * CHUNK_F32}};
    enum { V = 7200, N = sizeof place / sizeof place[0] };
    for (int n = 0; n < N * score_kinds_of(be); n++) {
        float *z = random_floats(4, 2 * V);
        const int32_t *at = place[n % N];
        z[at[0]] = z[at[1]] = z[V + at[0]] = z[V + at[1]] = 9.0f;
        score_call c =
            call_of(z, at, 2, V); /* row 0: the first one is the label, row 1: the second */
        c.kind = score_kinds[n / N];
        c.at = layouts[n % 2];
        c.gradient = n % 3 == 0;
        check_scores(be, &c);
        free(z);
    }
}

/* The same row eight times, each at another distance from a vector's boundary, and then all on boundaries: the same bits,
 * and so they are without statistics. */
static void a_row_may_stand_anywhere(backend *be)
{
    enum { R = 8, V = 4000 };
    for (int k = 0; k < score_kinds_of(be); k++) {
        float *z = random_floats(3, R * V);
        int32_t label[R];
        for (int i = 0; i < R; i++) {
            memcpy(z + i * V, z, V * sizeof *z);
            label[i] = 77;
        }
        score_call c = call_of(z, label, R, V); /* rows V + 3 elements apart */
        c.kind = score_kinds[k];
        scores s = score(be, &c);
        for (int i = 1; i < R; i++) {
            assert_memory_equal(s.gradient + i * V, s.gradient, V * sizeof *z);
            assert_memory_equal(s.stats + i * ROW_STATS, s.stats, ROW_STATS * sizeof *z);
            assert_true(s.logp[i] == s.logp[0] && s.scale[i] == s.scale[0]);
        }
        c.at = (layout){-1, 0};
        scores aligned = score(be, &c);
        assert_memory_equal(aligned.gradient, s.gradient, R * V * sizeof *z);
        assert_memory_equal(aligned.stats, s.stats, R * ROW_STATS * sizeof *z);
        assert_memory_equal(aligned.logp, s.logp, R * sizeof *z);
        c.stats = false;
        scores bare = score(be, &c);
        assert_memory_equal(bare.gradient, s.gradient, R * V * sizeof *z);
        assert_memory_equal(bare.logp, s.logp, R * sizeof *z);
        c.gradient = false;
        scores forward = score(be, &c);
        assert_memory_equal(forward.logp, s.logp, R * sizeof *z);
        scores_free(&s);
        scores_free(&aligned);
        scores_free(&bare);
        scores_free(&forward);
        free(z);
    }
}

enum { LR = 12, LV = 6600 }; /* more than a chunk of either type */

static void run_large_as(ops *o, float *to, score_kind kind)
{
    float *z = random_floats(1, LR * LV), *reference = random_floats(2, LR * LV);
    int32_t label[LR];
    for (int i = 0; i < LR; i++) {
        label[i] = i * 599;
    }
    const logprob_tensors rows = {.logp = ops_output(o, LR, 1),
                                  .stats = ops_output(o, LR, ROW_STATS),
                                  .scale = ops_output(o, LR, 1),
                                  .logits = ops_floats_as(o, kind.logits, z, LR, LV),
                                  .label = ops_indices(o, label, LR, 1),
                                  .reference_logp = ops_output(o, LR, 1),
                                  .reference_logits =
                                      ops_floats_as(o, kind.logits, reference, LR, LV),
                                  .gradient_type = kind.gradient};
    CHECK_OK(o->be->token_logprob(o->be, &rows, true));
    ops_get_floats(o, to, gradient_in(rows.logits, kind.gradient));
    ops_get(o, to + LR * LV, rows.logp);
    ops_get(o, to + LR * LV + LR, rows.scale);
    ops_get(o, to + LR * LV + 2 * LR, rows.reference_logp);
    ops_get(o, to + LR * LV + 3 * LR, rows.stats);
    free(z);
    free(reference);
}

static void run_large(ops *o, float *to)
{
    run_large_as(o, to, score_kinds[0]);
}

#ifdef TEST_CUDA
static void run_large_half_gradient(ops *o, float *to)
{
    run_large_as(o, to, score_kinds[1]);
}

static void run_large_half(ops *o, float *to)
{
    run_large_as(o, to, score_kinds[2]);
}
#endif

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, LR * (LV + 3 + ROW_STATS));
#ifdef TEST_CUDA
    check_repeatable(be, run_large_half_gradient, LR * (LV + 3 + ROW_STATS));
    check_repeatable(be, run_large_half, LR * (LV + 3 + ROW_STATS));
#endif
}

static const op_case cases[] = {
    {"three_logits_by_hand", three_logits_by_hand},
    {"two_of_four_by_hand", two_of_four_by_hand},
    {"tails", tails},
    {"chunks", chunks},
    {"labels_everywhere", labels_everywhere},
    {"gradient_by_finite_differences", gradient_by_finite_differences},
    {"equal_logits", equal_logits},
    {"ties", ties},
    {"a_row_may_stand_anywhere", a_row_may_stand_anywhere},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
