/* sample.c - temperature, top-k and top-p sampling, in transformers' order. */
#include "train/sample.h"

#include <math.h>
#include <stdlib.h>

static int64_t largest(const float *logits, int64_t V)
{
    int64_t best = 0;
    for (int64_t i = 1; i < V; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Does token a come before b: larger logit first, ties by id. */
static int before(const float *logits, int32_t a, int32_t b)
{
    if (logits[a] != logits[b]) return logits[a] > logits[b];
    return a < b;
}

static void sift(int32_t *heap, int64_t n, int64_t i, const float *logits)
{
    for (;;) {
        int64_t top = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (before(logits, heap[child], heap[top])) top = child;
        if (top == i) return;
        const int32_t swap = heap[i];
        heap[i] = heap[top];
        heap[top] = swap;
        i = top;
    }
}

/* Probability of a token relative to the largest one's. */
static double weight(const float *logits, int64_t token, int64_t best, double temperature)
{
    return exp(((double)logits[token] - (double)logits[best]) / temperature);
}

/* The first of `list` at which the running sum of weights passes u * total. */
static int32_t walk(const int32_t *list, int64_t n, const float *logits, int64_t best,
                    double temperature, double u, double total)
{
    double part = 0.0;
    for (int64_t i = 0; i < n; i++) {
        part += weight(logits, list[i], best, temperature);
        if (part > u * total) return list[i];
    }
    return list[n - 1]; /* rounding left the sum below u * total */
}

static void reverse(int32_t *list, int64_t n)
{
    for (int64_t i = 0; i < n / 2; i++) {
        const int32_t swap = list[i];
        list[i] = list[n - 1 - i];
        list[n - 1 - i] = swap;
    }
}

cudpo_status sample_token(int32_t *token, int32_t *order, const float *logits, int64_t V,
                          const sample_settings *s, double u)
{
    for (int64_t i = 0; i < V; i++)
        if (isnan(logits[i]))
            return cudpo_fail(CUDPO_ENUMERIC, "model", "logit %lld is NaN", (long long)i);
    const int64_t best = largest(logits, V);
    *token = (int32_t)best;
    if (s->temperature <= 0.0) return CUDPO_OK;

    const int64_t k = s->top_k > 0 && s->top_k < V ? s->top_k : V;
    double total = 0.0;
    for (int64_t i = 0; i < V; i++) {
        order[i] = (int32_t)i;
        total += weight(logits, i, best, s->temperature);
    }
    if (k == V && s->top_p >= 1.0) {
        *token = walk(order, V, logits, best, s->temperature, u, total);
        return CUDPO_OK;
    }
    for (int64_t i = V / 2 - 1; i >= 0; i--)
        sift(order, V, i, logits);
    /* Take the largest off the heap, which shrinks from the end; what was taken stands there in rising order. */
    const double enough = k == V ? s->top_p * total : HUGE_VAL;
    int64_t taken = 0;
    double sum = 0.0;
    while (taken < k && sum < enough) {
        const int32_t top = order[0];
        const int64_t last = V - 1 - taken;
        order[0] = order[last];
        order[last] = top;
        sift(order, last, 0, logits);
        sum += weight(logits, top, best, s->temperature);
        taken++;
    }
    int32_t *list = order + V - taken;
    reverse(list, taken);
    if (k < V && s->top_p < 1.0) { /* top_p of what top_k left */
        double part = 0.0;
        int64_t n = 0;
        while (n < taken && part < s->top_p * sum)
            part += weight(logits, list[n++], best, s->temperature);
        taken = n > 0 ? n : 1;
        sum = part;
    }
    *token = walk(list, taken, logits, best, s->temperature, u, sum);
    return CUDPO_OK;
}
