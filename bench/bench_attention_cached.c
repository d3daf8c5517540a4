/* bench_attention_cached.c - decoding: keys and values to the cache, and one query of each sequence over it. */
#include "bench/judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SEQUENCES = 32 };
enum { K_CACHE, V_CACHE, QKV, SLOT };

static void describe(bench_case *c, const bench_shape *s)
{
    const model_config *m = &s->model;
    c->type = s->type;
    c->attention = (attention_shape){.heads = (int)m->num_attention_heads,
                                     .kv_heads = (int)m->num_key_value_heads,
                                     .head_dim = (int)m->head_dim,
                                     .scale = 1.0f / sqrtf((float)m->head_dim)};
    snprintf(c->text, sizeof c->text, "%d sequences of %lld, %lld/%lld heads of %lld", SEQUENCES,
             (long long)s->length, (long long)m->num_attention_heads,
             (long long)m->num_key_value_heads, (long long)m->head_dim);
}

static int64_t key_width(const bench_case *c)
{
    return (int64_t)c->attention.kv_heads * c->attention.head_dim;
}
static int64_t query_width(const bench_case *c)
{
    return (int64_t)c->attention.heads * c->attention.head_dim;
}

/* k and v of each token are read and written: 4 B KV elements.  Tokens go to the last rows of their sequences. */
static cudpo_status make_store(bench_case *c, const bench_shape *s)
{
    describe(c, s);
    const int64_t rows = SEQUENCES * s->length, KV = key_width(c), Q = query_width(c);
    c->bytes = 4.0 * (double)(SEQUENCES * KV) * bench_element(s->type);
    bench_add(c, BENCH_INOUT, s->type, rows, KV, 1);
    bench_add(c, BENCH_INOUT, s->type, rows, KV, 1);
    bench_add(c, BENCH_IN, s->type, SEQUENCES, Q + 2 * KV, 1);
    bench_add_index(c, SEQUENCES, rows);
    for (int64_t i = 0; c->operand[SLOT].index != NULL && i < SEQUENCES; i++)
        c->operand[SLOT].index[i] = (int32_t)((i + 1) * s->length - 1);
    return CUDPO_OK;
}
static cudpo_status call_store(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->cache_store(r->be, t[K_CACHE], t[V_CACHE], t[QKV], t[SLOT], r->c->attention);
}
static int64_t wrong_store(const bench_case *c, float *const *got, double value)
{
    const int64_t KV = key_width(c), Q = query_width(c), rows = c->operand[K_CACHE].rows;
    const int64_t length = rows / SEQUENCES;
    int64_t count = 0;
    (void)value;
    for (int cache = K_CACHE; cache <= V_CACHE; cache++) {
        for (int64_t i = 0; i < rows * KV; i++) {
            const int64_t row = i / KV, token = row / length;
            const bool stored = row % length == length - 1;
            const float *from = c->operand[QKV].value + token * (Q + 2 * KV) + Q + cache * KV;
            count += is_other(got[cache][i], stored ? from[i % KV] : c->operand[cache].value[i]);
        }
    }
    return count;
}

enum { OUT, QUERY, KEYS, VALUES, FIRST, LENGTH };

/* The caches are read once. */
static cudpo_status make_query(bench_case *c, const bench_shape *s)
{
    describe(c, s);
    const int64_t rows = SEQUENCES * s->length, KV = key_width(c), Q = query_width(c);
    c->bytes = (2.0 * (double)(rows * KV) + 2.0 * (double)(SEQUENCES * Q)) * bench_element(s->type);
    bench_add(c, BENCH_OUT, s->type, SEQUENCES, Q, 1);
    bench_add(c, BENCH_IN, s->type, SEQUENCES, Q + 2 * KV, 1);
    bench_add(c, BENCH_IN, s->type, rows, KV, 1);
    bench_add(c, BENCH_IN, s->type, rows, KV, 1);
    bench_add_index(c, SEQUENCES, 1);
    bench_add_index(c, SEQUENCES, 1);
    for (int64_t i = 0; i < SEQUENCES; i++) {
        if (c->operand[FIRST].index != NULL) c->operand[FIRST].index[i] = (int32_t)(i * s->length);
        if (c->operand[LENGTH].index != NULL) c->operand[LENGTH].index[i] = (int32_t)s->length;
    }
    return CUDPO_OK;
}
static cudpo_status call_query(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->attention_cached(r->be, t[OUT], t[QUERY], t[KEYS], t[VALUES], t[FIRST], t[LENGTH],
                                   r->c->attention);
}

/* One head of one sequence, in double; p [n] is for its probabilities. */
static void attend(double *out, double *p, const bench_case *c, int64_t sequence, int64_t head)
{
    const attention_shape *a = &c->attention;
    const int64_t KV = key_width(c), D = a->head_dim, n = c->operand[LENGTH].index[sequence];
    const int64_t column = head / (a->heads / a->kv_heads) * D;
    const float *q = c->operand[QUERY].value + sequence * c->operand[QUERY].cols + head * D;
    double largest = (double)-INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        const float *k = c->operand[KEYS].value + (sequence * n + j) * KV + column;
        p[j] = 0;
        for (int64_t i = 0; i < D; i++)
            p[j] += (double)q[i] * (double)k[i];
        p[j] *= (double)a->scale;
        largest = fmax(largest, p[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = exp(p[j] - largest);
        sum += p[j];
    }
    for (int64_t i = 0; i < D; i++)
        out[i] = 0;
    for (int64_t j = 0; j < n; j++) {
        const float *v = c->operand[VALUES].value + (sequence * n + j) * KV + column;
        for (int64_t i = 0; i < D; i++)
            out[i] += p[j] / sum * (double)v[i];
    }
}
/* Means of values of size 1; float32 sums of `length` terms, rounded once. */
static int64_t wrong_query(const bench_case *c, float *const *got, double value)
{
    const int64_t D = c->attention.head_dim, H = c->attention.heads;
    const bench_operand *o = &c->operand[OUT];
    double *out = malloc((size_t)D * sizeof *out);
    double *p = malloc((size_t)(c->operand[KEYS].rows / SEQUENCES) * sizeof *p);
    int64_t count = 0;
    (void)value;
    for (int64_t i = 0; i < SEQUENCES * H; i++) {
        if (out == NULL || p == NULL) {
            count += D;
            continue;
        }
        attend(out, p, c, i / H, i % H);
        for (int64_t j = 0; j < D; j++) {
            const double units = o->type == DTYPE_BF16 ? 2 : 64;
            count += is_off((double)got[OUT][i * D + j], out[j], o->type, units, 0.1);
        }
    }
    free(p);
    free(out);
    return count;
}

const bench_op bench_cache_store = {"cache_store", "",   0,          make_store,
                                    call_store,    NULL, wrong_store};
const bench_op bench_attention_cached = {"attention_cached", "",   0,          make_query,
                                         call_query,         NULL, wrong_query};
