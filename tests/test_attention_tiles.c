/* test_attention_tiles.c - attention where tiles, ranges of queries and windows begin and end. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_attention.h"

/* Sparse in bf16, where one key too many shows; fp32 shows it anyway. */
static void check_sparse(backend *be, problem *x, uint64_t seed)
{
    if (!has_bf16(be, x)) return;
    problem_fill(x, seed, SPARSE);
    if (x->wanted != NULL) hide_unwanted(x);
    check_as(be, x, DTYPE_BF16);
}

static void check_edges(backend *be, problem *x, uint64_t seed)
{
    problem_fill(x, seed, NORMAL);
    if (x->wanted != NULL) hide_unwanted(x);
    check_as(be, x, DTYPE_F32);
    check_sparse(be, x, seed);
}

/* And with scores that differ, also in bf16. */
static void check_edges_and_scores(backend *be, problem *x, uint64_t seed)
{
    problem_fill(x, seed, NORMAL);
    if (x->wanted != NULL) hide_unwanted(x);
    check_problem(be, x);
    check_sparse(be, x, seed);
}

static void check_group(backend *be, problem x, int prompt, int completions, const int *length)
{
    problem_add(&x, prompt, completions, length);
    check_edges(be, &x, (uint64_t)(x.T + x.shape.head_dim));
    problem_free(&x);
}

/* Lengths around the edges of tiles of 16, 32, 64 and 128, alone, as a prompt, and behind one. */
static void lengths_around_tiles(backend *be)
{
    static const int n[] = {1, 15, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200};
    enum { COUNT = sizeof n / sizeof *n };
    for (int i = 0; i < COUNT; i++) {
        const int length[] = {n[COUNT - 1 - i], n[(i + 5) % COUNT]};
        check_group(be, problem_begin(1, 1, 64, 0), n[i], 2, length);
    }
}

/* Each head_dim of the kernels, and some that are padded, with queries and keys behind the first tile. */
static void head_dims(backend *be)
{
    static const int D[] = {8, 24, 64, 72, 80, 96, 104, 128, 136, 192, 256};
    for (size_t i = 0; i < sizeof D / sizeof *D; i++) {
        problem x = problem_begin(1, 1, D[i], 0);
        problem_add(&x, 140, 2, (const int[]){150, 1});
        if (i % 2 == 0)
            check_edges(be, &x, 60 + i);
        else
            check_sparse(be, &x, 60 + i);
        problem_free(&x);
        x = problem_begin(2, 1, D[i], 0);
        problem_add(&x, 20, 1, (const int[]){30});
        problem_fill(&x, 70 + i, NORMAL);
        check_problem(be, &x);
        problem_free(&x);
    }
}

/* Windows that end inside, at and across tiles, of the prompt and of the segment. */
static void windows(backend *be)
{
    static const int window[] = {1, 2, 16, 33, 64, 65, 127, 128, 129, 140, 300};
    static const int wide[][2] = {{128, 16}, {128, 64}, {128, 129},
                                  {256, 33}, {256, 65}, {256, 128}};
    for (size_t i = 0; i < sizeof window / sizeof *window; i++) {
        check_group(be, problem_begin(1, 1, 64, window[i]), 150, 2, (const int[]){140, 30});
    }
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        check_group(be, problem_begin(1, 1, wide[i][0], wide[i][1]), 20, 1, (const int[]){135});
    }
}

/* Shared keys: a block takes two heads, and the last of an odd number one; then their shares of dk and dv are added. */
static void heads_that_share_keys(backend *be)
{
    static const int heads[][2] = {{2, 1}, {2, 2}, {3, 1}, {7, 1}, {10, 2}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        check_group(be, problem_begin(heads[i][0], heads[i][1], 64, 0), 40, 2,
                    (const int[]){70, 3});
    }
}

/* The end of a long prompt and what follows it ask; the rest are keys. */
static void long_prompt(backend *be)
{
    problem x = problem_begin(1, 1, 64, 0);
    problem_add(&x, 4000, 1, (const int[]){9});
    want_range(&x, 3995, x.T, 5, 1);
    check_edges_and_scores(be, &x, 700);
    problem_free(&x);
}

/* A thousand tokens, of which a third ask from the middle on. */
static void long_segment(backend *be)
{
    problem x = problem_begin(1, 1, 8, 0);
    problem_add(&x, 1000, 0, NULL);
    want_range(&x, 700, 1000, 6, 3);
    check_edges_and_scores(be, &x, 750);
    problem_free(&x);
}

/* Many groups of a few tokens: prompts of 0 .. 4, completions of 1 .. 3, and empty ones. */
static void tiny_groups(backend *be)
{
    problem x = problem_begin(1, 1, 64, 0);
    for (int g = 0; g < 64; g++) {
        const int length[] = {1 + g % 3, g % 7 == 0 ? 0 : 1, g % 2};
        problem_add(&x, g % 5, 1 + g % 3, length);
    }
    check_edges_and_scores(be, &x, 800);
    problem_free(&x);
}

/* Askers: one, some at the edges of tiles, ranges of which parts do not ask, none in some segments. */
static void some_ask(backend *be)
{
    static const int first[] = {0, 1, 64, 100, 199};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        problem x = problem_begin(2, 1, 64, i == 3 ? 90 : 0);
        problem_add(&x, 200, 2, (const int[]){130, 70});
        want_range(&x, first[i], first[i] + 1, 1, 1);
        if (i % 2 == 0) want_range(&x, 210, 330, i, 17);
        if (i != 1) want_range(&x, 399, 400, 1, 1);
        check_edges(be, &x, 900 + i);
        problem_free(&x);
    }
}

/* Nobody asks: no gradient at all. */
static void none_ask(backend *be)
{
    problem x = problem_begin(2, 1, 64, 0);
    problem_add(&x, 20, 1, (const int[]){150});
    x.wanted = zeros(1, sizeof *x.wanted);
    check_edges(be, &x, 950);
    problem_free(&x);
}

/* Keys that are all the same: a query's scores are equal, and out is the mean of the values that it sees.  Their slopes add
 * up to 0, so dq is 0; dk is not. */
static void equal_scores(backend *be)
{
    for (int bf16 = 0; bf16 <= be->on_device; bf16++) {
        problem x = problem_begin(2, 1, 64, 0);
        problem_add(&x, 100, 2, (const int[]){50, 40});
        problem_fill(&x, 955, NORMAL);
        for (int64_t t = 1; t < x.T; t++) {
            memcpy(x.qkv + t * x.W + 128, x.qkv + 128, 64 * sizeof *x.qkv);
        }
        check_as(be, &x, bf16_or_f32(bf16));
        problem_free(&x);
    }
}

/* Scores of 1e4 and -1e4, where a weight is 0 or 1 and every step exact: queries are 100, keys 100 or -100 in the first of
 * their elements.  Token 0 has a high score and so has each third one. */
static void extreme_scores(backend *be)
{
    for (int bf16 = 0; bf16 <= be->on_device; bf16++) {
        problem x = problem_begin(1, 1, 64, 0);
        problem_add(&x, 100, 1, (const int[]){50});
        problem_fill(&x, 960, NORMAL);
        x.type = bf16_or_f32(bf16);
        x.shape.scale = 1.0f;
        for (int64_t t = 0; t < x.T; t++) {
            float *q = x.qkv + t * x.W, *k = q + 64, *v = k + 64;
            memset(q, 0, 128 * sizeof *q);
            q[0] = 100.0f;
            k[0] = t % 3 == 0 ? 100.0f : -100.0f;
            for (int d = 0; d < 64; d++) {
                v[d] = t % 3 == 0 ? (float)(d % 16) : 1e30f;
                x.dout[t * 64 + d] = 1.0f;
            }
        }
        float *out = zeros(x.T * 64, 4), *lse = zeros(x.T, 4), *dqkv = zeros(x.T * x.W, 4);
        ops o = ops_begin(be);
        run(&o, out, lse, dqkv, &x);
        for (int64_t t = 0; t < x.T; t++) {
            CHECK_NEAR(lse[t], 1e4 + log((double)(t / 3 + 1)), 1e4 * 4 * EPS);
            for (int d = 0; d < 64; d++) {
                const double most =
                    bf16 ? EPS_BF16 : 8 * EPS; /* of weights 1 / n; 2^-7 at the end */
                CHECK_NEAR(out[t * 64 + d], d % 16, d % 16 * 2 * most);
            }
            for (int64_t i = 0; i < x.W; i++) {
                assert_true(isfinite(dqkv[t * x.W + i]));
            }
            if (t % 3 != 0)
                CHECK_NEAR(dqkv[t * x.W + 128], 0.0, 0.0); /* dv of a key with weight 0 */
        }
        ops_end(&o);
        free(out);
        free(lse);
        free(dqkv);
        problem_free(&x);
    }
}

static void run_again(ops *o, float *result, int H, int K, int D, dtype type)
{
    problem x = problem_begin(H, K, D, 0);
    problem_add(&x, 140, 1, (const int[]){20});
    problem_fill(&x, 970, NORMAL);
    want_range(&x, 100, x.T, 3, 2);
    hide_unwanted(&x);
    x.type = type;
    run(o, NULL, NULL, result, &x);
    problem_free(&x);
}

/* The same for check_repeatable(). */
#define RUN_AGAIN(name, H, K, D, type)       \
    static void name(ops *o, float *result)  \
    {                                        \
        run_again(o, result, H, K, D, type); \
    }
RUN_AGAIN(run_64, 3, 1, 64, DTYPE_F32)
RUN_AGAIN(run_256, 1, 1, 256, DTYPE_F32)
RUN_AGAIN(run_64_bf16, 6, 2, 64, DTYPE_BF16)
RUN_AGAIN(run_96_bf16, 2, 2, 96, DTYPE_BF16)
RUN_AGAIN(run_128_bf16, 3, 1, 128, DTYPE_BF16)
RUN_AGAIN(run_256_bf16, 1, 1, 256, DTYPE_BF16)

static void same_bits_again(backend *be)
{
    enum { T = 140 + 20 };
    check_repeatable(be, run_64, (int64_t)T * 5 * 64);
    check_repeatable(be, run_256, (int64_t)T * 3 * 256);
    if (!be->on_device) return;
    check_repeatable(be, run_64_bf16, (int64_t)T * 10 * 64);
    check_repeatable(be, run_96_bf16, (int64_t)T * 6 * 96);
    check_repeatable(be, run_128_bf16, (int64_t)T * 5 * 128);
    check_repeatable(be, run_256_bf16, (int64_t)T * 3 * 256);
}

static const op_case cases[] = {
    {"lengths_around_tiles", lengths_around_tiles},
    {"head_dims", head_dims},
    {"windows", windows},
    {"heads_that_share_keys", heads_that_share_keys},
    {"long_prompt", long_prompt},
    {"long_segment", long_segment},
    {"tiny_groups", tiny_groups},
    {"some_ask", some_ask},
    {"none_ask", none_ask},
    {"equal_scores", equal_scores},
    {"extreme_scores", extreme_scores},
    {"same_bits_again", same_bits_again},
};
OPS_MAIN(cases)
