/* test_swiglu.c - the gated activation. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"

/* gate 0: silu 0, slope 1/2.  gate ln 3: sigmoid 3/4, silu 3/4 ln 3, slope 3/4 + 3/4 ln 3 / 4. */
static void by_hand(backend *be)
{
    static const float gate_up[] = {0, 1.09861229f, 5, 2}, dact[] = {3, 1};
    static const double act[] = {0, 1.6479184330},
                        dgate_up[] = {7.5, 2 * 0.95598980, 0, 0.8239592165};
    float got[4];
    ops o = ops_begin(be);
    const tensor in = ops_floats(&o, gate_up, 1, 4), ta = ops_output(&o, 1, 2);
    const tensor again = ops_output(&o, 1, 2), dgu = ops_output(&o, 1, 4);
    CHECK_OK(be->swiglu(be, ta, in));
    ops_get(&o, got, ta);
    check_close("act", got, act, 2, 4 * EPS);
    CHECK_OK(be->swiglu_backward(be, dgu, again, ops_floats(&o, dact, 1, 2), in));
    ops_get(&o, got, dgu);
    check_close("dgate_up", got, dgate_up, 4, 16 * EPS);
    ops_get(&o, got, again);
    check_close("act again", got, act, 2, 4 * EPS);
    ops_end(&o);
}

typedef struct problem {
    int64_t T, F;
    float *dact;
} problem;

static double objective(const double *gu, const void *context)
{
    const problem *p = context;
    double total = 0;
    for (int64_t t = 0; t < p->T; t++) {
        const double *gate = gu + t * 2 * p->F, *up = gate + p->F;
        for (int64_t i = 0; i < p->F; i++) {
            total += (double)p->dact[t * p->F + i] * gate[i] / (1 + exp(-gate[i])) * up[i];
        }
    }
    return total;
}

static void check_size(backend *be, int64_t T, int64_t F)
{
    float *gu = random_floats(1, T * 2 * F), *dgu = zeros(T * 2 * F, 4);
    float *act = zeros(T * F, 4), *again = zeros(T * F, 4);
    double *v = zeros(T * 2 * F, 8), *want = zeros(T * F, 8);
    const problem p = {T, F, random_floats(2, T * F)};
    for (int64_t i = 0; i < T * 2 * F; i++) {
        v[i] = (double)gu[i];
    }
    for (int64_t i = 0; i < T * F; i++) {
        const double gate = v[i / F * 2 * F + i % F];
        want[i] = gate / (1 + exp(-gate)) * v[i / F * 2 * F + F + i % F];
    }
    ops o = ops_begin(be);
    const tensor in = ops_strided(&o, gu, T, 2 * F, 2 * F + 3);
    const tensor ta = ops_strided(&o, NULL, T, F, F + 1), tb = ops_output(&o, T, F);
    const tensor td = ops_strided(&o, NULL, T, 2 * F, 2 * F + 1),
                 dact = ops_floats(&o, p.dact, T, F);
    CHECK_OK(be->swiglu(be, ta, in));
    ops_get(&o, act, ta);
    check_close("act", act, want, T * F, 64 * EPS);
    CHECK_OK(be->swiglu_backward(be, td, tb, dact, in));
    ops_get(&o, again, tb);
    ops_get(&o, dgu, td);
    assert_memory_equal(again, act, (size_t)(T * F) * 4);
    for (int64_t i = 0; i < T * 2 * F; i += 1 + T * F / 50) {
        CHECK_NEAR(dgu[i], slope(objective, v, i, &p), 128 * EPS);
    }
    ops_end(&o);

    ops q = ops_begin(be); /* without act */
    const tensor alone = ops_output(&q, T, 2 * F);
    CHECK_OK(be->swiglu_backward(be, alone, (tensor){0}, ops_floats(&q, p.dact, T, F),
                                 ops_floats(&q, gu, T, 2 * F)));
    ops_get(&q, act, tensor_cols(alone, 0, F));
    for (int64_t i = 0; i < T * F; i++) {
        assert_true(act[i] == dgu[i / F * 2 * F + i % F]);
    }
    ops_end(&q);
    free(gu);
    free(dgu);
    free(act);
    free(again);
    free(v);
    free(want);
    free(p.dact);
}

static void slopes_by_finite_differences_and_tails(backend *be)
{
    static const int64_t tail[] = {1, 31, 32, 33, 255, 256, 257};
    for (int i = 0; i < 7; i++) {
        check_size(be, 2, tail[i]);
        check_size(be, tail[i], 3);
    }
}

/* Large gates: silu is the gate itself or 0, and no infinity comes of it. */
static void extremes(backend *be)
{
    static const float gate_up[] = {1e4f, 3e38f, -87.0f, -89.0f, -1e4f, -3e38f, 2, 1, 1, 1, 5, 1};
    static const float dact[] = {1, 1, 1, 1, 1, 1};
    static const double want[] = {2e4, 3e38, 0, 0, 0, 0};
    float act[6], d[12];
    ops o = ops_begin(be);
    const tensor in = ops_floats(&o, gate_up, 1, 12), ta = ops_output(&o, 1, 6);
    const tensor td = ops_output(&o, 1, 12);
    CHECK_OK(be->swiglu(be, ta, in));
    CHECK_OK(be->swiglu_backward(be, td, (tensor){0}, ops_floats(&o, dact, 1, 6), in));
    ops_get(&o, act, ta);
    ops_get(&o, d, td);
    for (int i = 0; i < 6; i++) {
        CHECK_NEAR(act[i], want[i], 1e-6 * want[i] + 1e-30);
        CHECK_NEAR(d[i], i == 0 ? 2.0 : i == 1 ? 1.0 : 0.0, 1e-6);
    }
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor act = ops_output(&o, 3, 4), gu = ops_output(&o, 3, 8), odd = ops_output(&o, 3, 7);
    CHECK_FAILS(be->swiglu(be, act, odd), CUDPO_EINVAL, "gate_up");
    CHECK_FAILS(be->swiglu(be, (tensor){0}, gu), CUDPO_EINVAL, "act");
    CHECK_FAILS(be->swiglu_backward(be, odd, act, act, gu), CUDPO_EINVAL, "dgate_up");
    CHECK_FAILS(be->swiglu_backward(be, gu, odd, act, gu), CUDPO_EINVAL, "act");
    CHECK_FAILS(be->swiglu_backward(be, gu, act, act, odd), CUDPO_EINVAL, "gate_up");
    ops_check_untouched(&o, act);
    ops_check_untouched(&o, gu);
    ops_check_untouched(&o, odd);
    ops_end(&o);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"slopes_by_finite_differences_and_tails", slopes_by_finite_differences_and_tails},
    {"extremes", extremes},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
