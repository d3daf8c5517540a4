/* test_optimizer.c - clipping and AdamW over several parameters, by hand and against torch. */
/* rooms: optim */
#include "test.h"
#include "optim/optimizer.h"
#include "test_ops.h"

enum { N = 4 };

/* One parameter of N elements and everything that belongs to it. */
typedef struct trained {
    tensor w, g, m, v;
} trained;

static trained make(ops *o, const float *w)
{
    const float zero[N] = {0};
    return (trained){ops_floats(o, w, 1, N), ops_floats(o, zero, 1, N), ops_floats(o, zero, 1, N),
                     ops_floats(o, zero, 1, N)};
}

static optimizer_parameter parameter_of(const trained *t, bool decay)
{
    return (optimizer_parameter){.weight = t->w,
                                 .gradient = t->g,
                                 .first_moment = t->m,
                                 .second_moment = t->v,
                                 .decay = decay};
}

/* A step on gradients clipped by the norm of one of them. */
static cudpo_status step_clipped(ops *o, const optimizer_parameter *p, int64_t count,
                                 const optimizer_settings *s, tensor gradient, double most,
                                 int64_t t)
{
    const tensor norm = ops_output(o, 1, 1), factor = ops_output(o, 1, 1);
    CHECK_OK(o->be->clip(o->be, norm, factor, gradient, (float)most));
    return optimizer_step(o->be, p, count, s, factor, t);
}

static void check_elements(const char *what, ops *o, tensor t, const double *want, double relative,
                           double absolute)
{
    float got[N];
    ops_get(o, got, t);
    for (int i = 0; i < N; i++) {
        const double tolerance = relative * fabs(want[i]) + absolute;
        if (!(fabs((double)got[i] - want[i]) <= tolerance))
            fail_msg("%s[%d] = %.9g, want %.9g within %g", what, i, (double)got[i], want[i],
                     tolerance);
    }
}

static const float start[N] = {1.5f, -0.75f, 0.02f, -3.0f};
static const float gradients[5][N] = {{0.1f, -2.0f, 1e-4f, 0.0f},
                                      {0.3f, 0.5f, -2e-4f, 0.0f},
                                      {-0.2f, 1.0f, 3e-4f, 1.0f},
                                      {0.05f, -0.25f, 0.0f, -4.0f},
                                      {1.0f, 0.125f, -1e-3f, 0.5f}};
static const double rates[5] = {0.0, 1e-2, 5e-3, 1e-3, 2e-4};

/* Step 1 from zero moments: m = (1 - b1) g, v = (1 - b2) g^2, and both corrections undo the factors, so that
 * w -= lr (g / (|g| + eps) + wd w): every element moves by lr against its gradient's sign, those without stay. */
static void the_first_step_by_hand(backend *be)
{
    ops o = ops_begin(be);
    trained t = make(&o, start);
    const optimizer_parameter p = parameter_of(&t, true);
    const optimizer_settings s = {
        .learning_rate = 0.25, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.5};
    ops_put(&o, t.g, (const float[N]){2.0f, -3.0f, 0.5f, 0.0f});
    CHECK_OK(step_clipped(&o, &p, 1, &s, t.g, 0.0, 1)); /* 0: no clipping, however large the norm */
    check_elements("w", &o, t.w,
                   (const double[N]){1.5 * 0.875 - 0.25, -0.75 * 0.875 + 0.25, 0.02 * 0.875 - 0.25,
                                     -3.0 * 0.875},
                   4 * EPS, 4 * EPS);
    check_elements("m", &o, t.m, (const double[N]){0.2, -0.3, 0.05, 0.0}, 2 * EPS, 0.0);
    /* 2 EPS: the betas reach the kernel in double.  1 - 0.999f would be off by 1.3e-5. */
    check_elements("v", &o, t.v, (const double[N]){0.004, 0.009, 0.00025, 0.0}, 4 * EPS, 0.0);
    ops_end(&o);
}

/* What torch 2.15.0 (CPU) printed:
 *     p = torch.nn.Parameter(torch.tensor(start)); o = torch.optim.AdamW([p], lr=1e-2, fused=True, weight_decay=WD)
 *     for g, lr in zip(gradients, rates):
 *         p.grad = torch.tensor(g); o.param_groups[0]["lr"] = lr
 *         norm = torch.nn.utils.clip_grad_norm_([p], 1.0); o.step(); print(p, norm)
 * then o.state[p]["exp_avg"] and ["exp_avg_sq"]. */
static const double torch_norm[5] = {2.00249839, 0.583095193, 1.42828572, 4.00811672, 1.12500048};
static const double torch_plain[5][N] = {{1.5, -0.75, 0.0199999996, -3},
                                         {1.49155986, -0.747341454, 0.025597088, -3},
                                         {1.48993337, -0.748168588, 0.0248318799, -3.00319409},
                                         {1.48964548, -0.748276472, 0.0247065183, -3.00301862},
                                         {1.48952627, -0.748303831, 0.0248034447, -3.00302815}};
static const double torch_decay[5][N] = {{1.5, -0.75, 0.0199999996, -3},
                                         {1.49005985, -0.746591449, 0.0255770888, -2.99699998},
                                         {1.4876883, -0.747045279, 0.0247990917, -2.99869561},
                                         {1.48725164, -0.747078419, 0.0246712491, -2.99822021},
                                         {1.48710263, -0.747090816, 0.024767682, -2.99816966}};
static const double torch_m[N] = {0.103815645, 0.0331306867, -8.31789803e-05, 0.011337975};
static const double torch_v[N] = {0.000902059663, 0.00174821995, 8.76514861e-10, 0.00168170349};

/* Two parameters at once, of which one decays; the norm that clips is the first one's alone, as in torch above. */
static void five_steps_as_torch(backend *be)
{
    ops o = ops_begin(be);
    trained plain = make(&o, start), decayed = make(&o, start);
    const optimizer_parameter p[2] = {parameter_of(&plain, false), parameter_of(&decayed, true)};
    for (int t = 0; t < 5; t++) {
        const optimizer_settings s = {.learning_rate = rates[t],
                                      .beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .epsilon = 1e-8,
                                      .weight_decay = 0.1};
        double norm = (double)NAN;
        ops_put(&o, plain.g, gradients[t]);
        ops_put(&o, decayed.g, gradients[t]);
        CHECK_OK(optimizer_norm(&norm, be, plain.g));
        CHECK_NEAR(norm, torch_norm[t], 4 * EPS * torch_norm[t]);
        CHECK_OK(step_clipped(&o, p, 2, &s, plain.g, 1.0, t + 1));
        /* Each of t + 1 steps rounds a weight once, to EPS of it, and its update of at most 0.01 a few times; torch does
         * too. */
        const double rounding = 2 * (t + 1) * EPS;
        check_elements("plain", &o, plain.w, torch_plain[t], rounding, 0.01 * 8 * rounding);
        check_elements("decayed", &o, decayed.w, torch_decay[t], 2 * rounding, 0.01 * 8 * rounding);
    }
    /* Up to five terms, each with three roundings, here and there. */
    check_elements("m", &o, plain.m, torch_m, 30 * EPS, 0.0);
    check_elements("v", &o, plain.v, torch_v, 30 * EPS, 0.0);
    check_elements("m", &o, decayed.m, torch_m, 30 * EPS, 0.0);
    check_elements("v", &o, decayed.v, torch_v, 30 * EPS, 0.0);
    ops_end(&o);
}

/* The same with lr=1e-1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.01 and no clipping. */
static void other_settings_as_torch(backend *be)
{
    static const double torch_w[5][N] = {{1.39949012, -0.649299979, 0.0108890915, -2.99699998},
                                         {1.30504441, -0.606275797, 0.0166286714, -2.99400306},
                                         {1.28420234, -0.609439313, 0.00975439884, -3.06011081},
                                         {1.25896919, -0.604183137, 0.00508839311, -3.00636029},
                                         {1.19179332, -0.603632927, 0.0223448165, -2.97113752}};
    ops o = ops_begin(be);
    trained t = make(&o, start);
    const optimizer_parameter p = parameter_of(&t, true);
    const optimizer_settings s = {
        .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.01};
    for (int k = 0; k < 5; k++) {
        ops_put(&o, t.g, gradients[k]);
        CHECK_OK(optimizer_step(be, &p, 1, &s, (tensor){0}, k + 1));
        const double rounding = 4 * (k + 1) * EPS;
        check_elements("w", &o, t.w, torch_w[k], rounding, 0.1 * 8 * rounding);
    }
    ops_end(&o);
}

/* A gradient of norm 5 clipped to 1, to 10, and not: m is a tenth of what the step saw. */
static void clipping_by_hand(backend *be)
{
    static const struct {
        double most, coefficient;
    } cases[] = {{1.0, 1.0 / (5.0 + 1e-6)}, {10.0, 1.0}, {0.0, 1.0}, {5.0, 5.0 / (5.0 + 1e-6)}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ops o = ops_begin(be);
        trained t = make(&o, start);
        const optimizer_parameter p = parameter_of(&t, false);
        const optimizer_settings s = {
            .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
        double norm = (double)NAN;
        ops_put(&o, t.g, (const float[N]){3.0f, -4.0f, 0.0f, 0.0f});
        CHECK_OK(optimizer_norm(&norm, be, t.g));
        CHECK_NEAR(norm, 5.0, 0.0);
        CHECK_OK(step_clipped(&o, &p, 1, &s, t.g, cases[i].most, 1));
        const double c = cases[i].coefficient;
        check_elements("m", &o, t.m, (const double[N]){0.3 * c, -0.4 * c, 0.0, 0.0}, 4 * EPS, 0.0);
        ops_end(&o);
    }
}

static void norms_show_what_is_wrong(backend *be)
{
    ops o = ops_begin(be);
    double norm = 0.0;
    const float nan[3] = {1.0f, NAN, 2.0f}, inf[3] = {1.0f, -INFINITY, 2.0f};
    const float large[3] = {3e38f, 0.0f, 3e38f}, small[3] = {3e-42f, 4e-42f, 0.0f};
    CHECK_OK(optimizer_norm(&norm, be, ops_floats(&o, nan, 1, 3)));
    assert_true(isnan(norm));
    CHECK_OK(optimizer_norm(&norm, be, ops_floats(&o, inf, 1, 3)));
    assert_true(isinf(norm));
    CHECK_OK(optimizer_norm(&norm, be, ops_floats(&o, large, 1, 3))); /* squares in double */
    CHECK_NEAR(norm, 3e38 * sqrt(2.0), 3e38 * 2 * EPS);
    CHECK_OK(optimizer_norm(&norm, be, ops_floats(&o, small, 1, 3)));
    CHECK_NEAR(norm, 5e-42, 2e-45); /* subnormals are 1.4e-45 apart */
    ops_end(&o);
}

static void bad_calls_change_nothing(backend *be)
{
    ops o = ops_begin(be);
    trained t = make(&o, start);
    const optimizer_parameter p = parameter_of(&t, true);
    const optimizer_settings s = {
        .learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
    optimizer_settings bad = s;
    ops_put(&o, t.g, gradients[0]);
    CHECK_FAILS(optimizer_step(be, &p, 1, &s, (tensor){0}, 0), CUDPO_EINVAL, "t >= 1");
    const float no_numbers[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3;
         i++) /* a gradient that is no number: not an error here, but nothing is done */
        CHECK_OK(optimizer_step(be, &p, 1, &s, ops_floats(&o, &no_numbers[i], 1, 1), 1));
    bad.beta1 = 1.0;
    CHECK_FAILS(optimizer_step(be, &p, 1, &bad, (tensor){0}, 1), CUDPO_EINVAL, "");
    bad = s;
    bad.learning_rate = (double)NAN;
    CHECK_FAILS(optimizer_step(be, &p, 1, &bad, (tensor){0}, 1), CUDPO_EINVAL, "");
    optimizer_parameter wrong = p;
    wrong.gradient = tensor_cols(t.g, 0, N - 1);
    CHECK_FAILS(optimizer_step(be, &wrong, 1, &s, (tensor){0}, 1), CUDPO_EINVAL, "");
    check_elements("w", &o, t.w, (const double[N]){1.5, -0.75, (double)0.02f, -3.0}, 0.0, 0.0);
    check_elements("m", &o, t.m, (const double[N]){0}, 0.0, 0.0);
    CHECK_OK(optimizer_step(be, NULL, 0, &s, (tensor){0}, 1)); /* nothing to train */
    ops_end(&o);
}

static const op_case cases[] = {
    {"the_first_step_by_hand", the_first_step_by_hand},
    {"five_steps_as_torch", five_steps_as_torch},
    {"other_settings_as_torch", other_settings_as_torch},
    {"clipping_by_hand", clipping_by_hand},
    {"norms_show_what_is_wrong", norms_show_what_is_wrong},
    {"bad_calls_change_nothing", bad_calls_change_nothing},
};
OPS_MAIN(cases)
