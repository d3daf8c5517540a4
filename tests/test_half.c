/* test_half.c - the 16-bit floats: every pattern, and every rounding. */
/* rooms: model */
#include "test.h"
#include "model/half.h"

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* All 65,536 patterns go to float32 and come back: the values are exact there, NaN payloads included. */
static void sixteen_bits_survive_float32(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        assert_int_equal(bf16_from_float(float_from_bf16((uint16_t)i)), i);
        assert_int_equal(f16_from_float(float_from_f16((uint16_t)i)), i);
    }
}

/* value = (-1)^s 2^(e-15) (1 + f/1024), or 2^-14 f/1024 where e = 0. */
static void f16_values_follow_their_definition(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        const int e = (int)(i >> 10 & 31), f = (int)(i & 1023);
        if (e == 31) continue;
        const double magnitude = e == 0 ? ldexp(f, -24) : ldexp(1024 + f, e - 25);
        CHECK_NEAR((double)float_from_f16((uint16_t)i), (i >> 15 ? -1 : 1) * magnitude, 0);
    }
    CHECK_NEAR((double)float_from_bf16(0x4049), 3.140625, 0);
}

/* Between two neighbours a < b: the middle goes to the even one, and a hair beside it to the nearer one. */
static void ties_go_to_even(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 0x7bff; a++) {
        const double low = float_from_f16((uint16_t)a), high = float_from_f16((uint16_t)(a + 1));
        const float middle = (float)((low + high) / 2);
        assert_int_equal(f16_from_float(middle), a % 2 == 0 ? a : a + 1);
        assert_int_equal(f16_from_float(nextafterf(middle, 0.0f)), a);
        assert_int_equal(f16_from_float(nextafterf(middle, INFINITY)), a + 1);
        assert_int_equal(f16_from_float(-middle), 0x8000 | (a % 2 == 0 ? a : a + 1));
    }
    for (uint32_t a = 0; a < 0x7f7f; a++) { /* denormals included */
        const uint32_t middle = a << 16 | 0x8000;
        assert_int_equal(bf16_from_float(from_bits(middle)), a % 2 == 0 ? a : a + 1);
        assert_int_equal(bf16_from_float(from_bits(middle - 1)), a);
        assert_int_equal(bf16_from_float(from_bits(middle + 1)), a + 1);
    }
    assert_int_equal(f16_from_float(65519.99f), 0x7bff);
    assert_int_equal(f16_from_float(65520.0f), 0x7c00);
    assert_int_equal(f16_from_float(1e-45f), 0);
    assert_int_equal(bf16_from_float(from_bits(0x7f800001)),
                     0x7fc0); /* a NaN in the low bits alone */
    assert_int_equal(f16_from_float(from_bits(0xff800001)), 0xfe00);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bits_survive_float32),
        cmocka_unit_test(f16_values_follow_their_definition),
        cmocka_unit_test(ties_go_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
