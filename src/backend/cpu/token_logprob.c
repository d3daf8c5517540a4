/* token_logprob.c - from logits to the log-prob of a label, statistics and the gradient.
 *
 * A row is read once, block by block, for its log-sum-exp: with m the largest logit so far and sums relative to
 * e^m, a block that holds a larger one first rescales them.  Sums are in double, so logp differs from the exact value by
 * the rounding of e^(z - m), about 1e-7 relative for any V.
 *
 * A logit may be -inf: its probability is 0, p log p is 0, and the mean logit is -inf.  NaN or +inf anywhere, or a
 * row of -inf alone, gives NaN. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"
#include "kernels/token_logprob.h"

enum { BLOCK = 512 }; /* logits at a time: what is kept of them stays in the first cache */

/* Sums over the logits read so far, relative to e^m where they are of exponentials. */
typedef struct row_sums {
    double m;
    double exponentials, squares; /* of e^(z-m) */
    double weighted;              /* of e^(z-m) * (z-m) */
    double logits;
} row_sums;

VECTORISED_VALUE(float, largest, (const float *z, int64_t n), (z, n))
{
    return vector_largest(z, n);
}

/* The exponentials are stored before they are summed: a sum in the same loop makes GCC 12 branch on them, wrongly where
 * there are several sums. */
VECTORISED_VALUE(double, sum_exponentials, (const float *z, float m, int64_t n), (z, m, n))
{
    float e[BLOCK];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        e[i] = vector_exp(z[i] - m);
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)e[i];
    }
    return sum;
}

VECTORISED(sum_statistics, (row_sums * s, const float *z, float m, int64_t n), (s, z, m, n))
{
    float e[BLOCK], d[BLOCK];
    double exponentials = 0, squares = 0, weighted = 0, logits = 0;
    for (int64_t i = 0; i < n; i++) {
        e[i] = vector_exp(z[i] - m);
        d[i] = -88.0f > z[i] - m ? -88.0f : z[i] - m; /* e is 0 there: 0 * -88, not 0 * -inf */
    }
#pragma omp simd reduction(+ : exponentials, squares, weighted, logits)
    for (int64_t i = 0; i < n; i++) {
        exponentials += (double)e[i];
        squares += (double)(e[i] * e[i]);
        weighted += (double)(e[i] * d[i]);
        logits += (double)z[i];
    }
    s->exponentials += exponentials;
    s->squares += squares;
    s->weighted += weighted;
    s->logits += logits;
}

VECTORISED(softmax, (float *z, float m, float scale, int64_t n), (z, m, scale, n))
{
    for (int64_t i = 0; i < n; i++) {
        z[i] = vector_exp(z[i] - m) * scale;
    }
}

/* Make the sums relative to e^m for a larger m. */
static void rebase(row_sums *s, double m)
{
    if (!(m > s->m)) return;
    if (s->exponentials > 0) {
        const double d = s->m - m, factor = exp(d);
        s->weighted = factor * (s->weighted + d * s->exponentials);
        s->exponentials *= factor;
        s->squares *= factor * factor;
    }
    s->m = m;
}

static row_sums sum_row(const float *z, int64_t V, bool statistics)
{
    row_sums s = {.m = -INFINITY};
    for (int64_t begin = 0; begin < V; begin += BLOCK) {
        const int64_t n = min_i64(BLOCK, V - begin);
        rebase(&s, (double)largest(z + begin, n));
        /* Where all so far is -inf, exponentials are 0 without computing -inf - -inf. */
        const float m = s.m > -INFINITY ? (float)s.m : 0.0f;
        if (statistics)
            sum_statistics(&s, z + begin, m, n);
        else
            s.exponentials += sum_exponentials(z + begin, m, n);
    }
    return s;
}

static bool is_first_largest(const float *z, int32_t label, double m)
{
    if ((double)z[label] != m) return false;
    for (int32_t i = 0; i < label; i++) {
        if ((double)z[i] == m) return false;
    }
    return true;
}

static void score_row(float *logp, float *stats, float *z, int32_t label, int64_t V, bool gradient)
{
    const row_sums s = sum_row(z, V, stats != NULL);
    const double log_sum = log(s.exponentials); /* relative to m, so nothing cancels */
    *logp = (float)((double)z[label] - s.m - log_sum);
    if (stats != NULL) {
        stats[STAT_MEAN_LOGIT] = (float)(s.logits / (double)V);
        stats[STAT_ENTROPY] = (float)(log_sum - s.weighted / s.exponentials);
        stats[STAT_HIT] = is_first_largest(z, label, s.m) ? 1.0f : 0.0f;
        stats[STAT_SUM_P2] = (float)(s.squares / (s.exponentials * s.exponentials));
    }
    if (gradient) {
        softmax(z, (float)s.m, (float)(1.0 / s.exponentials), V);
        z[label] -= 1.0f;
    }
}

static cudpo_status score_rows(tensor logp, tensor stats, tensor logits, tensor label,
                               bool gradient)
{
    const int64_t R = logits.rows, V = logits.cols;
#pragma omp parallel for schedule(dynamic) if (R * V > 4096)
    for (int64_t r = 0; r < R; r++) {
        score_row(row_of(logp, r), tensor_present(stats) ? row_of(stats, r) : NULL,
                  row_of(logits, r), index_of(label, r), V, gradient);
    }
    return CUDPO_OK;
}

cudpo_status cpu_token_logprob(backend *be, const logprob_tensors *rows, bool gradient)
{
    (void)be;
    CUDPO_REQUIRE(rows != NULL);
    const tensor logp = rows->logp, stats = rows->stats, scale = rows->scale;
    const tensor logits = rows->logits, label = rows->label;
    const tensor reference_logp = rows->reference_logp, reference_logits = rows->reference_logits;
    const int64_t R = logits.rows, V = logits.cols;
    const bool reference = tensor_present(reference_logits);
    CUDPO_REQUIRE(is_matrix(logits) && V <= INT32_MAX);
    CUDPO_REQUIRE(is_f32(logp, R, 1));
    CUDPO_REQUIRE(!tensor_present(stats) || is_f32(stats, R, ROW_STATS));
    CUDPO_REQUIRE(gradient ? is_f32(scale, R, 1) : !tensor_present(scale));
    CUDPO_REQUIRE(!gradient || rows->gradient_type == DTYPE_F32);
    CUDPO_REQUIRE(reference == tensor_present(reference_logp));
    CUDPO_REQUIRE(!reference || is_like(reference_logits, logits));
    CUDPO_REQUIRE(!reference || is_f32(reference_logp, R, 1));
    CUDPO_REQUIRE(is_index(label, R, V));
    CUDPO_TRY(logprob_check_overlaps(rows, (tensor){0}));
    for (int64_t r = 0; gradient && r < R; r++) {
        *row_of(scale, r) = 1.0f;
    }
    if (reference)
        CUDPO_TRY(score_rows(reference_logp, (tensor){0}, reference_logits, label, false));
    return score_rows(logp, stats, logits, label, gradient);
}
