/* test_attention.h - packs, attention over them in double, and how far a backend may be from it. */
#ifndef CUDPO_TEST_ATTENTION_H
#define CUDPO_TEST_ATTENTION_H

#include "test_ops.h"

/* A pack: groups of a prompt length and completion lengths. */
typedef struct pack_shape {
    int H, K, D, window;
    int groups, completions; /* of each group */
    int prompt[4], length[4][3];
} pack_shape;

/* What q, k, v and dout are made of.  Rows of SPARSE have one element that is not 0, and no query meets a key: all scores
 * are 0, and an element of a result is a sum over the few queries or keys of its column, so that one more or one fewer is
 * far beyond what rounding to bf16 explains. */
typedef enum contents { NORMAL, SPARSE } contents;

typedef struct problem {
    attention_shape shape;
    dtype type;
    int64_t T, N, Q, W; /* W = Q + 2KV */
    int32_t *segments;  /* [N,4] */
    float *qkv, *dout;  /* [T,W], [T,Q] */
    int32_t *wanted;    /* [U] the tokens that ask; NULL: all */
    int64_t U;
} problem;

enum { MOST_SEGMENTS = 256 };

static inline problem problem_begin(int H, int K, int D, int window)
{
    problem x = {.shape = {H, K, D, window, 1.0f / sqrtf((float)D)}};
    x.Q = (int64_t)H * D;
    x.W = x.Q + 2 * (int64_t)K * D;
    x.segments = zeros(MOST_SEGMENTS * SEGMENT_FIELDS, sizeof(int32_t));
    return x;
}

/* A group; without a prompt where its length is 0. */
static inline void problem_add(problem *x, int prompt, int completions, const int *length)
{
    const int32_t begin = (int32_t)x->T;
    for (int c = -1; c < completions; c++) {
        const int n = c < 0 ? prompt : length[c];
        if (c < 0 && n == 0) continue;
        assert_true(x->N < MOST_SEGMENTS);
        int32_t *s = x->segments + x->N++ * SEGMENT_FIELDS;
        s[SEGMENT_BEGIN] = (int32_t)x->T;
        s[SEGMENT_LENGTH] = n;
        s[SEGMENT_PROMPT_BEGIN] = c < 0 || prompt == 0 ? 0 : begin;
        s[SEGMENT_PROMPT_LENGTH] = c < 0 ? 0 : prompt;
        x->T += n;
    }
}

static inline void fill_sparse(problem *x)
{
    const int64_t D = x->shape.head_dim, heads = x->Q / D, all = x->W / D, kv = x->shape.kv_heads;
    memset(x->qkv, 0, (size_t)(x->T * x->W) * sizeof *x->qkv);
    memset(x->dout, 0, (size_t)(x->T * x->Q) * sizeof *x->dout);
    for (int64_t t = 0; t < x->T; t++) {
        for (int64_t h = 0; h < all; h++) {
            float *row = x->qkv + t * x->W + h * D;
            if (h < heads) { /* queries to the right, keys to the left */
                row[D / 2 + (t * 5 + h) % ((D + 1) / 2)] = 1.0f + (float)(t % 3) / 2;
                x->dout[t * x->Q + h * D + (t * 11 + h) % D] = t % 5 < 2 ? 1.5f : -1.0f;
            } else if (h < heads + kv) {
                if (D > 1) row[(t * 3 + h) % (D / 2)] = 1.0f + (float)(t % 4) / 4;
            } else {
                row[(t * 7 + h) % D] = t % 7 < 3 ? 1.0f : -2.0f;
            }
        }
    }
}

static inline void problem_fill(problem *x, uint64_t seed, contents what)
{
    free(x->qkv);
    free(x->dout);
    x->qkv = random_floats(seed, x->T * x->W);
    x->dout = random_floats(seed + 1, x->T * x->Q);
    if (what == SPARSE) fill_sparse(x);
}

static inline problem problem_create(const pack_shape *p, uint64_t seed)
{
    problem x = problem_begin(p->H, p->K, p->D, p->window);
    for (int g = 0; g < p->groups; g++) {
        problem_add(&x, p->prompt[g], p->completions, p->length[g]);
    }
    problem_fill(&x, seed, NORMAL);
    return x;
}

static inline void problem_free(problem *x)
{
    free(x->segments);
    free(x->qkv);
    free(x->dout);
    free(x->wanted);
}

/* Of what a segment's tokens hold that nobody asks, dout included, nothing may be read before the first that asks and
 * after the last; between them dout is 0. */
static inline void hide_unwanted(problem *x)
{
    for (int64_t n = 0, u = 0; n < x->N; n++) {
        const int32_t *s = x->segments + n * SEGMENT_FIELDS;
        const int64_t first = u, end = s[SEGMENT_BEGIN] + (int64_t)s[SEGMENT_LENGTH];
        while (u < x->U && x->wanted[u] < end)
            u++;
        for (int64_t t = s[SEGMENT_BEGIN], next = first; t < end; t++) {
            const bool asks = next < u && x->wanted[next] == t;
            const bool inside = first < u && t >= x->wanted[first] && t <= x->wanted[u - 1];
            if (asks) next++;
            for (int64_t i = 0; i < x->Q && !asks; i++) {
                x->dout[t * x->Q + i] = inside ? 0.0f : NAN;
            }
        }
    }
}

/* Let tokens begin .. end-1 ask, each with probability 1 / n, beside those that do already. */
static inline void want_range(problem *x, int64_t begin, int64_t end, uint64_t seed, int n)
{
    if (x->wanted == NULL) x->wanted = zeros(x->T + 1, sizeof *x->wanted);
    for (int64_t t = begin; t < end; t++) {
        if (rng_below(seed, 3, (uint64_t)t, n) == 0) x->wanted[x->U++] = (int32_t)t;
    }
}

/* What the others make of it is no part of the objective. */
static inline void want_some(problem *x, uint64_t seed, int n)
{
    want_range(x, 0, x->T, seed, n);
    hide_unwanted(x);
}

static inline bool asks(const problem *x, int64_t t)
{
    bool found = x->wanted == NULL;
    for (int64_t u = 0; u < x->U && !found; u++) {
        found = x->wanted[u] == t;
    }
    return found;
}

/* Results, and how far each may be off. */
typedef struct answer {
    double *out, *lse, *dqkv, *out_tolerance, *lse_tolerance, *dqkv_tolerance;
} answer;

static inline answer answer_create(const problem *x)
{
    const int64_t Q = x->T * x->Q, L = x->T * x->shape.heads, W = x->T * x->W;
    return (answer){zeros(Q, 8), zeros(L, 8), zeros(W, 8), zeros(Q, 8), zeros(L, 8), zeros(W, 8)};
}

static inline void answer_free(answer *a)
{
    free(a->out);
    free(a->lse);
    free(a->dqkv);
    free(a->out_tolerance);
    free(a->lse_tolerance);
    free(a->dqkv_tolerance);
}

/* The keys that token index i of segment s sees, as the contract says it: distances in positions. */
static inline int64_t visible_keys(int64_t *keys, const problem *x, const int32_t *s, int64_t i)
{
    int64_t n = 0;
    const int64_t position = s[SEGMENT_PROMPT_LENGTH] + i;
    for (int64_t j = 0; j < s[SEGMENT_PROMPT_LENGTH] + i + 1; j++) { /* j: position of the key */
        if (x->shape.window != 0 && position - j >= x->shape.window) continue;
        keys[n++] = j < s[SEGMENT_PROMPT_LENGTH]
                        ? s[SEGMENT_PROMPT_BEGIN] + j
                        : s[SEGMENT_BEGIN] + (j - s[SEGMENT_PROMPT_LENGTH]);
    }
    return n;
}

/* One query of one head, all in double.
 *
 * In bf16, a weight p is rounded before it meets v or dout, so a sum of |p v| is off by EPS_BF16 of itself at most, and so
 * is a result when it is rounded in the end.  delta is as far off as the rounded out says, ds = p (dp - delta) follows and
 * is rounded to bf16 once more.  SLACK is what fp32 may add: scores of this file are below 16, and their sums of D
 * products, which tensor cores cut off, are off by a few hundred EPS at most. */
#define SLACK (512 * EPS)
static inline void plain_query(const answer *a, const problem *x, const double *qkv, int64_t t,
                               int h, const int64_t *keys, int64_t n, double *p)
{
    const int64_t D = x->shape.head_dim, kv = h / (x->shape.heads / x->shape.kv_heads);
    const int64_t k0 = x->Q + kv * D, v0 = k0 + x->shape.kv_heads * D;
    const double scale = (double)x->shape.scale, *q = qkv + t * x->W + h * D;
    const float *dout = x->dout + t * x->Q + h * D;
    double *out = a->out + t * x->Q + h * D, *off = a->out_tolerance + t * x->Q + h * D;
    double most = -INFINITY, sum = 0, delta = 0, delta_off = 0;
    for (int64_t j = 0; j < n; j++) {
        p[j] = 0;
        for (int64_t d = 0; d < D; d++) {
            p[j] += scale * q[d] * qkv[keys[j] * x->W + k0 + d];
        }
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        sum += p[j] = exp(p[j] - most);
    }
    a->lse[t * x->shape.heads + h] = most + log(sum);
    a->lse_tolerance[t * x->shape.heads + h] = SLACK;
    for (int64_t j = 0; j < n; j++) {
        p[j] /= sum;
        for (int64_t d = 0; d < D; d++) {
            const double v = qkv[keys[j] * x->W + v0 + d];
            out[d] += p[j] * v;
            off[d] += (EPS_BF16 + SLACK) * p[j] * fabs(v);
        }
    }
    for (int64_t d = 0; d < D; d++) {
        off[d] += EPS_BF16 * (fabs(out[d]) + off[d]);
        delta += (double)dout[d] * out[d];
        delta_off += fabs((double)dout[d]) * off[d];
    }
    if (a->dqkv == NULL) return;
    double *dq = a->dqkv + t * x->W + h * D, *dq_off = a->dqkv_tolerance + t * x->W + h * D;
    for (int64_t j = 0; j < n; j++) {
        const double *k = qkv + keys[j] * x->W + k0, *v = qkv + keys[j] * x->W + v0;
        double *dk = a->dqkv + keys[j] * x->W + k0, *dv = a->dqkv + keys[j] * x->W + v0;
        double *dk_off = a->dqkv_tolerance + (dk - a->dqkv);
        double *dv_off = a->dqkv_tolerance + (dv - a->dqkv);
        double dp = 0, size = fabs(delta);
        for (int64_t d = 0; d < D; d++) {
            dp += (double)dout[d] * v[d];
            size += fabs((double)dout[d] * v[d]);
        }
        const double ds = scale * p[j] * (dp - delta);
        const double ds_off =
            (1 + EPS_BF16) * (EPS_BF16 * fabs(ds) + scale * p[j] * (delta_off + SLACK * size));
        for (int64_t d = 0; d < D; d++) {
            dq[d] += ds * k[d];
            dk[d] += ds * q[d];
            dv[d] += p[j] * (double)dout[d];
            dq_off[d] += ds_off * fabs(k[d]);
            dk_off[d] += ds_off * fabs(q[d]);
            dv_off[d] += (EPS_BF16 + SLACK) * p[j] * fabs((double)dout[d]);
        }
    }
}

/* All queries that ask; the answers of the others stay 0. */
static inline void plain(const answer *a, const problem *x, const double *qkv)
{
    int64_t *keys = zeros(x->T + 1, sizeof *keys);
    double *p = zeros(x->T + 1, sizeof *p);
    for (int64_t n = 0; n < x->N; n++) {
        const int32_t *s = x->segments + n * SEGMENT_FIELDS;
        for (int64_t i = 0; i < s[SEGMENT_LENGTH]; i++) {
            if (!asks(x, s[SEGMENT_BEGIN] + i)) continue;
            const int64_t count = visible_keys(keys, x, s, i);
            for (int h = 0; h < x->shape.heads; h++) {
                plain_query(a, x, qkv, s[SEGMENT_BEGIN] + i, h, keys, count, p);
            }
        }
    }
    for (int64_t i = 0; i < x->T * x->W && a->dqkv != NULL; i++) {
        a->dqkv_tolerance[i] += EPS_BF16 * (fabs(a->dqkv[i]) + a->dqkv_tolerance[i]);
    }
    free(keys);
    free(p);
}

static inline double *doubles(const float *x, int64_t n)
{
    double *y = zeros(n, sizeof *y);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (double)x[i];
    }
    return y;
}

/* A view with gaps between its rows: of `gap` elements in fp32, of so many 16-byte pieces in bf16. */
static inline tensor gapped(ops *o, dtype type, const float *host, int64_t rows, int64_t cols,
                            int gap)
{
    const int n = type == DTYPE_BF16 ? gap * 8 : gap;
    const tensor t = ops_make_at(o, type, rows, cols, cols + n, n);
    if (host != NULL) ops_put_floats(o, t, host);
    return t;
}

/* Run forward and backward on the backend, through strided views; any result may be NULL. */
static inline void run(ops *o, float *out, float *lse, float *dqkv, const problem *x)
{
    backend *be = o->be;
    const int H = x->shape.heads;
    const tensor qkv = gapped(o, x->type, x->qkv, x->T, x->W, 3);
    const tensor segments = ops_indices(o, x->segments, x->N, SEGMENT_FIELDS);
    const tensor to = gapped(o, x->type, NULL, x->T, x->Q, 1);
    const tensor tl = gapped(o, DTYPE_F32, NULL, x->T, H, 2);
    const tensor wanted = x->wanted != NULL ? ops_indices(o, x->wanted, x->U, 1) : (tensor){0};
    CHECK_OK(be->attention(be, to, tl, qkv, segments, wanted, x->shape));
    if (out != NULL) ops_get_floats(o, out, to);
    if (lse != NULL) ops_get_floats(o, lse, tl);
    if (dqkv == NULL) return;
    const tensor dout = gapped(o, x->type, x->dout, x->T, x->Q, 2);
    const tensor td = gapped(o, x->type, NULL, x->T, x->W, 5);
    CHECK_OK(be->attention_backward(be, td, dout, qkv, to, tl, segments, wanted, x->shape));
    ops_get_floats(o, dqkv, td);
}

/* Rows of n elements, those of askers alone unless `all`; fp32 within a tolerance of its own. */
static inline void check_rows(const char *what, const problem *x, const float *got,
                              const double *want, const double *tolerance, int64_t n, double f32,
                              bool all)
{
    for (int64_t i = 0; i < x->T * n; i++) {
        const double off = x->type == DTYPE_F32 ? f32 : tolerance[i] + 1e-30;
        if (!(fabs((double)got[i] - want[i]) <= off) && (all || asks(x, i / n)))
            fail_msg("%s %s of token %lld, element %lld = %.9g, want %.9g within %g",
                     dtype_name(x->type), what, (long long)(i / n), (long long)(i % n),
                     (double)got[i], want[i], off);
    }
}

/* In fp32, scores are sums of D products of unit normals over sqrt(D), of size 1 to 5, so their rounding, and the relative
 * error of every weight, is some 10 EPS; a gradient adds up to a few hundred such terms of size 1 to 5. */
static inline void check_as(backend *be, problem *x, dtype type)
{
    const int64_t Q = x->T * x->Q, W = x->T * x->W, L = x->T * x->shape.heads;
    float *out = zeros(Q, 4), *lse = zeros(L, 4), *dqkv = zeros(W, 4);
    answer a = answer_create(x);
    x->type = type;
    round_to(type, x->qkv, W);
    round_to(type, x->dout, Q);
    double *qkv = doubles(x->qkv, W);
    ops o = ops_begin(be);
    run(&o, out, lse, dqkv, x);
    plain(&a, x, qkv);
    check_rows("out", x, out, a.out, a.out_tolerance, x->Q, 64 * EPS, false);
    check_rows("lse", x, lse, a.lse, a.lse_tolerance, x->shape.heads, 64 * EPS, false);
    check_rows("dqkv", x, dqkv, a.dqkv, a.dqkv_tolerance, x->W, 512 * EPS, true);
    ops_end(&o);
    answer_free(&a);
    free(out);
    free(lse);
    free(dqkv);
    free(qkv);
}

/* Does the backend have bf16 kernels for it? */
static inline bool has_bf16(const backend *be, const problem *x)
{
    return be->on_device && x->shape.head_dim % 8 == 0;
}

static inline void check_problem(backend *be, problem *x)
{
    check_as(be, x, DTYPE_F32);
    if (has_bf16(be, x)) check_as(be, x, DTYPE_BF16);
}

static inline void check_pack(backend *be, const pack_shape *p, uint64_t seed)
{
    problem x = problem_create(p, seed);
    check_problem(be, &x);
    problem_free(&x);
}

#endif /* CUDPO_TEST_ATTENTION_H */
