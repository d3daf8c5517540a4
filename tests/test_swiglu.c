/* test_swiglu.c - the gated activation. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

#include <float.h>

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
    check_close("act", got, act, 2, 2 * 11 * EPS); /* below 2, and see answer_of() */
    CHECK_OK(be->swiglu_backward(be, dgu, again, ops_floats(&o, dact, 1, 2), in));
    ops_get(&o, got, dgu);
    check_close("dgate_up", got, dgate_up, 4, 8 * 11 * EPS);
    ops_get(&o, got, again);
    check_close("act again", got, act, 2, 2 * 11 * EPS);
    ops_end(&o);
}

/* What an element gives, and within what.  s = sigmoid(gate) is within 9 EPS (kernels/swiglu.cu; the CPU's exp and quotient
 * are better), so silu within 10, act and dup within 11.  For the slope f = s + silu (1 - s): 1 - s is within
 * 9 EPS s + EPS (1 - s), its product with silu within 12 EPS |gate| s, f within EPS (9 s + 12 |gate| s + |f|), and dgate
 * has two more roundings.  Then the rounding to the type, and 1 % for products of errors.  Beside that what is lost: s may
 * be 0 where it is no normal number, and what is none is rounded to a multiple of 2^-149, of bf16 to one of 2^-133. */
typedef struct answer {
    double act, dgate, dup;
    double act_error, dgate_error, dup_error;
} answer;

static answer answer_of(float gate_, float up_, float dact_, dtype type)
{
    const double gate = (double)gate_, up = (double)up_, d = (double)dact_;
    const double s = 1 / (1 + exp(-gate)), f = s + gate * s * (1 - s);
    const double half = type == DTYPE_BF16 ? EPS_BF16 : 0, rest = 1.01;
    const double flat = type == DTYPE_BF16 ? 0x1p-134 : 0;
    const double lost = (fabs(gate) + 1) * (s < 0x1p-124 ? 0x1p-125 : 0x1p-149);
    const double size = 9 * s + 12 * fabs(gate) * s + 3 * fabs(f);
    answer a = {.act = gate * s * up, .dgate = d * f * up, .dup = d * gate * s};
    a.act_error = fabs(a.act) * (11 * EPS + half) * rest + lost * (fabs(up) + 1) + flat;
    a.dup_error = fabs(a.dup) * (11 * EPS + half) * rest + lost * (fabs(d) + 1) + flat;
    a.dgate_error = (fabs(d * up) * EPS * size + fabs(a.dgate) * half) * rest +
                    lost * (fabs(up) + 1) * (fabs(d) + 1) + flat;
    return a;
}

/* Within its error; infinite where it is beyond the largest float. */
static void near(const char *what, int64_t i, float got, double want, double bound)
{
    if (fabs(want) > (double)FLT_MAX ? (double)got != copysign(INFINITY, want)
                                     : !(fabs((double)got - want) <= bound))
        fail_msg("%s[%lld] = %.9g, want %.9g within %g", what, (long long)i, (double)got, want,
                 bound);
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
    for (int i = 0; i < T * F; i++) { /* finite differences are good to 1e-9 here */
        const int at = i / F * 2 * F + i % F;
        const answer a = answer_of(gu[at], gu[at + F], dact[i], DTYPE_F32);
        CHECK_NEAR(got[at], slope(objective, v, at, &p), a.dgate_error + 1e-9);
        CHECK_NEAR(got[at + F], slope(objective, v, at + F, &p), a.dup_error + 1e-9);
    }
    ops_end(&o);
    free(gu);
    free(dact);
}

/* How the tensors of a case lie: rows `pad` elements apart, the first `shift` behind a vector's boundary; dgate_up in
 * gate_up and act in dact, or apart; act not wanted.  alone: only the tensor of that number is shifted, from 1. */
typedef struct layout {
    bool bf16;
    int pad, shift;
    bool in_place, without_act;
    int alone;
} layout;

/* The number-th tensor of a case. */
static tensor laid(ops *o, layout l, int number, int64_t T, int64_t W)
{
    const int shift = l.alone == 0 || l.alone == number ? l.shift : 0;
    return ops_make_at(o, bf16_or_f32(l.bf16), T, W, W + l.pad, shift);
}

/* Forward and backward of gate_up [T,2F] and dact [T,F], which are rounded to the type. */
static void check_values(backend *be, int64_t T, int64_t F, layout l, float *gu, float *dact)
{
    const dtype type = bf16_or_f32(l.bf16);
    float *dgu = zeros(T * 2 * F, 4), *act = zeros(T * F, 4), *again = zeros(T * F, 4);
    round_to(type, gu, T * 2 * F);
    round_to(type, dact, T * F);
    ops o = ops_begin(be);
    const tensor in = laid(&o, l, 1, T, 2 * F), ta = laid(&o, l, 2, T, F);
    const tensor slopes = laid(&o, l, 3, T, F);
    const tensor tb = l.without_act ? (tensor){0} : l.in_place ? slopes : laid(&o, l, 4, T, F);
    const tensor td = l.in_place ? in : laid(&o, l, 5, T, 2 * F);
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
    for (int64_t i = 0; i < T * F; i++) {
        const int64_t at = i / F * 2 * F + i % F;
        const answer a = answer_of(gu[at], gu[at + F], dact[i], type);
        near("act", i, act[i], a.act, a.act_error);
        if (fabs((double)dact[i] * (double)gu[at + F]) < (double)FLT_MAX) /* computed on the way */
            near("dgate", i, dgu[at], a.dgate, a.dgate_error);
        near("dup", i, dgu[at + F], a.dup, a.dup_error);
    }
    ops_end(&o);
    free(dgu);
    free(act);
    free(again);
}

static void check_size(backend *be, int64_t T, int64_t F, layout l)
{
    float *gu = random_floats(1, T * 2 * F), *dact = random_floats(2, T * F);
    for (int64_t i = 0; i < T * 2 * F; i++) {
        if (i % (2 * F) < F) gu[i] *= 4; /* to gates of both saturated ends */
    }
    check_values(be, T, F, l, gu, dact);
    free(gu);
    free(dact);
}

static void tails_and_layouts(backend *be)
{
    static const int64_t tail[] = {1, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000};
    static const layout layouts[] = {{false, 0, 0, false, false, 0}, {false, 4, 0, true, false, 0},
                                     {false, 3, 0, false, true, 0},  {false, 0, 1, true, false, 0},
                                     {true, 0, 0, true, false, 0},   {true, 8, 0, false, false, 0},
                                     {true, 4, 0, true, true, 0},    {true, 0, 1, false, false, 0}};
    for (int k = 0; k < (be->on_device ? 8 : 4); k++) {
        for (int i = 0; i < 11; i++) {
            check_size(be, 2, tail[i], layouts[k]);
        }
        check_size(be, 33, 8, layouts[k]);
        check_size(be, 3, 1032, layouts[k]); /* pieces of several blocks */
        check_size(be, 257, 3, layouts[k]);
    }
}

/* One tensor at a time begins an element behind a vector's boundary, and all are read and written as they lie. */
static void any_operand_may_be_unaligned(backend *be)
{
    for (int n = 0; n < (be->on_device ? 10 : 5); n++) {
        check_size(be, 3, 16, (layout){.bf16 = n / 5 == 1, .shift = 1, .alone = 1 + n % 5});
    }
}

/* Gates at which silu is the gate itself, or 0, or its exponential is inf; the largest and the smallest numbers. */
static void extremes(backend *be)
{
    static const float value[][3] = {/* gate, up, dact */
                                     {1e4f, 2, 1},           {3e38f, 1, 1},
                                     {-87.0f, 1, 1},         {-87.0f, 1e30f, 1e30f},
                                     {-89.0f, 1, 1},         {-89.0f, 5, -3},
                                     {-1e4f, 5, 1},          {-3e38f, 1, 1},
                                     {-80.0f, 1e25f, 1e25f}, {-80.0f, -1e18f, 1e18f},
                                     {-60.0f, 3e38f, 1e20f}, {2.4f, 1e-30f, 3e38f},
                                     {2.4f, 3e38f, 1e-30f},  {1, 1e-20f, 1e-20f},
                                     {1e-30f, 1e-8f, 1},     {1e-38f, 1e30f, 1e30f},
                                     {1e-40f, 1, 1},         {-1e-40f, 3e38f, 1e-5f},
                                     {0, 3e38f, 1},          {100, 3e38f, 1},
                                     {100, -3e38f, 2},       {-2, 3e38f, 100}};
    enum { F = sizeof value / sizeof value[0] };
    for (int n = 0; n < (be->on_device ? 4 : 2); n++) {
        float gu[2 * F], dact[F];
        for (int i = 0; i < F; i++) {
            gu[i] = value[i][0], gu[F + i] = value[i][1], dact[i] = value[i][2];
        }
        check_values(be, 1, F, (layout){.bf16 = n / 2 == 1, .shift = n % 2}, gu, dact);
    }
}

/* A NaN in an operand shows in what is made of it, and nowhere else. */
static void nan_shows(backend *be)
{
    enum { F = 16, GATE = 3, UP = 6, DACT = 9 };
    for (int n = 0; n < (be->on_device ? 4 : 2); n++) {
        const dtype type = bf16_or_f32(n / 2 == 1);
        float *gu = random_floats(1, 2 * F), *slopes = random_floats(2, F);
        float act[F], again[F], d[2 * F];
        gu[GATE] = gu[F + UP] = slopes[DACT] = NAN;
        ops o = ops_begin(be);
        const tensor in = ops_make_at(&o, type, 1, 2 * F, 2 * F, n % 2);
        const tensor ta = ops_output_as(&o, type, 1, F), tb = ops_output_as(&o, type, 1, F);
        const tensor dact = ops_floats_as(&o, type, slopes, 1, F);
        const tensor td = ops_output_as(&o, type, 1, 2 * F);
        ops_put_floats(&o, in, gu);
        CHECK_OK(be->swiglu(be, ta, in));
        CHECK_OK(be->swiglu_backward(be, td, tb, dact, in));
        ops_get_floats(&o, act, ta);
        ops_get_floats(&o, again, tb);
        ops_get_floats(&o, d, td);
        for (int i = 0; i < F; i++) {
            assert_true((isnan(act[i]) != 0) == (i == GATE || i == UP));
            assert_true((isnan(again[i]) != 0) == (i == GATE || i == UP));
            assert_true((isnan(d[i]) != 0) == (i == GATE || i == UP || i == DACT));
            assert_true((isnan(d[F + i]) != 0) == (i == GATE || i == DACT));
        }
        ops_end(&o);
        free(gu);
        free(slopes);
    }
}

enum { T = 3, F = 4 };

typedef struct forward_call {
    tensor act, gate_up;
} forward_call;

static cudpo_status forward(backend *be, const void *arguments)
{
    const forward_call *c = arguments;
    return be->swiglu(be, c->act, c->gate_up);
}

typedef struct backward_call {
    tensor dgate_up, act, dact, gate_up;
} backward_call;

static cudpo_status backward(backend *be, const void *arguments)
{
    const backward_call *c = arguments;
    return be->swiglu_backward(be, c->dgate_up, c->act, c->dact, c->gate_up);
}

static void refusals_of_both(backend *be)
{
    enum { FREE = ANY_ROWS | ANY_COLS | ANY_FLOAT };
    ops o = ops_begin(be);
    forward_call f = {ops_output(&o, T, F), ops_output(&o, T, 2 * F)};
    const operand in_forward[] = {{"act", &f.act, "is_matrix(act)", OUTPUT | FREE},
                                  {"gate_up", &f.gate_up, "(gate_up, ", 0}};
    const refusals forwards = {&o, forward, &f, in_forward, 2};
    check_refusals(&forwards);
    backward_call b = {ops_output(&o, T, 2 * F), ops_output(&o, T, F), ops_output(&o, T, F),
                       ops_output(&o, T, 2 * F)};
    const operand in_backward[] = {{"dgate_up", &b.dgate_up, "is_like(dgate_up, gate_up)", OUTPUT},
                                   {"act", &b.act, "is_like(act, dact)", OUTPUT | OPTIONAL},
                                   {"dact", &b.dact, "is_matrix(dact)", FREE},
                                   {"gate_up", &b.gate_up, "(gate_up, ", 0}};
    const refusals backwards = {&o, backward, &b, in_backward, 4};
    check_refusals(&backwards);
#ifdef TEST_CUDA
    f.act.rows = b.dact.rows = ((int64_t)1 << 37) - 63; /* 2^39 - 256 elements, and a row more */
    CHECK_FAILS(forward(be, &f), CUDPO_EINVAL, "fits_grid(act.rows");
    CHECK_FAILS(backward(be, &b), CUDPO_EINVAL, "fits_grid(dact.rows");
    f.act.rows--, b.dact.rows--;
    CHECK_FAILS(forward(be, &f), CUDPO_EINVAL, "(gate_up, ");
    CHECK_FAILS(backward(be, &b), CUDPO_EINVAL, "(gate_up, ");
    ops_check_untouched(&o, b.dgate_up);
#endif
    ops_end(&o);
}

static void no_rows(backend *be)
{
    ops o = ops_begin(be);
    const tensor act = ops_output(&o, T, F), gate_up = ops_output(&o, T, 2 * F);
    const tensor none = tensor_rows(act, 0, 0), no_pairs = tensor_rows(gate_up, 0, 0);
    CHECK_OK(be->swiglu(be, none, no_pairs));
    CHECK_OK(be->swiglu_backward(be, no_pairs, (tensor){0}, none, no_pairs));
    ops_check_untouched(&o, act);
    ops_check_untouched(&o, gate_up);
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
    {"any_operand_may_be_unaligned", any_operand_may_be_unaligned},
    {"extremes", extremes},
    {"nan_shows", nan_shows},
    {"refusals_of_both", refusals_of_both},
    {"no_rows", no_rows},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
