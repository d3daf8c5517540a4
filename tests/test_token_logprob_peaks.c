/* test_token_logprob_peaks.c - rows whose numbers are large, infinite, NaN, or far from those that were read before. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_token_logprob.h"

static score_call call_of(int kind, float *logits, const int32_t *label, int64_t R, int64_t V)
{
    return (score_call){.kind = score_kinds[kind],
                        .at = {-1, 0},
                        .logits = logits,
                        .label = label,
                        .R = R,
                        .V = V,
                        .stats = true,
                        .gradient = true};
}

static int64_t chunk_of(int kind)
{
    return score_kinds[kind].logits == DTYPE_F32 ? CHUNK_F32 : CHUNK_BF16;
}

/* A row of six chunks, normal numbers but for one peak in each, the label at one of them.  An absent peak is 0. */
static void check_peaks(backend *be, const float *peak)
{
    for (int kind = 0; kind < score_kinds_of(be); kind++) {
        const int64_t chunk = chunk_of(kind), V = 5 * chunk + 333;
        float *z = random_floats(6, 3 * V);
        int32_t label[3];
        for (int64_t r = 0; r < 3; r++) {
            for (int64_t n = 0; n < 6; n++) {
                const int64_t at = n * chunk + (n * 1237 + r * 300 + 11) % (n < 5 ? chunk : 333);
                if (peak[n] != 0) z[r * V + at] = peak[n];
                if (n == 2 * r + (r == 2)) label[r] = (int32_t)at; /* chunks 0, 2 and 5 */
            }
        }
        score_call c = call_of(kind, z, label, 3, V);
        check_scores(be, &c);
        c.at = (layout){3, 1}; /* off the boundaries */
        c.stats = false;
        check_scores(be, &c);
        c.gradient = false;
        c.stats = true;
        check_scores(be, &c);
        free(z);
    }
}

/* The maximum rises by more than the limit once, again and again, or not; just above and just below it. */
static void rising_maxima(backend *be)
{
    static const float peak[][6] = {
        {0, 0, 40, 0, 0, 0},       /* once */
        {0, 0, 0, 0, 0, 60},       /* in the last chunk, which is short */
        {5, 30, 55, 80, 105, 130}, /* every time */
        {5, 24, 0, 26, 0, 0},      /* 19 is not enough, 21 is: e^19 of k shrinks to e^-2 */
        {8, 28, 0, 0, 48, 0},      /* exactly 20 is not enough, 40 is */
        {8, 27.875f, 0, 28.125f, 0, 47},
        {0, 22, 22, 41, 41, 41},
        {60, 22, 0, 41, 0, 79},    /* never raised */
        {5, 24, 160, 0, 0, 0},     /* e^19 times e^-155: no more than 1e-59 is left */
        {5, 24, 100, 119, 0, 200}, /* in two steps */
        {1e4f, 0, 0, 0, 0, 0},
        {0, 0, 1e4f, 0, 9999, 0},
        {-5, -3, 1e4f, 2e4f, 0, 3e4f},
    };
    for (size_t i = 0; i < sizeof peak / sizeof peak[0]; i++) {
        check_peaks(be, peak[i]);
    }
}

/* Half of what was stored before k rose is as large as what comes after: rounded twice, and not lost.  Chunk 0 lies around
 * 0, chunk 1 around 19.5, the others around 21. */
static void a_plateau_before_the_rise(backend *be)
{
    for (int kind = 0; kind < score_kinds_of(be); kind++) {
        const int64_t chunk = chunk_of(kind), V = 4 * chunk;
        float *z = random_floats(8, V);
        for (int64_t i = 0; i < V; i++) {
            const float low = i < 2 * chunk ? 18.5f : 21.0f, x = fabsf(z[i]);
            z[i] = i < chunk ? fminf(z[i], 0) : low + (x > 1 ? 1 : x);
        }
        for (int32_t label = 5; label < V; label += (int32_t)chunk) {
            score_call c = call_of(kind, z, &label, 1, V);
            check_scores(be, &c);
        }
        free(z);
    }
}

/* |z| up to 1e4, one-hot rows in both directions, in the first chunk and in a later one. */
static void extremes(backend *be)
{
    static const int32_t label[] = {5, 6, 9000, 3};
    enum { V = 9400 };
    for (int kind = 0; kind < score_kinds_of(be); kind++) {
        float *z = zeros(4 * V, sizeof *z);
        for (int i = 0; i < 4 * V; i++) {
            z[i] = i < 2 * V ? -1e4f : i < 3 * V ? 0.0f : 1e4f;
        }
        z[5] = z[V + 5] = z[2 * V + 9000] = 1e4f;
        score_call c = call_of(kind, z, label, 4, V);
        check_scores(be, &c);
        scores s = score(be, &c);
        const float *g = s.gradient, much = z[5]; /* 1e4, or what bf16 makes of it */
        assert_true(s.logp[0] == 0.0f && g[5] == 0.0f);
        assert_true(s.logp[1] == -2 * much && g[V + 5] * s.scale[1] == 1.0f);
        assert_true(g[V + 6] * s.scale[1] == -1.0f);
        assert_true(s.logp[2] == 0.0f && g[2 * V] == 0.0f);
        scores_free(&s);
        free(z);
    }
}

/* Where a model is sure, 1 - p is what matters: log-probs of -e^-10, -e^-30 and -e^-60 and the gradient at the label keep
 * their relative precision on the device, and no log-prob is above 0. */
static void sure_rows(backend *be)
{
    enum { V = 7000 };
    static const float margin[] = {10, 30, 60, 75};
    for (int n = 0; n < 4 * score_kinds_of(be); n++) {
        float *z = random_floats(2, 2 * V);
        const float sure = margin[n % 4];
        static const int32_t label[] = {
            100, 6999}; /* k is the label's logit; k is raised to it, or not */
        z[100] = z[V + 6999] = 2 + sure;
        score_call c = call_of(n / 4, z, label, 2, V);
        check_scores(be, &c);
        scores s = score(be, &c);
        for (int r = 0; r < 2; r++) {
            exact x = exactly(z + r * V, V, label[r], c.kind.logits);
            assert_true(s.logp[r] <= 0);
            /* The error of the sum of all e but the label's, over that sum, and one rounding. */
            const double units = x.rest / fabs(x.gradient[label[r]]) + 1;
            if (be->on_device) CHECK_NEAR(s.logp[r], x.logp, fabs(x.logp) * units * EPS);
            exact_free(&x);
        }
        scores_free(&s);
        free(z);
    }
}

/* The log-prob of a token within 1e-5, and its own rounding, in the largest vocabularies. */
static void large_vocabularies(backend *be)
{
    static const int64_t width[] = {262144, 151936};
    for (int n = 0; n < 2 * score_kinds_of(be); n++) {
        const int kind = n / 2;
        const int64_t V = width[n % 2];
        const int32_t label[] = {(int32_t)(V - 1), 0};
        float *z = random_floats(7, 2 * V);
        for (int64_t i = 0; i < 2 * V; i++) {
            z[i] *= i < V ? 3.0f : 0.5f;
        }
        score_call c = call_of(kind, z, label, 2, V);
        scores s = score(be, &c);
        for (int64_t r = 0; r < 2; r++) {
            check_row(&c, &s, r, be->on_device);
            exact x = exactly(z + r * V, V, label[r], c.kind.logits);
            CHECK_NEAR(s.logp[r], x.logp, 1e-5 + fabs(x.logp) * EPS);
            assert_true(x.rest * EPS < 1e-5); /* the bound itself keeps the promise */
            exact_free(&x);
        }
        scores_free(&s);
        free(z);
    }
}

/* -inf is probability 0, wherever it stands. */
static void minus_infinity(backend *be)
{
    enum { V = 6500, LIVE = 100 };
    static const int32_t label = V - 1, dead = 3;
    for (int n = 0; n < 2 * score_kinds_of(be); n++) {
        float z[V];
        for (int i = 0; i < V; i++) {
            z[i] = i < V - LIVE ? -INFINITY : 0.0f; /* whole chunks of -inf first */
        }
        score_call c = call_of(n / 2, z, &label, 1, V);
        c.at = (layout){n % 2 == 0 ? -1 : 3, 0};
        scores s = score(be, &c);
        CHECK_NEAR(s.logp[0], -4.605170186, 8 * EPS); /* ln 1/100 */
        CHECK_NEAR(s.stats[STAT_ENTROPY], 4.605170186, 8 * EPS);
        CHECK_NEAR(s.stats[STAT_SUM_P2], 0.01, 8 * EPS);
        assert_true(s.stats[STAT_MEAN_LOGIT] == -INFINITY && s.stats[STAT_HIT] == 0.0f);
        assert_true(s.gradient[0] == 0.0f && s.gradient[V - LIVE - 1] == 0.0f);
        const double rounding = c.kind.gradient == DTYPE_F32 ? EPS : EPS_BF16;
        CHECK_NEAR((double)s.gradient[label] * (double)s.scale[0], -0.99, rounding);
        CHECK_NEAR((double)s.gradient[V - 2] * (double)s.scale[0], 0.01, 2 * EPS);
        scores_free(&s);
        c.label = &dead;
        s = score(be, &c);
        assert_true(s.logp[0] == -INFINITY && s.stats[STAT_HIT] == 0.0f);
        assert_true(isfinite(s.stats[STAT_ENTROPY]) && isfinite(s.stats[STAT_SUM_P2]));
        CHECK_NEAR((double)s.gradient[dead] * (double)s.scale[0], -1, EPS); /* 100 * (1/100) */
        scores_free(&s);
        z[V - LIVE / 2] = -INFINITY; /* one of them only */
        c.label = &label;
        s = score(be, &c);
        CHECK_NEAR(s.logp[0], -4.595119850, 8 * EPS); /* ln 1/99 */
        assert_true(s.gradient[V - LIVE / 2] == 0.0f);
        scores_free(&s);
    }
}

/* NaN and +inf come through, in any chunk and at the label, and a row of -inf alone is NaN. */
static void what_is_no_number_shows(backend *be)
{
    enum { V = 6500 };
    static const float strange[] = {NAN, INFINITY};
    static const int place[] = {0, 7, 3100, 6400, V - 1};
    static const int32_t label = 6400;
    for (int n = 0; n < 2 * 5 * score_kinds_of(be); n++) {
        float *z = random_floats(1, V);
        const bool infinite = n % 2 == 1;
        z[place[n / 2 % 5]] = strange[n % 2];
        score_call c = call_of(n / 10, z, &label, 1, V);
        c.at = (layout){n % 3 == 0 ? -1 : 5, 0};
        scores s = score(be, &c);
        assert_true(isnan(s.logp[0]) || (!be->on_device && infinite && s.logp[0] == -INFINITY));
        assert_true(isnan(s.stats[STAT_ENTROPY]));
        assert_true(isnan(s.gradient[17] * s.scale[0])); /* so no gradient looks like one */
        scores_free(&s);
        free(z);
    }
    for (int n = 0; n < 4 * score_kinds_of(be); n++) {
        float *z = random_floats(1, V);
        const int end = n % 4 < 2 ? V : 6200; /* all of it, or all of the first chunks */
        for (int i = 0; i < end; i++) {
            z[i] = n % 2 == 0 ? -INFINITY : NAN;
        }
        score_call c = call_of(n / 4, z, &label, 1, V);
        scores s = score(be, &c);
        const bool number = n % 4 == 2; /* where only the first chunks are -inf */
        assert_true(isnan(s.logp[0]) == !number);
        assert_true(isnan(s.gradient[0] * s.scale[0]) == !number);
        scores_free(&s);
        free(z);
    }
}

static const op_case cases[] = {
    {"rising_maxima", rising_maxima},
    {"a_plateau_before_the_rise", a_plateau_before_the_rise},
    {"extremes", extremes},
    {"sure_rows", sure_rows},
    {"large_vocabularies", large_vocabularies},
    {"minus_infinity", minus_infinity},
    {"what_is_no_number_shows", what_is_no_number_shows},
};
OPS_MAIN(cases)
