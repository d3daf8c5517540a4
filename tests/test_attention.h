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

/* How far a result may be off: what is lost on the way to it, to first order, with the operands' own sizes.
 *
 * A sum in fp32 loses a rounding of each product and of each partial sum.  Partial sums are those of this file, term after
 * term; kernels take other orders, where they are of the same size or smaller.  Tensor cores have exact products of bf16,
 * but cut off what they add, which loses twice as much: `add`.
 * A weight e^(s - m), with m the greatest score, is relatively as far off as the exponent is absolutely: by what q k is; by
 * three roundings of s - m and one of m or s, from the scale (in bf16 with log2 e in it) and the difference; and by two
 * units of the function.  What was added up is multiplied by e^(m - m') when m' is greater, once a `tile` of keys at most,
 * which loses six roundings each time and two of m in all; in bf16 for every tile, and each time a rounding of m.
 * The weights of a row are added up in four parts at least.
 * In bf16 a weight is rounded before it meets v or dout, so is ds, and so are results: `unit`.  In fp32 that is the
 * rounding of a product with a weight, and of a result with a factor. */
typedef struct rounding {
    double add, unit;
    bool every_tile;
    int tile;
} rounding;

static inline rounding rounding_of(dtype type)
{
    return type == DTYPE_BF16 ? (rounding){2 * EPS, EPS_BF16, true, 32}
                              : (rounding){EPS, EPS, false, 32};
}

typedef struct problem {
    attention_shape shape;
    dtype type;
    rounding r;
    int64_t T, N, Q, W; /* W = Q + 2KV */
    int32_t *segments;  /* [N,4] */
    float *qkv, *dout;  /* [T,W], [T,Q] */
    int32_t *wanted;    /* [U] the tokens that ask; NULL: all */
    int64_t U;
} problem;

enum { MOST_SEGMENTS = 320 };

static inline problem problem_begin(int H, int K, int D, int window)
{
    problem x = {.shape = {H, K, D, window, 1.0f / sqrtf((float)D)}, .r = rounding_of(DTYPE_F32)};
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

static inline double *doubles(const float *x, int64_t n)
{
    double *y = zeros(n, sizeof *y);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (double)x[i];
    }
    return y;
}

/* Sum of a [n] times b [n], and how far it is off. */
static inline double product(double *off, rounding r, const double *a, const double *b, int64_t n)
{
    double sum = 0, sizes = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = a[i] * b[i];
        sum += x;
        sizes += fabs(sum) + fabs(x);
    }
    *off = r.add * sizes;
    return sum;
}

/* A query of one head and the keys that it sees, and of each key the score, how far that is off, and the weight. */
typedef struct query {
    int64_t token, head, n;
    int64_t *keys;
    double *score, *score_off, *p;
    double most, common, sum_off; /* greatest score; what all weights are off; what their sum is */
} query;

static inline void plain_weights(const answer *a, const problem *x, query *z, const double *q,
                                 const double *k)
{
    const rounding r = x->r;
    const double scale = (double)x->shape.scale;
    const int64_t at = z->token * x->shape.heads + z->head;
    double steps = 0, sum = 0, off = 0;
    z->most = -INFINITY;
    for (int64_t j = 0; j < z->n; j++) {
        double *s = &z->score[j];
        *s = scale * product(&z->score_off[j], r, q, k + z->keys[j] * x->W, x->shape.head_dim);
        z->score_off[j] *= scale;
        if (*s > z->most) steps++;
        z->most = fmax(z->most, *s);
    }
    const double tiles = (double)(z->n / r.tile + 2); /* of two ranges */
    steps = r.every_tile ? tiles : fmin(steps, tiles);
    z->common = EPS * (4 + fabs(z->most) + 6 * steps + (r.every_tile ? steps : 2) * fabs(z->most));
    for (int64_t j = 0; j < z->n; j++) {
        z->p[j] = exp(z->score[j] - z->most);
        sum += z->p[j];
        off += z->p[j] * (z->score_off[j] + 3 * EPS * (z->most - z->score[j]));
    }
    for (int64_t j = 0; j < z->n; j++) {
        z->p[j] /= sum;
    }
    z->sum_off = off / sum + z->common + EPS * (double)(z->n / 4 + 4);
    a->lse[at] = z->most + log(sum);
    a->lse_tolerance[at] =
        z->sum_off + EPS * (2 * fabs(log(sum)) + fabs(z->most) + fabs(a->lse[at]));
}

static inline void plain_out(const answer *a, const problem *x, const query *z, const double *v)
{
    const rounding r = x->r;
    const int64_t D = x->shape.head_dim, at = z->token * x->Q + z->head * D;
    double *out = a->out + at, *off = a->out_tolerance + at;
    for (int64_t j = 0; j < z->n; j++) {
        const double *value = v + z->keys[j] * x->W, p = z->p[j];
        const double p_off = z->score_off[j] + 3 * EPS * (z->most - z->score[j]) + z->common;
        for (int64_t d = 0; d < D; d++) {
            out[d] += p * value[d];
            off[d] += (p_off + r.unit + r.add) * p * fabs(value[d]) + r.add * fabs(out[d]);
        }
    }
    for (int64_t d = 0; d < D; d++) {
        off[d] += (z->sum_off + 3 * EPS) * fabs(out[d]);
        off[d] += r.unit * (fabs(out[d]) + off[d]);
    }
}

/* In the backward pass, weights are made again from the log-sum-exp: by three roundings of the score, two of the
 * log-sum-exp, and one of the difference. */
static inline void plain_slopes(const answer *a, const problem *x, const query *z,
                                const double *qkv, const double *dout)
{
    const rounding r = x->r;
    const int64_t D = x->shape.head_dim, kv = z->head / (x->shape.heads / x->shape.kv_heads);
    const int64_t k0 = x->Q + kv * D, v0 = k0 + x->shape.kv_heads * D;
    const int64_t at = z->token * x->Q + z->head * D, q0 = z->token * x->W + z->head * D;
    const int64_t row = z->token * x->shape.heads + z->head;
    const double scale = (double)x->shape.scale, lse = a->lse[row], *q = qkv + q0;
    double delta_off, *dq = a->dqkv + q0, *dq_off = a->dqkv_tolerance + q0;
    const double delta = product(&delta_off, r, dout + at, a->out + at, D);
    for (int64_t d = 0; d < D; d++) {
        delta_off += fabs(dout[at + d]) * a->out_tolerance[at + d];
    }
    for (int64_t j = 0; j < z->n; j++) {
        const int64_t key = z->keys[j] * x->W;
        const double *k = qkv + key + k0, p = z->p[j], s = z->score[j];
        double *dk = a->dqkv + key + k0, *dk_off = a->dqkv_tolerance + key + k0;
        double *dv = a->dqkv + key + v0, *dv_off = a->dqkv_tolerance + key + v0, dp_off;
        const double dp = product(&dp_off, r, dout + at, qkv + key + v0, D);
        const double p_off = z->score_off[j] + a->lse_tolerance[row] +
                             EPS * (4 + 3 * fabs(s) + 2 * fabs(lse) + fabs(s - lse));
        const double ds = scale * p * (dp - delta);
        const double ds_off = (1 + r.unit) * ((p_off + r.unit + 4 * EPS) * fabs(ds) +
                                              scale * p * (dp_off + delta_off));
        for (int64_t d = 0; d < D; d++) {
            const double y = dout[at + d];
            dq[d] += ds * k[d];
            dk[d] += ds * q[d];
            dv[d] += p * y;
            dq_off[d] += (ds_off + r.add * fabs(ds)) * fabs(k[d]) + r.add * fabs(dq[d]);
            dk_off[d] += (ds_off + r.add * fabs(ds)) * fabs(q[d]) + r.add * fabs(dk[d]);
            dv_off[d] += (p_off + r.unit + r.add) * p * fabs(y) + r.add * fabs(dv[d]);
        }
    }
}

/* All queries that ask, in double; the answers of the others stay 0.  The backward pass where there is room for it. */
static inline void plain(const answer *a, const problem *x, const double *qkv)
{
    query z = {.keys = zeros(x->T + 1, sizeof *z.keys),
               .score = zeros(x->T + 1, 8),
               .score_off = zeros(x->T + 1, 8),
               .p = zeros(x->T + 1, 8)};
    double *dout = doubles(x->dout, x->T * x->Q);
    const int64_t D = x->shape.head_dim, K = x->shape.kv_heads;
    for (int64_t n = 0; n < x->N; n++) {
        const int32_t *s = x->segments + n * SEGMENT_FIELDS;
        for (int64_t i = 0; i < s[SEGMENT_LENGTH]; i++) {
            z.token = s[SEGMENT_BEGIN] + i;
            if (!asks(x, z.token)) continue;
            z.n = visible_keys(z.keys, x, s, i);
            for (z.head = 0; z.head < x->shape.heads; z.head++) {
                const double *k = qkv + x->Q + z.head / (x->shape.heads / K) * D;
                plain_weights(a, x, &z, qkv + z.token * x->W + z.head * D, k);
                plain_out(a, x, &z, k + K * D);
                if (a->dqkv != NULL) plain_slopes(a, x, &z, qkv, dout);
            }
        }
    }
    for (int64_t i = 0; i < x->T * x->W && a->dqkv != NULL; i++) {
        const double size = fabs(a->dqkv[i]) + a->dqkv_tolerance[i];
        a->dqkv_tolerance[i] += (x->r.unit + 2 * EPS) * size;
    }
    free(z.keys);
    free(z.score);
    free(z.score_off);
    free(z.p);
    free(dout);
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

/* Rows of n elements, those of askers alone unless `all`. */
static inline void check_rows(const char *what, const problem *x, const float *got,
                              const double *want, const double *tolerance, int64_t n, bool all)
{
    for (int64_t i = 0; i < x->T * n; i++) {
        const double off = tolerance[i] + 1e-36; /* what underflows */
        if (!(fabs((double)got[i] - want[i]) <= off) && (all || asks(x, i / n)))
            fail_msg("%s %s of token %lld, element %lld = %.9g, want %.9g within %g",
                     dtype_name(x->type), what, (long long)(i / n), (long long)(i % n),
                     (double)got[i], want[i], off);
    }
}

static inline void check_as(backend *be, problem *x, dtype type)
{
    const int64_t Q = x->T * x->Q, W = x->T * x->W, L = x->T * x->shape.heads;
    float *out = zeros(Q, 4), *lse = zeros(L, 4), *dqkv = zeros(W, 4);
    answer a = answer_create(x);
    x->type = type;
    x->r = rounding_of(type);
    round_to(type, x->qkv, W);
    round_to(type, x->dout, Q);
    double *qkv = doubles(x->qkv, W);
    ops o = ops_begin(be);
    run(&o, out, lse, dqkv, x);
    plain(&a, x, qkv);
    check_rows("out", x, out, a.out, a.out_tolerance, x->Q, false);
    check_rows("lse", x, lse, a.lse, a.lse_tolerance, x->shape.heads, false);
    check_rows("dqkv", x, dqkv, a.dqkv, a.dqkv_tolerance, x->W, true);
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
