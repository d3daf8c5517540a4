/* test_attention.c - attention over packs against a plain implementation in double. */
/* rooms: backend base */
#include "test_ops.h"

/* A pack: groups of a prompt length and completion lengths. */
typedef struct pack_shape {
    int H, K, D, window;
    int groups, completions; /* of each group */
    int prompt[4], length[4][3];
} pack_shape;

typedef struct problem {
    attention_shape shape;
    int64_t T, N, Q, W; /* W = Q + 2KV */
    int32_t *segments;  /* [N,4] */
    float *qkv, *dout;  /* [T,W], [T,Q] */
    int32_t *wanted;    /* [U] the tokens that ask; NULL: all */
    int64_t U;
} problem;

static problem problem_create(const pack_shape *p, uint64_t seed)
{
    problem x = {.shape = {p->H, p->K, p->D, p->window, 1.0f / sqrtf((float)p->D)}};
    x.Q = (int64_t)p->H * p->D;
    x.W = x.Q + 2 * (int64_t)p->K * p->D;
    x.segments = zeros(p->groups * (1 + p->completions) * SEGMENT_FIELDS, sizeof(int32_t));
    for (int g = 0; g < p->groups; g++) {
        const int32_t prompt = (int32_t)x.T;
        for (int c = -1; c < p->completions; c++) {
            const int length = c < 0 ? p->prompt[g] : p->length[g][c];
            if (c < 0 && length == 0) continue; /* a group without a prompt */
            int32_t *s = x.segments + x.N++ * SEGMENT_FIELDS;
            s[SEGMENT_BEGIN] = (int32_t)x.T;
            s[SEGMENT_LENGTH] = length;
            s[SEGMENT_PROMPT_BEGIN] = c < 0 || p->prompt[g] == 0 ? 0 : prompt;
            s[SEGMENT_PROMPT_LENGTH] = c < 0 ? 0 : p->prompt[g];
            x.T += length;
        }
    }
    x.qkv = random_floats(seed, x.T * x.W);
    x.dout = random_floats(seed + 1, x.T * x.Q);
    return x;
}

static void problem_free(problem *x)
{
    free(x->segments);
    free(x->qkv);
    free(x->dout);
    free(x->wanted);
}

/* Let each token ask with probability 1 / n.  What the others make of it is no part of the objective. */
static void want_some(problem *x, uint64_t seed, int n)
{
    x->wanted = zeros(x->T + 1, sizeof *x->wanted);
    for (int64_t t = 0; t < x->T; t++) {
        if (rng_below(seed, 3, (uint64_t)t, n) == 0) {
            x->wanted[x->U++] = (int32_t)t;
        } else {
            memset(x->dout + t * x->Q, 0, (size_t)x->Q * sizeof *x->dout);
        }
    }
}

/* Rows of x [T,n] of tokens that do not ask become 0. */
static void zero_unwanted(const problem *p, void *x, int64_t n, size_t size)
{
    int64_t u = 0;
    for (int64_t t = 0; p->wanted != NULL && t < p->T; t++) {
        if (u < p->U && p->wanted[u] == t) {
            u++;
        } else {
            memset((char *)x + (size_t)(t * n) * size, 0, (size_t)n * size);
        }
    }
}

/* The keys that token index i of segment s sees, as the contract says it: distances in positions. */
static int64_t visible_keys(int64_t *keys, const problem *x, const int32_t *s, int64_t i)
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

/* out, lse and, where dqkv is not NULL, dqkv of one query of one head, all in double. */
static void plain_query(double *out, double *lse, double *dqkv, const problem *x, const double *qkv,
                        int64_t t, int h, const int64_t *keys, int64_t n)
{
    const int64_t D = x->shape.head_dim, kv = h / (x->shape.heads / x->shape.kv_heads);
    const int64_t k0 = x->Q + kv * D, v0 = k0 + x->shape.kv_heads * D;
    const double scale = (double)x->shape.scale, *q = qkv + t * x->W + h * D;
    double *p = zeros(n, sizeof *p), most = -INFINITY, sum = 0, delta = 0;
    for (int64_t j = 0; j < n; j++) {
        for (int64_t d = 0; d < D; d++) {
            p[j] += scale * q[d] * qkv[keys[j] * x->W + k0 + d];
        }
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        sum += p[j] = exp(p[j] - most);
    }
    lse[t * x->shape.heads + h] = most + log(sum);
    for (int64_t j = 0; j < n; j++) {
        p[j] /= sum;
        for (int64_t d = 0; d < D; d++) {
            out[t * x->Q + h * D + d] += p[j] * qkv[keys[j] * x->W + v0 + d];
        }
    }
    if (dqkv != NULL) {
        const float *dout = x->dout + t * x->Q + h * D;
        for (int64_t d = 0; d < D; d++) {
            delta += (double)dout[d] * out[t * x->Q + h * D + d];
        }
        for (int64_t j = 0; j < n; j++) {
            const double *k = qkv + keys[j] * x->W + k0, *v = qkv + keys[j] * x->W + v0;
            double dp = 0;
            for (int64_t d = 0; d < D; d++) {
                dp += (double)dout[d] * v[d];
            }
            const double ds = scale * p[j] * (dp - delta);
            for (int64_t d = 0; d < D; d++) {
                dqkv[t * x->W + h * D + d] += ds * k[d];
                dqkv[keys[j] * x->W + k0 + d] += ds * q[d];
                dqkv[keys[j] * x->W + v0 + d] += p[j] * (double)dout[d];
            }
        }
    }
    free(p);
}

static void plain(double *out, double *lse, double *dqkv, const problem *x, const double *qkv)
{
    int64_t *keys = zeros(x->T + 1, sizeof *keys);
    for (int64_t n = 0; n < x->N; n++) {
        const int32_t *s = x->segments + n * SEGMENT_FIELDS;
        for (int64_t i = 0; i < s[SEGMENT_LENGTH]; i++) {
            const int64_t count = visible_keys(keys, x, s, i);
            for (int h = 0; h < x->shape.heads; h++) {
                plain_query(out, lse, dqkv, x, qkv, s[SEGMENT_BEGIN] + i, h, keys, count);
            }
        }
    }
    free(keys);
}

static double *doubles(const float *x, int64_t n)
{
    double *y = zeros(n, sizeof *y);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (double)x[i];
    }
    return y;
}

/* Run forward and backward on the backend, through strided views; any result may be NULL. */
static void run(ops *o, float *out, float *lse, float *dqkv, const problem *x)
{
    backend *be = o->be;
    const int H = x->shape.heads;
    const tensor qkv = ops_strided(o, x->qkv, x->T, x->W, x->W + 3);
    const tensor segments = ops_indices(o, x->segments, x->N, SEGMENT_FIELDS);
    const tensor to = ops_strided(o, NULL, x->T, x->Q, x->Q + 1), tl = ops_output(o, x->T, H);
    const tensor wanted = x->wanted != NULL ? ops_indices(o, x->wanted, x->U, 1) : (tensor){0};
    CHECK_OK(be->attention(be, to, tl, qkv, segments, wanted, x->shape));
    if (out != NULL) ops_get(o, out, to);
    if (lse != NULL) ops_get(o, lse, tl);
    if (dqkv == NULL) return;
    const tensor dout = ops_strided(o, x->dout, x->T, x->Q, x->Q + 2);
    const tensor td = ops_strided(o, NULL, x->T, x->W, x->W + 5);
    CHECK_OK(be->attention_backward(be, td, dout, qkv, to, tl, segments, wanted, x->shape));
    ops_get(o, dqkv, td);
}

/* Scores are sums of D products of unit normals over sqrt(D), of size 1 to 5, so their rounding, and the relative error
 * of every weight, is some 10 EPS; a gradient adds up to a few hundred such terms of size 1 to 5. */
static void check_problem(backend *be, const problem *x)
{
    const int64_t Q = x->T * x->Q, W = x->T * x->W, L = x->T * x->shape.heads;
    float *out = zeros(Q, 4), *lse = zeros(L, 4), *dqkv = zeros(W, 4);
    double *want_out = zeros(Q, 8), *want_lse = zeros(L, 8), *want_dqkv = zeros(W, 8);
    double *qkv = doubles(x->qkv, W);
    ops o = ops_begin(be);
    run(&o, out, lse, dqkv, x);
    plain(want_out, want_lse, want_dqkv, x, qkv);
    zero_unwanted(x, out, x->Q, sizeof *out);
    zero_unwanted(x, want_out, x->Q, sizeof *want_out);
    zero_unwanted(x, lse, x->shape.heads, sizeof *lse);
    zero_unwanted(x, want_lse, x->shape.heads, sizeof *want_lse);
    check_close("out", out, want_out, Q, 64 * EPS);
    check_close("lse", lse, want_lse, L, 64 * EPS);
    check_close("dqkv", dqkv, want_dqkv, W, 512 * EPS);
    ops_end(&o);
    free(out);
    free(lse);
    free(dqkv);
    free(want_out);
    free(want_lse);
    free(want_dqkv);
    free(qkv);
}

static void check_pack(backend *be, const pack_shape *p, uint64_t seed)
{
    problem x = problem_create(p, seed);
    check_problem(be, &x);
    problem_free(&x);
}

/* Two keys, one head of two dimensions, scale 1:  q1 = (1, 0), k0 = (0, 0), k1 = (ln 3, 0): scores 0 and ln 3, weights
 * 1/4 and 3/4, lse ln 4.  The first token sees itself alone. */
static void two_tokens_by_hand(backend *be)
{
    static const float qkv[] = {7, 9, 0, 0, 4, 8, 1, 0, 1.09861229f, 0, 0, 4};
    static const int32_t segments[] = {0, 2, 0, 0};
    static const double want_out[] = {4, 8, 1, 5}, want_lse[] = {0, 1.3862943611};
    const attention_shape shape = {1, 1, 2, 0, 1.0f};
    float out[4], lse[2];
    ops o = ops_begin(be);
    const tensor to = ops_output(&o, 2, 2), tl = ops_output(&o, 2, 1);
    CHECK_OK(be->attention(be, to, tl, ops_floats(&o, qkv, 2, 6), ops_indices(&o, segments, 1, 4),
                           (tensor){0}, shape));
    ops_get(&o, out, to);
    ops_get(&o, lse, tl);
    check_close("out", out, want_out, 4, 8 * EPS * 8);
    check_close("lse", lse, want_lse, 2, 8 * EPS);
    ops_end(&o);
}

/* The plain slopes are slopes: of sum(dout * out), by finite differences. */
static double objective(const double *qkv, const void *context)
{
    const problem *x = context;
    double *out = zeros(x->T * x->Q, 8), *lse = zeros(x->T * x->shape.heads, 8), sum = 0;
    plain(out, lse, NULL, x, qkv);
    for (int64_t i = 0; i < x->T * x->Q; i++) {
        sum += (double)x->dout[i] * out[i];
    }
    free(out);
    free(lse);
    return sum;
}

static void slopes_by_finite_differences(backend *be)
{
    const pack_shape p = {4, 2, 6, 4, 2, 2, {3, 0}, {{2, 4}, {3, 1}}};
    problem x = problem_create(&p, 17);
    float *dqkv = zeros(x.T * x.W, 4);
    double *qkv = doubles(x.qkv, x.T * x.W);
    ops o = ops_begin(be);
    run(&o, NULL, NULL, dqkv, &x);
    for (int64_t i = 0; i < x.T * x.W; i++) {
        CHECK_NEAR((double)dqkv[i], slope(objective, qkv, i, &x), 128 * EPS);
    }
    ops_end(&o);
    free(dqkv);
    free(qkv);
    problem_free(&x);
}

static void packs_of_every_head_dim(backend *be)
{
    static const int dims[] = {2, 8, 64, 96, 128, 256};
    for (int i = 0; i < 6; i++) {
        const pack_shape p = {4, 2, dims[i], 0, 2, 2, {33, 7}, {{31, 1}, {32, 65}}};
        check_pack(be, &p, 100 + (uint64_t)i);
    }
}

/* Lengths around the edges of the tiles of queries and of keys. */
static void tails_of_tiles(backend *be)
{
    static const int tail[] = {1, 31, 32, 33, 63, 64, 65, 255, 256, 257};
    for (int i = 0; i < 10; i++) {
        const pack_shape p = {2, 1, 8, 0, 1, 2, {tail[i]}, {{tail[9 - i], tail[(i + 3) % 10]}}};
        check_pack(be, &p, 200 + (uint64_t)i);
    }
}

static void windows_over_prompt_and_completion(backend *be)
{
    static const int window[] = {1, 2, 31, 64, 100, 255, 256, 257, 1000};
    for (int i = 0; i < 9; i++) {
        const pack_shape p = {2, 2, 8, window[i], 2, 2, {70, 300}, {{5, 90}, {70, 40}}};
        check_pack(be, &p, 300 + (uint64_t)i);
    }
}

static void heads_that_share_keys(backend *be)
{
    static const int heads[][2] = {{1, 1}, {3, 3}, {6, 3}, {8, 2}, {7, 1}};
    for (int i = 0; i < 5; i++) {
        const pack_shape p = {heads[i][0], heads[i][1], 16, 0, 3, 1, {9, 0, 40}, {{20}, {3}, {1}}};
        check_pack(be, &p, 400 + (uint64_t)i);
    }
}

static int below(uint64_t seed, int *draw, int n)
{
    return (int)rng_below(seed, 2, (uint64_t)(*draw)++, n);
}

static void random_packs(backend *be)
{
    for (uint64_t seed = 0; seed < 24; seed++) {
        int draw = 0;
        pack_shape p = {.K = 1 + below(seed, &draw, 3), .D = 2 * (1 + below(seed, &draw, 20))};
        p.H = p.K * (1 + below(seed, &draw, 3));
        p.window = below(seed, &draw, 2) * (1 + below(seed, &draw, 80));
        p.groups = 1 + below(seed, &draw, 4);
        p.completions = 1 + below(seed, &draw, 3);
        for (int g = 0; g < p.groups; g++) {
            p.prompt[g] = below(seed, &draw, 3) == 0 ? 0 : below(seed, &draw, 90);
            for (int c = 0; c < p.completions; c++) {
                p.length[g][c] = below(seed, &draw, 5) == 0 ? 0 : 1 + below(seed, &draw, 70);
            }
        }
        problem x = problem_create(&p, 500 + seed);
        if (x.T > 0) check_problem(be, &x);
        want_some(&x, seed, 1 + below(seed, &draw, 60));
        if (x.T > 0 && x.U > 0) check_problem(be, &x);
        problem_free(&x);
    }
}

/* [prompt | a | b] gives what [prompt | a] and [prompt | b] give: the outputs of each completion, and for the prompt the
 * sum of both gradients, where its own queries count once: the second copy of the prompt has no dout. */
static void shared_layout_is_plain_layout(backend *be)
{
    enum { P = 75, A = 40, B = 66, T = P + A + B };
    const pack_shape shared = {4, 2, 16, 0, 1, 2, {P}, {{A, B}}};
    const pack_shape apart = {4, 2, 16, 0, 2, 1, {P, P}, {{A}, {B}}};
    problem x = problem_create(&shared, 21), y = problem_create(&apart, 22);
    const int64_t W = x.W, Q = x.Q;
    memcpy(y.qkv, x.qkv, (size_t)((P + A) * W) * 4);
    memcpy(y.qkv + (P + A) * W, x.qkv, (size_t)(P * W) * 4);
    memcpy(y.qkv + (P + A + P) * W, x.qkv + (P + A) * W, (size_t)(B * W) * 4);
    memcpy(y.dout, x.dout, (size_t)((P + A) * Q) * 4);
    memset(y.dout + (P + A) * Q, 0, (size_t)(P * Q) * 4);
    memcpy(y.dout + (P + A + P) * Q, x.dout + (P + A) * Q, (size_t)(B * Q) * 4);

    float *out = zeros(T * Q, 4), *dqkv = zeros(T * W, 4);
    float *out2 = zeros((T + P) * Q, 4), *dqkv2 = zeros((T + P) * W, 4);
    ops o = ops_begin(be);
    run(&o, out, NULL, dqkv, &x);
    run(&o, out2, NULL, dqkv2, &y);
    for (int64_t t = 0; t < T; t++) {
        const int64_t u = t < P + A ? t : t + P;
        for (int64_t i = 0; i < Q; i++) {
            CHECK_NEAR(out[t * Q + i], (double)out2[u * Q + i], 64 * EPS);
        }
        for (int64_t i = 0; i < W; i++) {
            const double copy = t < P ? (double)dqkv2[(P + A + t) * W + i] : 0.0;
            CHECK_NEAR(dqkv[t * W + i], (double)dqkv2[u * W + i] + copy, 512 * EPS);
        }
    }
    ops_end(&o);
    free(out);
    free(dqkv);
    free(out2);
    free(dqkv2);
    problem_free(&x);
    problem_free(&y);
}

/* Scores of +-1e4: the softmax is one-hot, and nothing overflows. */
static void extreme_scores(backend *be)
{
    const pack_shape p = {1, 1, 4, 0, 1, 1, {20}, {{300}}};
    problem x = problem_create(&p, 31);
    x.shape.scale = 1.0f;
    for (int64_t t = 0; t < x.T;
         t++) { /* token t's key scores (t % 7) * 1e4 - 3e4 with every query */
        for (int d = 0; d < 4; d++) {
            x.qkv[t * x.W + d] = d == 0 ? 100.0f : 0.0f;
            x.qkv[t * x.W + 4 + d] = d == 0 ? 100.0f * (float)(t % 7) - 300.0f : 0.0f;
        }
        x.qkv[t * x.W + 8] = t % 7 == 6 ? 2.0f : -5.0f; /* the value, in its first column */
    }
    float *out = zeros(x.T * x.Q, 4), *dqkv = zeros(x.T * x.W, 4);
    ops o = ops_begin(be);
    run(&o, out, NULL, dqkv, &x);
    for (int64_t t = 0; t < x.T; t++) {
        CHECK_NEAR(out[t * x.Q], t < 6 ? -5.0 : 2.0, 1e-5);
    }
    for (int64_t i = 0; i < x.T * x.W; i++) {
        assert_true(isfinite(dqkv[i]));
    }
    ops_end(&o);
    free(out);
    free(dqkv);
    problem_free(&x);
}

static void check_refused(backend *be, const problem *x, const int32_t *segments, int64_t N,
                          attention_shape shape, const char *what)
{
    ops o = ops_begin(be);
    const tensor qkv = ops_floats(&o, x->qkv, x->T, x->W), dqkv = ops_output(&o, x->T, x->W);
    const tensor out = ops_output(&o, x->T, x->Q), lse = ops_output(&o, x->T, x->shape.heads);
    const tensor table = ops_indices(&o, segments, N, SEGMENT_FIELDS);
    const tensor wanted = x->wanted != NULL ? ops_indices(&o, x->wanted, x->U, 1) : (tensor){0};
    CHECK_FAILS(be->attention(be, out, lse, qkv, table, wanted, shape), CUDPO_EINVAL, what);
    CHECK_FAILS(be->attention_backward(be, dqkv, out, qkv, out, lse, table, wanted, shape),
                CUDPO_EINVAL, what);
    ops_check_untouched(&o, out);
    ops_check_untouched(&o, lse);
    ops_check_untouched(&o, dqkv);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    const pack_shape p = {2, 1, 4, 0, 2, 1, {5, 4}, {{3}, {2}}};
    problem x = problem_create(&p, 41); /* begins 0 5 8 12, of 14 tokens */
    static const struct {
        int row, field, value;
    } wrong[] = {
        {0, SEGMENT_BEGIN, 1},
        {0, SEGMENT_BEGIN, -1},
        {1, SEGMENT_BEGIN, 6},
        {3, SEGMENT_LENGTH, 3},
        {3, SEGMENT_LENGTH, -1},
        {3, SEGMENT_LENGTH, INT32_MAX},
        {0, SEGMENT_LENGTH, INT32_MAX},
        {1, SEGMENT_PROMPT_LENGTH, 4},
        {1, SEGMENT_PROMPT_LENGTH, -5},
        {1, SEGMENT_PROMPT_BEGIN, 1},
        {3, SEGMENT_PROMPT_BEGIN, 0},
        {0, SEGMENT_PROMPT_LENGTH, 5},
        {3, SEGMENT_PROMPT_LENGTH, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int32_t segments[16];
        memcpy(segments, x.segments, sizeof segments);
        segments[wrong[i].row * SEGMENT_FIELDS + wrong[i].field] = wrong[i].value;
        check_refused(be, &x, segments, 4, x.shape, "is_pack");
    }
    check_refused(be, &x, x.segments, 3, x.shape, "is_pack");
    const attention_shape bad[] = {
        {2, 0, 4, 0, 1.0f},  {3, 2, 4, 0, 1.0f}, {0, 1, 4, 0, 1.0f},
        {2, 1, 4, -1, 1.0f}, {2, 1, 4, 0, NAN},  {2, 1, 0, 0, 1.0f},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_refused(be, &x, x.segments, 4, bad[i], "attention_shape_valid");
    }
    check_refused(be, &x, x.segments, 4, (attention_shape){2, 1, 6, 0, 1.0f}, "is_f32");
    static const int32_t unwanted[][3] = {{3, 2, 4}, {3, 4, 4}, {-1, 2, 3}, {1, 2, 14}};
    x.wanted = zeros(3, sizeof *x.wanted);
    x.U = 3;
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++) {
        memcpy(x.wanted, unwanted[i], sizeof unwanted[i]);
        check_refused(be, &x, x.segments, 4, x.shape, "are_wanted");
    }
    problem_free(&x);
}

static const pack_shape many = {
    6, 3, 8, 0, 4, 2, {80, 0, 33, 300}, {{70, 20}, {65, 90}, {1, 140}, {100, 9}}};
enum { MANY_TOKENS = 80 + 33 + 300 + 70 + 20 + 65 + 90 + 1 + 140 + 100 + 9 };

static void run_many(ops *o, float *result)
{
    problem x = problem_create(&many, 51);
    run(o, result, NULL, result + x.T * x.Q, &x);
    problem_free(&x);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_many, MANY_TOKENS * (6 * 8 + 12 * 8));
}

static const op_case cases[] = {
    {"two_tokens_by_hand", two_tokens_by_hand},
    {"slopes_by_finite_differences", slopes_by_finite_differences},
    {"packs_of_every_head_dim", packs_of_every_head_dim},
    {"tails_of_tiles", tails_of_tiles},
    {"windows_over_prompt_and_completion", windows_over_prompt_and_completion},
    {"heads_that_share_keys", heads_that_share_keys},
    {"random_packs", random_packs},
    {"shared_layout_is_plain_layout", shared_layout_is_plain_layout},
    {"extreme_scores", extreme_scores},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
