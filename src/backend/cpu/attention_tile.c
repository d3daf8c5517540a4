/* attention_tile.c - the softmax of FlashAttention (Dao et al. 2022), on tiles that fit a cache.
 *
 * Key tile by key tile: s = scale q k^T; m' = max(m, max s); p = e^(s - m'); what was summed so far is
 * multiplied by e^(m - m'); then sum += p 1 and out += p v.  No more than QUERIES x KEYS scores ever exist. */
#include "backend/cpu/attention.h"
#include "backend/cpu/check.h"
#include "backend/cpu/vector.h"

#include <cblas.h>
#include <string.h>

bool attention_shape_valid(const attention_shape *shape)
{
    return shape->heads >= 1 && shape->kv_heads >= 1 && shape->heads % shape->kv_heads == 0 &&
           shape->head_dim >= 1 && (int64_t)shape->heads * shape->head_dim <= INT32_MAX &&
           shape->window >= 0 && isfinite(shape->scale);
}

key_range attention_visible(int64_t query, int64_t position, int64_t length, int64_t window)
{
    const int64_t last = query - position; /* the query's own key, as an offset */
    const int64_t end = max_i64(0, min_i64(length, last + 1));
    const int64_t begin = window > 0 ? max_i64(0, last - window + 1) : 0;
    return (key_range){min_i64(begin, end), end};
}

VECTORISED_VALUE(float, largest, (const float *s, int64_t n), (s, n))
{
    return vector_largest(s, n);
}

VECTORISED_VALUE(double, exponentials, (float *s, float m, int64_t n), (s, m, n))
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        s[i] = vector_exp(s[i] - m);
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)s[i];
    }
    return sum;
}

VECTORISED(scale_row, (float *x, float factor, int64_t n), (x, factor, n))
{
    for (int64_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

int64_t attention_mask(float *s, key_range visible, int64_t n)
{
    enum { VECTOR = 16 };
    const int64_t padded = (n + VECTOR - 1) / VECTOR * VECTOR;
    for (int64_t i = 0; i < visible.begin; i++) {
        s[i] = -INFINITY;
    }
    for (int64_t i = visible.end; i < padded; i++) {
        s[i] = -INFINITY;
    }
    return padded;
}

double attention_exponentials(float *s, float m, int64_t n)
{
    return exponentials(s, m, n);
}

/* The running softmax of one tile. */
typedef struct softmax_state {
    float largest[QUERIES];
    double sum[QUERIES];
    bool written; /* out holds something */
} softmax_state;

/* Add keys begin .. begin+n-1 of a run. */
static void absorb(softmax_state *state, const query_tile *t, const key_run *run, int64_t begin,
                   int64_t n, const attention_shape *shape)
{
    float scores[QUERIES * KEYS];
    const blasint rows = (blasint)t->rows, D = shape->head_dim;
    const float *k = run->k + begin * run->k_stride, *v = run->v + begin * run->v_stride;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, (blasint)n, D, shape->scale, t->q,
                (blasint)t->q_stride, k, (blasint)run->k_stride, 0.0f, scores, KEYS);
    for (int64_t i = 0; i < t->rows; i++) {
        float *s = scores + i * KEYS;
        const key_range visible = attention_visible(t->position + i * t->position_step,
                                                    run->position + begin, n, shape->window);
        if (visible.begin == visible.end) {
            memset(s, 0, (size_t)n * sizeof *s);
            continue;
        }
        const int64_t padded = attention_mask(s, visible, n);
        const float old = state->largest[i], seen = largest(s, padded);
        const float m = seen > old ? seen : old;
        const double sum = exponentials(s, m, padded);
        const float factor = old < m ? vector_exp(old - m) : 1.0f;
        state->largest[i] = m;
        state->sum[i] = state->sum[i] * (double)factor + sum;
        if (state->written && factor != 1.0f) scale_row(t->out + i * t->out_stride, factor, D);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, D, (blasint)n, 1.0f, scores, KEYS,
                v, (blasint)run->v_stride, state->written ? 1.0f : 0.0f, t->out,
                (blasint)t->out_stride);
    state->written = true;
}

void attention_forward_tile(const query_tile *t, const key_run *run, int runs,
                            const attention_shape *shape)
{
    softmax_state state = {.written = false};
    for (int64_t i = 0; i < t->rows; i++) {
        state.largest[i] = -INFINITY;
        state.sum[i] = 0;
    }
    const int64_t last = t->position + (t->rows - 1) * t->position_step;
    for (const key_run *r = run; r < run + runs; r++) {
        /* The first query looks back farthest, the last one sees the latest key. */
        const int64_t begin =
            attention_visible(t->position, r->position, r->length, shape->window).begin;
        const int64_t end = attention_visible(last, r->position, r->length, shape->window).end;
        for (int64_t k = begin; k < end; k += KEYS) {
            absorb(&state, t, r, k, min_i64(KEYS, end - k), shape);
        }
    }
    for (int64_t i = 0; i < t->rows; i++) {
        scale_row(t->out + i * t->out_stride, (float)(1.0 / state.sum[i]), shape->head_dim);
        if (t->lse != NULL)
            t->lse[i * t->lse_stride] = (float)((double)state.largest[i] + log(state.sum[i]));
    }
}
