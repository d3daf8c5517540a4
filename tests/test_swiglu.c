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
    check_close("act", got, act, 2, 2 * 11 * EPS); /* below 2, and see check_size */
    CHECK_OK(be->swiglu_backward(be, dgu, again, ops_floats(&o, dact, 1, 2), in));
    ops_get(&o, got, dgu);
    check_close("dgate_up", got, dgate_up, 4, 8 * 11 * EPS);
    ops_get(&o, got, again);
    check_close("act again", got, act, 2, 2 * 11 * EPS);
    ops_end(&o);
}

typedef struct problem {
    int64_t T, F;
    const float *dact;
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

static void slopes_by_finite_differences(backend *be)
{
    enum { T = 3, F = 12, G = T * 2 * F };
    float *gu = random_floats(1, G), *dact = random_floats(2, T * F), got[G];
    double v[G];
    const problem p = {T, F, dact};
    for (int i = 0; i < G; i++) {
        v[i] = (double)gu[i];
    }
    ops o = ops_begin(be);
    const tensor td = ops_output(&o, T, 2 * F);
    CHECK_OK(be->swiglu_backward(be, td, (tensor){0}, ops_floats(&o, dact, T, F),
                                 ops_floats(&o, gu, T, 2 * F)));
    ops_get(&o, got, td);
    for (int i = 0; i < G; i++) {
        CHECK_NEAR(got[i], slope(objective, v, i, &p), 128 * EPS); /* values below 10 */
    }
    ops_end(&o);
    free(gu);
    free(dact);
}

/* How the tensors of a case lie: rows `pad` elements apart, the first `shift` behind a vector's boundary; dgate_up in
 * gate_up and act in dact, or apart; act not wanted. */
typedef struct layout {
    bool bf16;
    int pad, shift;
    bool in_place, without_act;
} layout;

static void near(const char *what, int64_t i, float got, double want, double bound)
{
    if (!(fabs((double)got - want) <= bound))
        fail_msg("%s[%lld] = %.9g, want %.9g within %g", what, (long long)i, (double)got, want,
                 bound);
}

/* s = sigmoid(gate) is within 9 EPS (kernels/swiglu.cu; the CPU's exp and quotient are better), so silu within 10,
 * act and dup within 11.  For the slope f = s + silu (1 - s): 1 - s is within 9 EPS s + EPS (1 - s), its product with silu
 * within 12 EPS |gate| s, f within EPS (9 s + 12 |gate| s + |f|), and dgate has two more roundings.  Then the rounding to
 * the type; 1 % for products of errors; and what is lost where s is below the normal numbers. */
static void check_size(backend *be, int64_t T, int64_t F, layout l)
{
    const dtype type = bf16_or_f32(l.bf16);
    float *gu = random_floats(1, T * 2 * F), *dact = random_floats(2, T * F);
    float *dgu = zeros(T * 2 * F, 4), *act = zeros(T * F, 4), *again = zeros(T * F, 4);
    for (int64_t i = 0; i < T * 2 * F; i++) {
        if (i % (2 * F) < F) gu[i] *= 4; /* to gates of both saturated ends */
    }
    round_to(type, gu, T * 2 * F);
    round_to(type, dact, T * F);
    ops o = ops_begin(be);
    const tensor in = ops_make_at(&o, type, T, 2 * F, 2 * F + l.pad, l.shift);
    const tensor ta = ops_make_at(&o, type, T, F, F + l.pad, l.shift);
    const tensor slopes = ops_make_at(&o, type, T, F, F + l.pad, l.shift);
    const tensor tb = l.without_act ? (tensor){0}
                      : l.in_place  ? slopes
                                    : ops_make_at(&o, type, T, F, F + l.pad, l.shift);
    const tensor td = l.in_place ? in : ops_make_at(&o, type, T, 2 * F, 2 * F + l.pad, l.shift);
    ops_put_floats(&o, in, gu);
    ops_put_floats(&o, slopes, dact);
    CHECK_OK(be->swiglu(be, ta, in));
    CHECK_OK(be->swiglu_backward(be, td, tb, slopes, in));
    ops_get_floats(&o, act, ta);
    ops_get_floats(&o, dgu, td);
    if (!l.without_act) {
        ops_get_floats(&o, again, tb);
        assert_memory_equal(again, act, (size_t)(T * F) * 4);
    }
    const double half = type == DTYPE_BF16 ? EPS_BF16 : 0, rest = 1.01;
    for (int64_t i = 0; i < T * F; i++) {
        const int64_t at = i / F * 2 * F + i % F;
        const double gate = (double)gu[at], up = (double)gu[at + F], d = (double)dact[i];
        const double s = 1 / (1 + exp(-gate)), f = s + gate * s * (1 - s);
        const double lost = 1e-37 * (fabs(gate) + 1) * (fabs(up) + 1) * (fabs(d) + 1);
        const double size = 9 * s + 12 * fabs(gate) * s + 3 * fabs(f);
        const double want_act = gate * s * up, dgate = d * up * f, dup = d * gate * s;
        near("act", i, act[i], want_act, fabs(want_act) * (11 * EPS + half) * rest + lost);
        near("dgate", i, dgu[at], dgate,
             (fabs(d * up) * EPS * size + fabs(dgate) * half) * rest + lost);
        near("dup", i, dgu[at + F], dup, fabs(dup) * (11 * EPS + half) * rest + lost);
    }
    ops_end(&o);
    free(gu);
    free(dact);
    free(dgu);
    free(act);
    free(again);
}

static void tails_and_layouts(backend *be)
{
    static const int64_t tail[] = {1, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000};
    static const layout layouts[] = {{false, 0, 0, false, false}, {false, 4, 0, true, false},
                                     {false, 3, 0, false, true},  {false, 0, 1, true, false},
                                     {true, 0, 0, true, false},   {true, 8, 0, false, false},
                                     {true, 4, 0, true, true},    {true, 0, 1, false, false}};
    for (int k = 0; k < (be->on_device ? 8 : 4); k++) {
        for (int i = 0; i < 11; i++) {
            check_size(be, 2, tail[i], layouts[k]);
        }
        check_size(be, 33, 8, layouts[k]);
        check_size(be, 3, 1032, layouts[k]); /* pieces of several blocks */
        check_size(be, 257, 3, layouts[k]);
    }
}

/* Large gates: silu is the gate itself or 0, and no infinity comes of it. */
static void extremes(backend *be)
{
    static const float gate_up[] = {1e4f, 3e38f, -87.0f, -89.0f, -1e4f, -3e38f, 2, 1, 1, 1, 5, 1};
    static const float dact[] = {1, 1, 1, 1, 1, 1};
    static const double want[] = {2e4, 3e38, 0, 0, 0, 0};
    for (int half = 0; half <= (int)be->on_device; half++) {
        const dtype type = bf16_or_f32(half);
        const double error = half ? EPS_BF16 * 2 : 1e-6; /* 1e4 and 3e38 are no bf16 either */
        float act[6], d[12];
        ops o = ops_begin(be);
        const tensor in = ops_floats_as(&o, type, gate_up, 1, 12);
        const tensor ta = ops_output_as(&o, type, 1, 6), td = ops_output_as(&o, type, 1, 12);
        CHECK_OK(be->swiglu(be, ta, in));
        CHECK_OK(be->swiglu_backward(be, td, (tensor){0}, ops_floats_as(&o, type, dact, 1, 6), in));
        ops_get_floats(&o, act, ta);
        ops_get_floats(&o, d, td);
        for (int i = 0; i < 6; i++) {
            CHECK_NEAR(act[i], want[i], error * want[i] + 1e-30);
            CHECK_NEAR(d[i], i == 0 ? 2.0 : i == 1 ? 1.0 : 0.0, 1e-6);
            assert_true(isfinite(d[6 + i]));
        }
        ops_end(&o);
    }
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor act = ops_output(&o, 3, 4), gu = ops_output(&o, 3, 8), odd = ops_output(&o, 3, 7);
    const tensor dact = ops_output(&o, 3, 4), dgu = ops_output(&o, 3, 8);
    CHECK_FAILS(be->swiglu(be, act, odd), CUDPO_EINVAL, "gate_up");
    CHECK_FAILS(be->swiglu(be, (tensor){0}, gu), CUDPO_EINVAL, "act");
    CHECK_FAILS(be->swiglu_backward(be, odd, act, dact, gu), CUDPO_EINVAL, "dgate_up");
    CHECK_FAILS(be->swiglu_backward(be, dgu, odd, dact, gu), CUDPO_EINVAL, "act");
    CHECK_FAILS(be->swiglu_backward(be, dgu, act, dact, odd), CUDPO_EINVAL, "gate_up");
    CHECK_FAILS(be->swiglu_backward(be, dgu, act, (tensor){0}, gu), CUDPO_EINVAL, "dact");
    if (be->on_device) {
        const tensor half = ops_output_as(&o, DTYPE_BF16, 3, 8), part = tensor_cols(half, 0, 4);
        const tensor all = ops_output(&o, 4, 8), a = tensor_rows(all, 0, 3);
        const tensor b = tensor_rows(all, 1, 3);
        CHECK_FAILS(be->swiglu(be, act, half), CUDPO_EINVAL, "gate_up.type");
        CHECK_FAILS(be->swiglu(be, tensor_cols(gu, 0, 4), gu), CUDPO_EINVAL, "tensor_disjoint(act");
        CHECK_FAILS(be->swiglu_backward(be, half, act, dact, gu), CUDPO_EINVAL, "dgate_up");
        CHECK_FAILS(be->swiglu_backward(be, dgu, part, dact, gu), CUDPO_EINVAL, "is_like(act");
        CHECK_FAILS(be->swiglu_backward(be, dgu, act, part, gu), CUDPO_EINVAL, "dact.type");
        CHECK_FAILS(be->swiglu_backward(be, b, act, dact, a), CUDPO_EINVAL,
                    "tensor_disjoint(dgate_up, gate_up)");
        CHECK_FAILS(be->swiglu_backward(be, dgu, tensor_cols(b, 0, 4), tensor_cols(a, 0, 4), gu),
                    CUDPO_EINVAL, "tensor_disjoint(act, dact)");
        CHECK_FAILS(be->swiglu_backward(be, dgu, act, tensor_cols(dgu, 0, 4), gu), CUDPO_EINVAL,
                    "tensor_disjoint(dgate_up, dact)");
        CHECK_FAILS(be->swiglu_backward(be, dgu, tensor_cols(dgu, 0, 4), dact, gu), CUDPO_EINVAL,
                    "tensor_disjoint(dgate_up, act)");
        CHECK_FAILS(be->swiglu_backward(be, dgu, tensor_cols(gu, 4, 4), dact, gu), CUDPO_EINVAL,
                    "tensor_disjoint(act, gate_up)");
        ops_check_untouched(&o, half);
        ops_check_untouched(&o, all);
    }
    const tensor none = tensor_rows(act, 0, 0), no_pairs = tensor_rows(gu, 0, 0);
    CHECK_OK(be->swiglu(be, none, no_pairs));
    CHECK_OK(be->swiglu_backward(be, tensor_rows(dgu, 0, 0), (tensor){0}, none, no_pairs));
    ops_check_untouched(&o, act);
    ops_check_untouched(&o, gu);
    ops_check_untouched(&o, dact);
    ops_check_untouched(&o, dgu);
    ops_check_untouched(&o, odd);
    ops_end(&o);
}

enum { LT = 40, LF = 300 };

static void run_large(ops *o, float *result)
{
    float *gu = random_floats(1, LT * 2 * LF), *dact = random_floats(2, LT * LF);
    const tensor in = ops_floats(o, gu, LT, 2 * LF), d = ops_floats(o, dact, LT, LF);
    CHECK_OK(o->be->swiglu_backward(o->be, in, d, d, in));
    ops_get(o, result, in);
    ops_get(o, result + LT * 2 * LF, d);
    free(gu);
    free(dact);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, LT * 3 * LF);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"slopes_by_finite_differences", slopes_by_finite_differences},
    {"tails_and_layouts", tails_and_layouts},
    {"extremes", extremes},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
