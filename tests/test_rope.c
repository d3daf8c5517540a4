/* test_rope.c - rotary position embedding. */
/* rooms: backend base */
#include "test_ops.h"

/* A quarter turn of (a, b) is (-b, a); the pairs of a head of 4 are (0, 2) and (1, 3). */
static void quarter_turn_by_hand(backend *be)
{
    static const float x[] = {1, 2, 3, 4}, cosine[] = {1, 1, 0, 1}, sine[] = {0, 0, 1, 0};
    static const int32_t position[] = {1};
    static const double want[] = {-3, 2, 1, 4};
    float got[4];
    ops o = ops_begin(be);
    const tensor tx = ops_floats(&o, x, 1, 4);
    CHECK_OK(be->rope(be, tx, ops_floats(&o, cosine, 2, 2), ops_floats(&o, sine, 2, 2),
                      ops_indices(&o, position, 1, 1), 4, false));
    ops_get(&o, got, tx);
    check_close("x", got, want, 4, 0);
    ops_end(&o);
}

/* Against the formula in double; then back, which gives x again: rotations keep lengths, so 8 roundings of a value below
 * 8 bound the error. */
static void check_size(backend *be, int64_t T, int heads, int D)
{
    enum { P = 40 };
    const int64_t W = (int64_t)heads * D, half = D / 2;
    float *x = random_floats(1, T * W), *got = zeros(T * W, 4);
    float *cosine = zeros(P * half, 4), *sine = zeros(P * half, 4);
    double *want = zeros(T * W, 8);
    int32_t *position = zeros(T, 4);
    for (int64_t i = 0; i < P * half; i++) {
        const double angle = rng_uniform(5, 0, (uint64_t)i) * 7;
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    for (int64_t t = 0; t < T; t++) {
        position[t] = (int32_t)rng_below(6, 0, (uint64_t)t, P);
        for (int64_t i = 0; i < W; i++) {
            const int64_t at = t * W + i, j = i % D % half;
            const double c = (double)cosine[position[t] * half + j];
            const double s = (double)sine[position[t] * half + j];
            want[at] = i % D < half ? (double)x[at] * c - (double)x[at + half] * s
                                    : (double)x[at] * c + (double)x[at - half] * s;
        }
    }
    ops o = ops_begin(be);
    const tensor tx = ops_strided(&o, x, T, W, W + 2), index = ops_indices(&o, position, T, 1);
    const tensor tc = ops_floats(&o, cosine, P, half), ts = ops_floats(&o, sine, P, half);
    CHECK_OK(be->rope(be, tx, tc, ts, index, D, false));
    ops_get(&o, got, tx);
    check_close("x", got, want, T * W, 4 * 8 * EPS);
    CHECK_OK(be->rope(be, tx, tc, ts, index, D, true));
    ops_get(&o, got, tx);
    for (int64_t i = 0; i < T * W; i++) {
        CHECK_NEAR(got[i], (double)x[i], 8 * 8 * EPS);
    }
    ops_end(&o);
    free(x);
    free(got);
    free(cosine);
    free(sine);
    free(want);
    free(position);
}

static void every_head_dim(backend *be)
{
    static const int dims[] = {2, 8, 62, 64, 66, 96, 128, 256};
    for (int i = 0; i < 8; i++) {
        check_size(be, 33, 3, dims[i]);
    }
    check_size(be, 300, 5, 64);
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[] = {0, 5}, good[] = {0, 4};
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 2, 8), c = ops_output(&o, 5, 2), s = ops_output(&o, 5, 2);
    const tensor p = ops_indices(&o, good, 2, 1), q = ops_indices(&o, bad, 2, 1);
    CHECK_FAILS(be->rope(be, x, c, s, q, 4, false), CUDPO_EINVAL, "is_index");
    CHECK_FAILS(be->rope(be, x, c, s, tensor_rows(p, 0, 1), 4, false), CUDPO_EINVAL, "is_index");
    CHECK_FAILS(be->rope(be, x, c, s, p, 3, false), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(be->rope(be, x, c, s, p, 0, false), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(be->rope(be, x, c, s, p, 6, false), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(be->rope(be, x, c, s, p, 8, false), CUDPO_EINVAL, "cosine");
    CHECK_FAILS(be->rope(be, x, c, tensor_rows(s, 0, 4), p, 4, false), CUDPO_EINVAL, "sine");
    ops_check_untouched(&o, x);
    ops_end(&o);
}

static const op_case cases[] = {
    {"quarter_turn_by_hand", quarter_turn_by_hand},
    {"every_head_dim", every_head_dim},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
