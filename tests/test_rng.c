/* test_rng.c - random numbers depend on the key alone and have the right moments. */
/* rooms: base */
#include "test.h"
#include "base/rng.h"

static void same_key_same_number(void **state)
{
    (void)state;
    assert_true(rng_bits(1, 2, 3) == rng_bits(1, 2, 3));
    assert_true(rng_bits(1, 2, 3) != rng_bits(1, 2, 4));
    assert_true(rng_bits(1, 2, 3) != rng_bits(1, 3, 2));
    assert_true(rng_bits(1, 2, 3) != rng_bits(2, 1, 3));
}

/* Standard errors over n = 1e5 draws: mean 1/sqrt(n) = 0.0032, variance sqrt(2/n) = 0.0045; five of them. */
static void normal_has_mean_0_and_variance_1(void **state)
{
    (void)state;
    double sum = 0, squares = 0;
    const int n = 100000;
    for (int i = 0; i < n; i++) {
        const double x = rng_normal(42, 7, (uint64_t)i);
        sum += x;
        squares += x * x;
    }
    CHECK_NEAR(sum / n, 0.0, 0.016);
    CHECK_NEAR(squares / n, 1.0, 0.023);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_key_same_number),
        cmocka_unit_test(normal_has_mean_0_and_variance_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
