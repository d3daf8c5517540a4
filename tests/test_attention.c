/* test_attention.c - attention over packs against a plain implementation in double. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_attention.h"

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
    answer a = answer_create(x);
    double sum = 0, *dqkv = a.dqkv;
    a.dqkv = NULL;
    plain(&a, x, qkv);
    for (int64_t i = 0; i < x->T * x->Q; i++) {
        sum += (double)x->dout[i] * a.out[i];
    }
    a.dqkv = dqkv;
    answer_free(&a);
    return sum;
}

/* 1e-8 for differences of sums below 100: test_ops.h. */
static void check_slopes(backend *be, const pack_shape *p)
{
    problem x = problem_create(p, 17);
    float *dqkv = zeros(x.T * x.W, 4);
    double *qkv = doubles(x.qkv, x.T * x.W);
    answer a = answer_create(&x);
    ops o = ops_begin(be);
    run(&o, NULL, NULL, dqkv, &x);
    plain(&a, &x, qkv);
    for (int64_t i = 0; i < x.T * x.W; i++) {
        CHECK_NEAR((double)dqkv[i], slope(objective, qkv, i, &x), a.dqkv_tolerance[i] + 1e-8);
    }
    ops_end(&o);
    answer_free(&a);
    free(dqkv);
    free(qkv);
    problem_free(&x);
}

static void slopes_by_finite_differences(backend *be)
{
    const pack_shape six = {4, 2, 6, 4, 2, 2, {3, 0}, {{2, 4}, {3, 1}}};
    const pack_shape thirty_two = {2, 1, 32, 0, 1, 2, {3}, {{2, 3}}};
    check_slopes(be, &six);
    check_slopes(be, &thirty_two);
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
    static const int window[] = {1, 31, 64, 255, 257, INT32_MAX};
    for (int i = 0; i < 6; i++) {
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
    double *one = doubles(x.qkv, T * W), *two = doubles(y.qkv, (T + P) * W);
    answer a = answer_create(&x), b = answer_create(&y); /* each may be as far off as it may be */
    ops o = ops_begin(be);
    run(&o, out, NULL, dqkv, &x);
    run(&o, out2, NULL, dqkv2, &y);
    plain(&a, &x, one);
    plain(&b, &y, two);
    for (int64_t t = 0; t < T; t++) {
        const int64_t u = t < P + A ? t : t + P;
        for (int64_t i = t * Q, j = u * Q; i < (t + 1) * Q; i++, j++) {
            CHECK_NEAR(out[i], (double)out2[j], a.out_tolerance[i] + b.out_tolerance[j]);
        }
        for (int64_t i = t * W, j = u * W, c = (P + A + t) * W; i < (t + 1) * W; i++, j++, c++) {
            const double copy = t < P ? (double)dqkv2[c] : 0.0;
            const double copy_off = t < P ? b.dqkv_tolerance[c] : 0.0;
            CHECK_NEAR(dqkv[i], (double)dqkv2[j] + copy,
                       a.dqkv_tolerance[i] + b.dqkv_tolerance[j] + copy_off);
        }
    }
    ops_end(&o);
    answer_free(&a);
    answer_free(&b);
    free(one);
    free(two);
    free(out);
    free(dqkv);
    free(out2);
    free(dqkv2);
    problem_free(&x);
    problem_free(&y);
}

/* Scores of up to 3e4: a query takes the mean of the equal values of its best keys.  The weights are 1 and 0, their sums
 * exact, and three roundings are left: of 1 / n, of its product, and where tiles are joined.  Nothing overflows. */
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
        CHECK_NEAR(out[t * x.Q], t < 6 ? -5.0 : 2.0, 3 * 5 * EPS);
    }
    for (int64_t i = 0; i < x.T * x.W; i++) {
        assert_true(isfinite(dqkv[i]));
    }
    ops_end(&o);
    free(out);
    free(dqkv);
    problem_free(&x);
}

#ifndef TEST_CUDA /* on a device: test_attention_tiles.c */
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
#endif

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
#ifndef TEST_CUDA
    {"same_bits_with_any_threads", same_bits_with_any_threads},
#endif
};
OPS_MAIN(cases)
