/* test_vector.c - the vectorised exponential and maximum of the CPU backend, for the machine at hand and its baseline. */
/* rooms: backend base */
#include "test.h"
#include "backend/cpu/vector.h"

enum { N = 4096 };

VECTORISED(exp_all, (float *restrict y, const float *restrict x, int64_t n), (y, x, n))
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = vector_exp(x[i]);
    }
}

VECTORISED_VALUE(float, max_all, (const float *x, int64_t n), (x, n))
{
    return vector_largest(x, n);
}

/* Distance from the exact value in units in the last place of a float of that size. */
static double ulps(float got, double exact)
{
    int exponent;
    (void)frexp(exact, &exponent);
    return fabs((double)got - exact) / ldexp(1.0, exponent - 24);
}

static double worst_of(void (*f)(float *restrict, const float *restrict, int64_t), double from,
                       double to)
{
    static float x[N], y[N];
    double worst = 0;
    for (int pass = 0; pass < 256; pass++) {
        for (int i = 0; i < N; i++) {
            x[i] = (float)(from + (to - from) * (pass * N + i) / (256.0 * N));
        }
        f(y, x, N);
        for (int i = 0; i < N; i++) {
            const double error = ulps(y[i], exp((double)x[i]));
            worst = error > worst || isnan(error) ? error : worst;
        }
    }
    return worst;
}

static void exp_on_this_machine(float *restrict y, const float *restrict x, int64_t n)
{
    exp_all(y, x, n);
}

static void exp_one_by_one(float *restrict y, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = vector_exp(x[i]);
    }
}

static void exp_is_within_one_and_a_half_ulp(void **state)
{
    (void)state;
    CHECK_NEAR(worst_of(exp_on_this_machine, -87.33, 88.37), 0.0, 1.5);
    CHECK_NEAR(worst_of(exp_on_this_machine, -1.0, 1.0), 0.0, 1.5);
    CHECK_NEAR(worst_of(exp_one_by_one, -87.33, 88.37), 0.0, 1.5);
}

static void exp_at_its_limits(void **state)
{
    (void)state;
    static const float x[] = {0.0f, -0.0f, -87.34f, -88.0f, -104.0f, -1e4f, -3e38f, -INFINITY};
    static const float large[] = {88.38f, 89.0f, 100.0f, 1e4f, 3e38f, INFINITY};
    float y[8];
    exp_all(y, x, 8);
    assert_true(y[0] == 1.0f && y[1] == 1.0f);
    for (int i = 2; i < 8; i++) {
        assert_true(y[i] == 0.0f);
    }
    exp_all(y, large, 6);
    for (int i = 0; i < 6; i++) {
        assert_true(y[i] == INFINITY);
    }
    assert_true(isnan(vector_exp(NAN)) && isnan(vector_exp(-NAN)));
}

static void largest_of_any_number(void **state)
{
    (void)state;
    float x[300];
    for (int n = 0; n <= 257; n++) {
        for (int at = 0; at < n; at += 1 + at / 7) {
            for (int i = 0; i < n; i++) {
                x[i] = -10.0f - (float)((i * 37) % 11);
            }
            x[at] = -9.5f;
            assert_true(max_all(x, n) == -9.5f);
        }
    }
    assert_true(max_all(x, 0) == -INFINITY);
    x[3] = NAN; /* passed over */
    x[200] = 5.0f;
    assert_true(max_all(x, 257) == 5.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_one_and_a_half_ulp),
        cmocka_unit_test(exp_at_its_limits),
        cmocka_unit_test(largest_of_any_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
