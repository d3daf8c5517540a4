/* test_parts.c - parts of a step: ranges that nest, and times that leave nothing out. */
/* rooms: train */
#include "test.h"
#include "train/parts.h"

/* A backend whose clock goes on by one second a stamp, and whose ranges are written down. */
typedef struct fake {
    backend be;
    int64_t stamps, of_slot[STAMPS]; /* which stamp each slot holds */
    int64_t waits, behind; /* the fewest stamps that were set behind one that was waited for */
    int depth, deepest;
    char ranges[4096]; /* "<name" and ">" */
} fake;

static cudpo_status fake_stamp(backend *be, int slot)
{
    fake *f = (fake *)be;
    assert_true(slot >= 0 && slot < STAMPS);
    f->of_slot[slot] = f->stamps++;
    return CUDPO_OK;
}

static cudpo_status fake_elapsed(backend *be, double *seconds, int from, int to)
{
    fake *f = (fake *)be;
    const int64_t behind = f->stamps - 1 - f->of_slot[to];
    assert_int_equal(f->of_slot[to], f->of_slot[from] + 1); /* neither was set again */
    if (f->waits++ == 0 || behind < f->behind) f->behind = behind;
    *seconds = (double)(f->of_slot[to] - f->of_slot[from]);
    return CUDPO_OK;
}

static void fake_begin(backend *be, const char *name)
{
    fake *f = (fake *)be;
    const size_t used = strlen(f->ranges);
    if (++f->depth > f->deepest) f->deepest = f->depth;
    if (used + 32 < sizeof f->ranges)
        snprintf(f->ranges + used, sizeof f->ranges - used, "<%s", name);
}

static void fake_end(backend *be)
{
    fake *f = (fake *)be;
    assert_true(f->depth > 0);
    f->depth--;
    if (strlen(f->ranges) + 32 < sizeof f->ranges) strcat(f->ranges, ">");
}

static fake *fake_open(part_clock *p)
{
    fake *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->be = (backend){.stamp = fake_stamp,
                      .elapsed = fake_elapsed,
                      .range_begin = fake_begin,
                      .range_end = fake_end};
    parts_follow(p, &f->be);
    return f;
}

static void ranges_nest_and_balance(void **state)
{
    (void)state;
    part_clock p;
    fake *f = fake_open(&p);
    CHECK_OK(backend_part(&f->be, PART_FORWARD)); /* outside of a step: nobody's */
    assert_string_equal(f->ranges, "");
    CHECK_OK(parts_begin(&p));
    CHECK_OK(backend_part(&f->be, PART_REFERENCE));
    CHECK_OK(backend_part(&f->be, PART_FORWARD));
    CHECK_OK(parts_end(&p));
    assert_string_equal(f->ranges, "<step<data><reference forward><forward>>");
    assert_int_equal(f->depth, 0);
    CHECK_OK(backend_part(&f->be, PART_HEAD));
    f->ranges[0] = '\0';
    CHECK_OK(parts_begin(&p)); /* fails halfway */
    CHECK_OK(backend_part(&f->be, PART_OPTIMIZER));
    CHECK_OK(parts_begin(&p));
    CHECK_OK(backend_part(&f->be, PART_LOSS));
    parts_leave(&p);
    assert_string_equal(f->ranges, "<step<data><optimizer>><step<data><loss>>");
    CHECK_OK(backend_part(&f->be, PART_HEAD)); /* nobody follows */
    assert_int_equal(f->deepest, 2);
    assert_int_equal(f->stamps, 0); /* nobody asked for times */
    parts_leave(&p);
    parts_leave(&(part_clock){0});
    free(f);
}

/* Who came last follows, and who left does not take it along. */
static void the_last_follows(void **state)
{
    (void)state;
    part_clock first, second;
    fake *f = fake_open(&first);
    parts_follow(&second, &f->be);
    parts_leave(&first);
    CHECK_OK(parts_begin(&second));
    CHECK_OK(backend_part(&f->be, PART_HEAD));
    CHECK_OK(parts_end(&second));
    assert_string_equal(f->ranges, "<step<data><head>>");
    parts_leave(&second);
    free(f);
}

/* A step of `packs` packs: data, then so often forward, head, loss, head, backward, then the optimizer. */
static void one_step(part_clock *p, backend *be, int packs)
{
    static const step_part pack[] = {PART_DATA, PART_FORWARD, PART_HEAD,
                                     PART_LOSS, PART_HEAD,    PART_BACKWARD};
    CHECK_OK(parts_begin(p));
    for (int i = 0; i < packs; i++)
        for (size_t k = 0; k < sizeof pack / sizeof pack[0]; k++)
            CHECK_OK(backend_part(be, pack[k]));
    CHECK_OK(backend_part(be, PART_OPTIMIZER));
    CHECK_OK(parts_end(p));
}

/* From fewer stamps than there are slots to many times as many; each stretch is a second, and belongs to one part. */
static void every_stretch_is_summed_once(void **state)
{
    (void)state;
    static const int packs[] = {1, 84, 85, 86, 1000};
    enum { STEPS = 3 };
    for (size_t i = 0; i < sizeof packs / sizeof packs[0]; i++) {
        const double n = packs[i];
        part_clock p;
        part_times times[STEPS + 1];
        memset(times, 0x7f, sizeof times);
        const part_times guard = times[STEPS];
        fake *f = fake_open(&p);
        one_step(&p, &f->be, 2); /* not timed */
        parts_time(&p, times, STEPS);
        for (int s = 0; s < STEPS + 2; s++) /* the last two are not, either */
            one_step(&p, &f->be, packs[i]);
        assert_int_equal(f->stamps, STEPS * (2 + 6 * packs[i] + 1));
        const int64_t early = f->waits;
        if (early > 0) assert_true(f->behind >= STAMPS - 2);
        CHECK_OK(parts_sum(&p));
        assert_int_equal(f->waits, f->stamps - 1);
        for (int s = 0; s < STEPS; s++) {
            const double *part = times[s].part;
            CHECK_NEAR(part[PART_DATA], 1 + n, 0);
            CHECK_NEAR(part[PART_FORWARD], n, 0);
            CHECK_NEAR(part[PART_HEAD], 2 * n, 0);
            CHECK_NEAR(part[PART_LOSS], n, 0);
            CHECK_NEAR(part[PART_BACKWARD], n, 0);
            CHECK_NEAR(part[PART_OPTIMIZER], 1, 0);
            CHECK_NEAR(part[PART_REFERENCE] + part[PART_REDUCE], 0, 0);
            CHECK_NEAR(times[s].between, s + 1 < STEPS ? 1 : 0, 0);
        }
        assert_memory_equal(&times[STEPS], &guard, sizeof guard);
        one_step(&p, &f->be, 1);
        assert_int_equal(f->stamps, STEPS * (2 + 6 * packs[i] + 1)); /* nobody asks any more */
        parts_leave(&p);
        free(f);
    }
}

static void every_part_has_a_name(void **state)
{
    (void)state;
    for (int a = 0; a < STEP_PARTS; a++) {
        assert_true(strlen(part_name((step_part)a)) > 0);
        for (int b = 0; b < a; b++)
            assert_string_not_equal(part_name((step_part)a), part_name((step_part)b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_nest_and_balance), cmocka_unit_test(the_last_follows),
        cmocka_unit_test(every_stretch_is_summed_once), cmocka_unit_test(every_part_has_a_name)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
