/* test_schedule.c - learning rates against those of transformers' get_scheduler.
 *
 * The numbers were printed by Python, transformers 5.23.0, torch 2.15.0, for every (name, T, w) below:
 *     p = torch.nn.Parameter(torch.zeros(1)); o = torch.optim.AdamW([p], lr=1.0)
 *     s = get_scheduler(name, optimizer=o, num_warmup_steps=w, num_training_steps=T)   # min_lr_rate=0.1 where it has one
 *     for k in range(T): print("%.17g" % s.get_last_lr()[0]); o.step(); s.step() */
/* rooms: optim */
#include "test.h"
#include "optim/schedule.h"

enum { STEPS = 7 };

static const struct {
    schedule_kind kind;
    int64_t T, w;
    double factor[STEPS];
} cases[] = {
    {SCHEDULE_LINEAR,
     7,
     0,
     {1, 0.8571428571428571, 0.7142857142857143, 0.5714285714285714, 0.42857142857142855,
      0.2857142857142857, 0.14285714285714285}},
    {SCHEDULE_LINEAR, 7, 3, {0, 0.33333333333333331, 0.66666666666666663, 1, 0.75, 0.5, 0.25}},
    {SCHEDULE_LINEAR, 1, 0, {1}},
    {SCHEDULE_LINEAR,
     5,
     5,
     {0, 0.20000000000000001, 0.40000000000000002, 0.59999999999999998, 0.80000000000000004}},
    {SCHEDULE_LINEAR, 3, 6, {0, 0.16666666666666666, 0.33333333333333331}},
    {SCHEDULE_COSINE,
     7,
     0,
     {1, 0.95048443395120952, 0.8117449009293668, 0.61126046697815717, 0.38873953302184283,
      0.18825509907063326, 0.049515566048790483}},
    {SCHEDULE_COSINE,
     7,
     3,
     {0, 0.33333333333333331, 0.66666666666666663, 1, 0.85355339059327373, 0.5,
      0.14644660940672627}},
    {SCHEDULE_COSINE, 1, 0, {1}},
    {SCHEDULE_COSINE,
     5,
     5,
     {0, 0.20000000000000001, 0.40000000000000002, 0.59999999999999998, 0.80000000000000004}},
    {SCHEDULE_COSINE, 3, 6, {0, 0.16666666666666666, 0.33333333333333331}},
    {SCHEDULE_COSINE_WITH_MIN_LR,
     7,
     0,
     {1, 0.95543599055608852, 0.83057041083643013, 0.65013442028034141, 0.44986557971965857,
      0.26942958916356996, 0.14456400944391146}},
    {SCHEDULE_COSINE_WITH_MIN_LR,
     7,
     3,
     {0, 0.33333333333333331, 0.66666666666666663, 1, 0.86819805153394636, 0.55000000000000004,
      0.23180194846605365}},
    {SCHEDULE_COSINE_WITH_MIN_LR, 1, 0, {1}},
    {SCHEDULE_COSINE_WITH_MIN_LR,
     5,
     5,
     {0, 0.20000000000000001, 0.40000000000000002, 0.59999999999999998, 0.80000000000000004}},
    {SCHEDULE_CONSTANT, 7, 0, {1, 1, 1, 1, 1, 1, 1}},
    {SCHEDULE_CONSTANT, 7, 3, {1, 1, 1, 1, 1, 1, 1}},
    {SCHEDULE_CONSTANT_WITH_WARMUP, 7, 0, {1, 1, 1, 1, 1, 1, 1}},
    {SCHEDULE_CONSTANT_WITH_WARMUP,
     7,
     3,
     {0, 0.33333333333333331, 0.66666666666666663, 1, 1, 1, 1}},
    {SCHEDULE_CONSTANT_WITH_WARMUP,
     5,
     5,
     {0, 0.20000000000000001, 0.40000000000000002, 0.59999999999999998, 0.80000000000000004}},
};

static void as_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int64_t k = 0; k < cases[i].T; k++) {
            const double got = schedule_factor(cases[i].kind, k, cases[i].w, cases[i].T, 0.1);
            /* A few roundings of numbers up to 1. */
            if (!(fabs(got - cases[i].factor[k]) <= 1e-15))
                fail_msg("%s, step %d of %d, warm-up %d: %.17g, want %.17g",
                         schedule_name(cases[i].kind), (int)k, (int)cases[i].T, (int)cases[i].w,
                         got, cases[i].factor[k]);
        }
    }
}

/* 1 - p at p = 1/4, (1 + cos(pi p)) / 2 = 1/2 at p = 1/2, and r at the end. */
static void by_hand(void **state)
{
    (void)state;
    CHECK_NEAR(schedule_factor(SCHEDULE_LINEAR, 300, 200, 600, 0.0), 0.75, 1e-15);
    CHECK_NEAR(schedule_factor(SCHEDULE_COSINE, 400, 200, 600, 0.0), 0.5, 1e-15);
    CHECK_NEAR(schedule_factor(SCHEDULE_COSINE_WITH_MIN_LR, 600, 200, 600, 0.25), 0.25, 1e-15);
    CHECK_NEAR(schedule_factor(SCHEDULE_COSINE_WITH_MIN_LR, 400, 200, 600, 0.5), 0.75, 1e-15);
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++) {
        if (kind == SCHEDULE_CONSTANT) continue;
        assert_true(schedule_factor((schedule_kind)kind, 0, 10, 100, 0.1) == 0.0);
        CHECK_NEAR(schedule_factor((schedule_kind)kind, 5, 10, 100, 0.1), 0.5, 1e-15);
        CHECK_NEAR(schedule_factor((schedule_kind)kind, 10, 10, 100, 0.1), 1.0, 1e-15);
    }
}

static void never_outside_0_to_1(void **state)
{
    (void)state;
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++)
        for (int64_t T = 1; T < 40; T++)
            for (int64_t w = 0; w <= T + 2; w++)
                for (int64_t k = 0; k <= T + 5; k++) {
                    const double f = schedule_factor((schedule_kind)kind, k, w, T, 0.1);
                    assert_true(f >= 0.0 && f <= 1.0);
                }
}

static void names_are_found(void **state)
{
    (void)state;
    schedule_kind kind = SCHEDULE_KINDS;
    for (int i = 0; i < SCHEDULE_KINDS; i++) {
        assert_true(schedule_find(schedule_name((schedule_kind)i), &kind));
        assert_int_equal(kind, i);
    }
    assert_true(schedule_find("cosine_with_min_lr", &kind));
    assert_int_equal(kind, SCHEDULE_COSINE_WITH_MIN_LR);
    kind = SCHEDULE_LINEAR;
    assert_false(schedule_find("Linear", &kind) || schedule_find("", &kind) ||
                 schedule_find("polynomial", &kind));
    assert_int_equal(kind, SCHEDULE_LINEAR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_transformers),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(never_outside_0_to_1),
        cmocka_unit_test(names_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
