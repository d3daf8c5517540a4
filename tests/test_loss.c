/* test_loss.c - every loss by hand, against torch, by finite differences, and at its extremes. */
/* rooms: preference backend */
#include "test.h"
#include "base/rng.h"
#include "preference/loss.h"
#include "test_ops.h"

static loss_parameters parameters_of(loss_kind kind)
{
    return (loss_parameters){.kind = kind,
                             .beta = 0.1,
                             .desirable_weight = 1.0,
                             .undesirable_weight = 1.0,
                             .unit_scale = 1.0,
                             .token_scale = 1.0};
}

static loss_result evaluate(const loss_unit *u, const loss_parameters *p)
{
    loss_result r;
    memset(&r, 0xff, sizeof r); /* NaN: every field must be written */
    loss_unit_evaluate(&r, u, p);
    return r;
}

/* Three pairs, with scores and token counts of prompts too. */
static const loss_unit pairs[3] = {
    {.policy = {-12.0, -11.0, -3.0}, .reference = {-13.5, -10.0, 0.0}, .tokens = {4, 5, 2}},
    {.policy = {-40.5, -44.0, -8.0}, .reference = {-41.0, -43.0, 0.0}, .tokens = {9, 11, 4}},
    {.policy = {-7.25, -7.25, -1.0}, .reference = {-7.25, -7.25, 0.0}, .tokens = {3, 3, 2}},
};

/* a = {1.5, 0.5, 0}, b = {-1, -1, 0}.  The wanted numbers are those of torch 2.15.0 in float64 with the formulas of TRL
 * 1.16.0 (dpo_trainer.py, kto_trainer.py, orpo_trainer.py); losses of single pairs, slopes of their mean. */
static void check_pairs(const loss_parameters *p, const double *loss, const double *chosen,
                        const double *rejected)
{
    for (int i = 0; i < 3; i++) {
        const loss_result r = evaluate(&pairs[i], p);
        CHECK_NEAR(r.column[LOSS_VALUE], loss[i] / 3, 1e-11 * (1 + fabs(loss[i])));
        CHECK_NEAR(r.coefficient[0], chosen[i], 1e-11 * (1 + fabs(chosen[i])));
        CHECK_NEAR(r.coefficient[1], rejected[i], 1e-11 * (1 + fabs(rejected[i])));
        assert_true(r.coefficient[2] == 0.0);
        CHECK_NEAR(r.column[LOSS_REWARD_CHOSEN],
                   p->beta * (pairs[i].policy[0] - pairs[i].reference[0]), 1e-14);
        CHECK_NEAR(r.column[LOSS_REWARD_REJECTED],
                   p->beta * (pairs[i].policy[1] - pairs[i].reference[1]), 1e-14);
    }
}

/* z = beta (a - b) = {0.25, 0.15, 0};  softplus(-0.25) = ln(1 + e^-0.25) = 0.5759394, slope -beta sigmoid(-z) / 3. */
static void sigmoid_as_torch(void **state)
{
    (void)state;
    static const double loss[3] = {0.575939419879, 0.62095704779, 0.69314718056};
    static const double dw[3] = {-0.0145941166371, -0.0154190051552, -0.0166666666667};
    static const double dl[3] = {0.0145941166371, 0.0154190051552, 0.0166666666667};
    loss_parameters p = parameters_of(LOSS_SIGMOID);
    p.unit_scale = 1.0 / 3.0;
    check_pairs(&p, loss, dw, dl);
    CHECK_NEAR(evaluate(&pairs[2], &p).column[LOSS_VALUE], log(2.0) / 3, 1e-16);
}

/* softplus(z) = softplus(-z) + z, so smoothing by e adds e z to the loss and e beta to the slope. */
static void label_smoothing_as_torch(void **state)
{
    (void)state;
    static const double loss[3] = {0.625939419879, 0.65095704779, 0.69314718056};
    static const double dw[3] = {-0.00792744997047, -0.00875233848854, -0.01};
    static const double dl[3] = {0.00792744997047, 0.00875233848854, 0.01};
    loss_parameters p = parameters_of(LOSS_SIGMOID), plain = p;
    p.unit_scale = 1.0 / 3.0;
    p.label_smoothing = 0.2;
    check_pairs(&p, loss, dw, dl);
    p.unit_scale = 1.0;
    for (int i = 0; i < 3; i++) {
        const double z = 0.1 *
                         (evaluate(&pairs[i], &plain).column[LOSS_REWARD_CHOSEN] -
                          evaluate(&pairs[i], &plain).column[LOSS_REWARD_REJECTED]) /
                         0.1;
        CHECK_NEAR(evaluate(&pairs[i], &p).column[LOSS_VALUE],
                   evaluate(&pairs[i], &plain).column[LOSS_VALUE] + 0.2 * z, 1e-15);
        CHECK_NEAR(evaluate(&pairs[i], &p).coefficient[0],
                   evaluate(&pairs[i], &plain).coefficient[0] + 0.02, 1e-15);
    }
    /* At one half there is no preference to learn: the slope at z = 0 is 0, and the least loss is there. */
    p.label_smoothing = 0.5;
    assert_true(evaluate(&pairs[2], &p).coefficient[0] == 0.0);
    assert_true(evaluate(&pairs[0], &p).column[LOSS_VALUE] > log(2.0));
}

/* 1 - z inside the margin; at z = 1 and beyond neither loss nor slope (torch's relu has slope 0 at 0 too). */
static void hinge_by_hand(void **state)
{
    (void)state;
    static const double loss[3] = {0.75, 0.85, 1.0}, beyond[3] = {0.0, 0.0, 1.0};
    static const double dw[3] = {-0.1 / 3, -0.1 / 3, -0.1 / 3}, dl[3] = {0.1 / 3, 0.1 / 3, 0.1 / 3};
    static const double far_w[3] = {0.0, 0.0, -1.0 / 3}, far_l[3] = {0.0, 0.0, 1.0 / 3};
    loss_parameters p = parameters_of(LOSS_HINGE);
    p.unit_scale = 1.0 / 3.0;
    check_pairs(&p, loss, dw, dl);
    p.beta = 1.0; /* z = {2.5, 1.5, 0} */
    check_pairs(&p, beyond, far_w, far_l);
    const loss_unit edge = {.policy = {1.0, 0.0}};
    assert_true(evaluate(&edge, &p).column[LOSS_VALUE] == 0.0);
    assert_true(evaluate(&edge, &p).coefficient[0] == 0.0);
}

/* First pair: 1.5 / 4 - (-1) / 5 - 1 / 0.2 = -4.425, squared 19.580625; slopes 2 (-4.425) / 4 / 3, 2 (4.425) / 5 / 3. */
static void ipo_by_hand(void **state)
{
    (void)state;
    static const double loss[3] = {19.580625, 23.556805428, 25.0};
    static const double dw[3] = {-0.7375, -0.359521137299, -1.11111111111};
    static const double dl[3] = {0.59, 0.29415365779, 1.11111111111};
    loss_parameters p = parameters_of(LOSS_IPO);
    p.unit_scale = 1.0 / 3.0;
    check_pairs(&p, loss, dw, dl);
    /* Completions that truncation left nothing of count as one token. */
    const loss_unit empty = {.policy = {0.0, -3.0}, .reference = {0.0, -2.0}, .tokens = {0, 2}};
    const loss_result r = evaluate(&empty, &p); /* 0 + 0.5 - 5 = -4.5 */
    CHECK_NEAR(r.column[LOSS_VALUE], 20.25 / 3, 1e-14);
    CHECK_NEAR(r.coefficient[0], -3.0, 1e-14);
    CHECK_NEAR(r.coefficient[1], 1.5, 1e-14);
}

/* Chosen ones are desirable rows, rejected ones undesirable with weight 1.5; kl 0.3.  At a = kl the loss is half the weight
 * and the slope a quarter of beta times it. */
static void kto_as_torch(void **state)
{
    (void)state;
    static const double loss[6] = {0.470035948235, 0.49500016666,  0.507499437551,
                                   0.701318540419, 0.701318540419, 0.738750843674};
    static const double slope_of[6] = {-0.0249102155602, -0.0249975001667, -0.0249943758436,
                                       0.0373420076995,  0.0373420076995,  0.0374915637655};
    loss_parameters p = parameters_of(LOSS_KTO);
    p.undesirable_weight = 1.5;
    for (int i = 0; i < 6; i++) {
        const loss_unit *from = &pairs[i % 3];
        const loss_unit u = {.policy = {from->policy[i / 3]},
                             .reference = {from->reference[i / 3]},
                             .tokens = {4},
                             .label = i < 3,
                             .kl = 0.3};
        const loss_result r = evaluate(&u, &p);
        CHECK_NEAR(r.column[LOSS_VALUE], loss[i], 1e-11);
        CHECK_NEAR(r.coefficient[0], slope_of[i], 1e-11);
        assert_true(r.coefficient[1] == 0.0 && r.coefficient[2] == 0.0);
        CHECK_NEAR(r.column[LOSS_REWARD_CHOSEN], 0.1 * (u.policy[0] - u.reference[0]), 1e-14);
    }
    loss_unit at = {.policy = {-2.5}, .reference = {-3.0}, .label = true, .kl = 0.5};
    CHECK_NEAR(evaluate(&at, &p).column[LOSS_VALUE], 0.5, 1e-16);
    CHECK_NEAR(evaluate(&at, &p).coefficient[0], -0.025, 1e-16);
    at.label = false;
    CHECK_NEAR(evaluate(&at, &p).column[LOSS_VALUE], 0.75, 1e-16);
    CHECK_NEAR(evaluate(&at, &p).coefficient[0], 0.0375, 1e-16);
}

/* The whole step's loss: NLL over 24 tokens of prompts and chosen completions, the odds over 3 pairs. */
static void orpo_as_torch(void **state)
{
    (void)state;
    static const double odds[3] = {-0.86636746787, -0.507314284558, 0.0};
    static const double ratio[3] = {-1.21735961542, -0.978636111292, -0.69314718056};
    static const double dw[3] = {-0.0478406274218, -0.0440044020024, -0.0477664344614};
    static const double dl[3] = {0.00527809103607, 0.00192673381332, 0.00609976779474};
    loss_parameters p = parameters_of(LOSS_ORPO);
    p.unit_scale = 1.0 / 3.0;
    p.token_scale = 1.0 / 24.0;
    double total = 0.0, nll = 0.0;
    for (int i = 0; i < 3; i++) {
        const loss_result r = evaluate(&pairs[i], &p);
        CHECK_NEAR(r.column[LOSS_LOG_ODDS], odds[i], 1e-11);
        CHECK_NEAR(r.column[LOSS_LOG_ODDS_RATIO], ratio[i], 1e-11);
        CHECK_NEAR(r.coefficient[0], dw[i], 1e-12);
        CHECK_NEAR(r.coefficient[1], dl[i], 1e-12);
        CHECK_NEAR(r.coefficient[2], -1.0 / 24.0, 1e-16);
        CHECK_NEAR(r.column[LOSS_REWARD_CHOSEN], 0.1 * pairs[i].policy[0] / pairs[i].tokens[0],
                   1e-15);
        CHECK_NEAR(r.column[LOSS_REWARD_REJECTED], 0.1 * pairs[i].policy[1] / pairs[i].tokens[1],
                   1e-15);
        total += r.column[LOSS_VALUE];
        nll += r.column[LOSS_NLL];
    }
    CHECK_NEAR(total, 3.08588809691, 1e-11);
    CHECK_NEAR(nll, (12.0 + 3.0 + 40.5 + 8.0 + 7.25 + 1.0) / 24.0, 1e-14);
}

/* Odds by hand: w = ln 1/2 has odds 1, l = ln 1/4 odds 1/3; the ratio is 3 and sigmoid(ln 3) = 3/4.
 * d/dw = -beta (1/4) / (1/2), d/dl = beta (1/4) / (3/4), each over its tokens. */
static void orpo_by_hand(void **state)
{
    (void)state;
    const loss_unit u = {.policy = {2 * log(0.5), 3 * log(0.25), -1.5}, .tokens = {2, 3, 1}};
    loss_parameters p = parameters_of(LOSS_ORPO);
    p.beta = 0.5;
    p.token_scale = 0.0;
    const loss_result r = evaluate(&u, &p);
    CHECK_NEAR(r.column[LOSS_LOG_ODDS], log(3.0), 1e-15);
    CHECK_NEAR(r.column[LOSS_VALUE], -0.5 * log(0.75), 1e-15);
    CHECK_NEAR(r.coefficient[0], -0.5 * 0.25 / 0.5 / 2, 1e-15);
    CHECK_NEAR(r.coefficient[1], 0.5 * 0.25 / 0.75 / 3, 1e-15);
}

static void sft_by_hand(void **state)
{
    (void)state;
    loss_parameters p = parameters_of(LOSS_SFT);
    p.token_scale = 1.0 / 16.0;
    const loss_result r = evaluate(&pairs[0], &p); /* only the chosen one is learnt */
    CHECK_NEAR(r.column[LOSS_VALUE], 0.75, 1e-16);
    assert_true(r.coefficient[0] == -1.0 / 16.0);
    assert_true(r.coefficient[1] == 0.0 && r.coefficient[2] == 0.0);
    CHECK_NEAR(r.column[LOSS_REWARD_CHOSEN], 0.15, 1e-15);
    CHECK_NEAR(r.column[LOSS_REWARD_REJECTED], -0.1, 1e-15);
}

/* ---- slopes ---- */

typedef struct slope_case {
    loss_unit unit;
    loss_parameters p;
} slope_case;

static double loss_at(const double *x, const void *context)
{
    const slope_case *c = context;
    loss_unit u = c->unit;
    memcpy(u.policy, x, sizeof u.policy);
    return evaluate(&u, &c->p).column[LOSS_VALUE];
}

static slope_case random_case(loss_kind kind, uint64_t trial)
{
    slope_case c = {.p = {.kind = kind,
                          .beta = 0.01 + rng_uniform(trial, 1, 0),
                          .label_smoothing = trial % 2 == 0 ? 0.0 : 0.5 * rng_uniform(trial, 2, 0),
                          .desirable_weight = 0.5 + rng_uniform(trial, 3, 0),
                          .undesirable_weight = 0.5 + rng_uniform(trial, 4, 0),
                          .unit_scale = 0.1 + rng_uniform(trial, 5, 0),
                          .token_scale = 0.1 + rng_uniform(trial, 6, 0)},
                    .unit = {.label = trial % 3 == 0, .kl = rng_uniform(trial, 7, 0)}};
    for (uint64_t i = 0; i < LOSS_MAX_SEQUENCES; i++) {
        c.unit.tokens[i] = (int32_t)(1 + rng_below(trial, 8, i, 20));
        c.unit.policy[i] = -c.unit.tokens[i] * (0.05 + 3.0 * rng_uniform(trial, 9, i));
        c.unit.reference[i] = c.unit.policy[i] + 4.0 * rng_normal(trial, 10, i);
    }
    return c;
}

/* Every loss in every sequence's score. */
static void slopes_by_finite_differences(void **state)
{
    (void)state;
    int64_t checked = 0, moving = 0;
    for (int kind = 0; kind < LOSS_KINDS; kind++) {
        for (uint64_t trial = 0; trial < 300; trial++) {
            slope_case c = random_case((loss_kind)kind, trial);
            const loss_result r = evaluate(&c.unit, &c.p);
            const double z = r.column[LOSS_REWARD_CHOSEN] - r.column[LOSS_REWARD_REJECTED];
            if (kind == LOSS_HINGE && fabs(z - 1.0) < 1e-3) continue; /* the kink has no slope */
            for (int i = 0; i < LOSS_MAX_SEQUENCES; i++) {
                const double got = r.coefficient[i], want = slope(loss_at, c.unit.policy, i, &c);
                /* Rounding of f over 2h = 2e-5, and h^2 / 6 of a third derivative, which in the odds is at most
                 * 2 / (1 - P)^3 < 2e4 here. */
                const double tolerance =
                    1e-10 * (1 + fabs(r.column[LOSS_VALUE])) + 4e-7 * fabs(want);
                if (!(fabs(got - want) <= tolerance))
                    fail_msg("%s, trial %d, sequence %d: %.12g, want %.12g",
                             loss_traits_of((loss_kind)kind)->name, (int)trial, i, got, want);
                checked++;
                moving += got != 0.0;
            }
        }
    }
    assert_true(checked > 5000 && moving > 2500);
}

/* ---- extremes ---- */

static bool finite_result(const loss_result *r)
{
    for (int i = 0; i < LOSS_COLUMNS; i++)
        if (!isfinite(r->column[i])) return false;
    for (int i = 0; i < LOSS_MAX_SEQUENCES; i++)
        if (!isfinite(r->coefficient[i])) return false;
    return true;
}

static void what_a_float_holds_is_finite(void **state)
{
    (void)state;
    static const double values[] = {0.0, -0.0, -1e-45, 1e-45, -1.0, -1e4, 1e4, -3.4e38, 3.4e38};
    enum { N = sizeof values / sizeof values[0] };
    for (int kind = 0; kind < LOSS_KINDS; kind++) {
        if (kind == LOSS_ORPO) continue;
        for (int i = 0; i < N * N * N * N; i++) {
            const loss_unit u = {.policy = {values[i % N], values[i / N % N]},
                                 .reference = {values[i / N / N % N], values[i / N / N / N]},
                                 .tokens = {i % 2, i % 3},
                                 .label = i % 5 == 0,
                                 .kl = i % 7 == 0 ? 3.4e38 : 0.0};
            loss_parameters p = parameters_of((loss_kind)kind);
            p.label_smoothing = i % 2 == 0 ? 0.0 : 0.1;
            const loss_result r = evaluate(&u, &p);
            if (!finite_result(&r)) fail_msg("%s: unit %d", loss_traits_of(p.kind)->name, i);
        }
    }
}

static void sigmoid_of_huge_margins(void **state)
{
    (void)state;
    const loss_parameters p = parameters_of(LOSS_SIGMOID);
    const loss_unit won = {.policy = {0.0, -1e6}}, lost = {.policy = {-1e6, 0.0}};
    loss_result r = evaluate(&won, &p); /* e^-1e5 is 0 */
    assert_true(r.column[LOSS_VALUE] == 0.0 && r.coefficient[0] == 0.0);
    r = evaluate(&lost, &p); /* softplus(1e5) = 1e5, slope -beta */
    CHECK_NEAR(r.column[LOSS_VALUE], 1e5, 1e-9);
    CHECK_NEAR(r.coefficient[0], -0.1, 1e-17);
    CHECK_NEAR(r.coefficient[1], 0.1, 1e-17);
}

/* Each of the small functions against what it is near its ends. */
static void the_small_functions(void **state)
{
    (void)state;
    assert_true(loss_softplus(800.0) == 800.0);
    CHECK_NEAR(loss_softplus(-40.0), exp(-40.0), 1e-16 * exp(-40.0));
    assert_true(loss_softplus(-800.0) == 0.0);
    CHECK_NEAR(loss_softplus(0.0), 0.69314718055994531, 1e-16);
    assert_true(loss_sigmoid_of(800.0) == 1.0 && loss_sigmoid_of(-800.0) == 0.0);
    assert_true(loss_sigmoid_of(0.0) == 0.5);
    CHECK_NEAR(loss_sigmoid_of(-40.0), exp(-40.0), 1e-15 * exp(-40.0));
    for (int i = -40; i <= 40; i++) /* a sigmoid and its mirror image are 1 together */
        CHECK_NEAR(loss_sigmoid_of(i) + loss_sigmoid_of(-i), 1.0, 2.3e-16);
    CHECK_NEAR(loss_log1mexp(-log(2.0)), -log(2.0), 3e-16); /* where the two formulas meet */
    CHECK_NEAR(loss_log1mexp(-0.69), log(1 - exp(-0.69)), 4e-16);
    CHECK_NEAR(loss_log1mexp(-0.70), log(1 - exp(-0.70)), 4e-16);
    CHECK_NEAR(loss_log1mexp(-1e-20), log(1e-20), 1e-14); /* 1 - e^-1e-20 is 0 in double */
    CHECK_NEAR(loss_log1mexp(-1e-300), log(1e-300), 2e-13);
    CHECK_NEAR(loss_log1mexp(-50.0), -exp(-50.0), 1e-15 * exp(-50.0));
    assert_true(loss_log1mexp(-800.0) == 0.0);
}

/* Where the model is nearly sure of the chosen completion, 1 - P is tiny and cancels: -beta Pl / (1 - Pl) is the limit. */
static void orpo_near_certainty(void **state)
{
    (void)state;
    loss_parameters p = parameters_of(LOSS_ORPO);
    p.token_scale = 0.0;
    static const double w[] = {-1e-3, -1e-7, -1e-12, -1e-20, -1e-40, -4e-324, 0.0};
    for (size_t i = 0; i < sizeof w / sizeof w[0]; i++) {
        const loss_unit u = {.policy = {w[i], log(0.25)}, .tokens = {1, 1}};
        const loss_result r = evaluate(&u, &p);
        /* P = 1/4 has odds 1/3: -beta / 3, from which 1 - P = -w takes a share of (2/3) w or so. */
        CHECK_NEAR(r.coefficient[0], -0.1 / 3.0, 0.1 * (-2 * w[i] + 1e-15));
        CHECK_NEAR(r.column[LOSS_VALUE], 0.0, 0.1 * (-2 * w[i] + 1e-15));
        assert_true(isfinite(r.coefficient[1]) && r.coefficient[1] >= 0.0);
        CHECK_NEAR(r.coefficient[1], 0.0, 0.1 * (-2 * w[i] + 1e-15));
    }
    /* Nearly sure of the rejected one: loss and slope grow without bound, as they should. */
    double before = 0.0;
    for (int exponent = 3; exponent < 30; exponent += 3) {
        const loss_unit u = {.policy = {log(0.25), -pow(10.0, -exponent)}, .tokens = {1, 1}};
        const loss_result r = evaluate(&u, &p);
        assert_true(finite_result(&r) && r.column[LOSS_VALUE] > before);
        CHECK_NEAR(r.coefficient[1] / (0.1 * pow(10.0, exponent)), 1.0, 1e-2);
        before = r.column[LOSS_VALUE];
    }
    /* Equal scores have odds 1 to 1 at any certainty. */
    for (int exponent = -3; exponent < 300; exponent += 7) {
        const double x = -pow(10.0, -exponent);
        const loss_unit u = {.policy = {3 * x, 3 * x}, .tokens = {3, 3}};
        const loss_result r = evaluate(&u, &p);
        assert_true(r.column[LOSS_LOG_ODDS] == 0.0);
        CHECK_NEAR(r.column[LOSS_VALUE], 0.1 * log(2.0), 1e-16);
        CHECK_NEAR(r.coefficient[0] / (-0.05 / (3 * -expm1(x))), 1.0, 1e-15);
        CHECK_NEAR(r.coefficient[0] / r.coefficient[1], -1.0, 1e-15);
    }
    /* And where both are all but impossible. */
    const loss_unit u = {.policy = {-900.0, -800.0}, .tokens = {1, 1}};
    const loss_result r = evaluate(&u, &p);
    CHECK_NEAR(r.column[LOSS_LOG_ODDS], -100.0, 1e-12);
    CHECK_NEAR(r.coefficient[0], -0.1, 1e-15);
    CHECK_NEAR(r.coefficient[1], 0.1, 1e-15);
}

static void the_table_is_found_by_name(void **state)
{
    (void)state;
    for (int i = 0; i < LOSS_KINDS; i++) {
        loss_kind kind = LOSS_KINDS;
        const loss_traits *t = loss_traits_of((loss_kind)i);
        assert_ptr_equal(loss_traits_find(t->name, &kind), t);
        assert_int_equal(kind, i);
        assert_true(t->completions == 1 || t->completions == 2);
    }
    loss_kind kind = LOSS_KTO;
    assert_null(loss_traits_find("dpo", &kind));
    assert_null(loss_traits_find("", &kind));
    assert_int_equal(kind, LOSS_KTO);
    assert_true(loss_traits_of(LOSS_ORPO)->prompt && !loss_traits_of(LOSS_ORPO)->reference);
    assert_true(loss_traits_of(LOSS_KTO)->kl && loss_traits_of(LOSS_KTO)->completions == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigmoid_as_torch),
        cmocka_unit_test(label_smoothing_as_torch),
        cmocka_unit_test(hinge_by_hand),
        cmocka_unit_test(ipo_by_hand),
        cmocka_unit_test(kto_as_torch),
        cmocka_unit_test(orpo_as_torch),
        cmocka_unit_test(orpo_by_hand),
        cmocka_unit_test(sft_by_hand),
        cmocka_unit_test(slopes_by_finite_differences),
        cmocka_unit_test(what_a_float_holds_is_finite),
        cmocka_unit_test(sigmoid_of_huge_margins),
        cmocka_unit_test(the_small_functions),
        cmocka_unit_test(orpo_near_certainty),
        cmocka_unit_test(the_table_is_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
