/* test_buffer.c - growing text, and numbers and strings as JSON. */
/* rooms: base */
#include "test.h"
#include "base/buffer.h"
#include "base/json.h"
#include "base/rng.h"

#include <locale.h>
#include <time.h>

static void it_grows_and_stays_terminated(void **state)
{
    (void)state;
    buffer b = {0};
    CHECK_OK(buffer_append(&b, "", 0));
    assert_int_equal(b.size, 0);
    assert_string_equal(b.data, "");
    for (int i = 0; i < 10000; i++) {
        CHECK_OK(buffer_append(&b, "abc", 3));
        assert_true(b.size == 3 * (size_t)(i + 1) && b.data[b.size] == '\0');
        assert_true(b.capacity > b.size);
    }
    for (int i = 0; i < 10000; i++)
        assert_memory_equal(b.data + 3 * i, "abc", 3);
    const char *before = b.data;
    buffer_clear(&b);
    assert_true(b.size == 0 && b.data == before && b.data[0] == '\0');
    CHECK_OK(buffer_append(&b, "a\0b", 3)); /* any bytes */
    assert_memory_equal(b.data, "a\0b", 4);
    buffer_free(&b);
    assert_true(b.data == NULL && b.size == 0 && b.capacity == 0);
    buffer_free(&b);
    buffer_clear(&b);
}

static void printf_of_any_length(void **state)
{
    (void)state;
    buffer b = {0};
    for (int n = 0; n < 200; n++) { /* over the first capacities, by every offset */
        buffer_clear(&b);
        CHECK_OK(buffer_printf(&b, "%*s", n, ""));
        CHECK_OK(buffer_printf(&b, "%d:%s", n, "end"));
        assert_int_equal(strlen(b.data), b.size);
        assert_string_equal(b.data + b.size - 3, "end");
    }
    buffer_free(&b);
}

static void what_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    buffer b = {0};
    CHECK_OK(buffer_append(&b, "kept", 4));
    CHECK_FAILS(buffer_reserve(&b, SIZE_MAX), CUDPO_ENOMEM, "bytes");
    CHECK_FAILS(buffer_reserve(&b, SIZE_MAX - 4), CUDPO_ENOMEM, "bytes");
    CHECK_FAILS(buffer_reserve(&b, PTRDIFF_MAX - 4), CUDPO_ENOMEM, "bytes");
    assert_string_equal(b.data, "kept");
    assert_int_equal(b.size, 4);
    buffer_free(&b);
}

/* Every byte, and every pair of a special one with its neighbours, reads back as it was. */
static void strings_read_back(void **state)
{
    (void)state;
    buffer b = {0};
    CHECK_OK(buffer_json_string(&b, "a\"\\\n\t\x01/\x7f\xc3\xa9", 10));
    assert_string_equal(b.data, "\"a\\\"\\\\\\n\\u0009\\u0001/\x7f\xc3\xa9\"");
    buffer_clear(&b);
    CHECK_OK(buffer_json_string(&b, "", 0));
    assert_string_equal(b.data, "\"\"");
    for (uint64_t trial = 0; trial < 2000; trial++) {
        char text[40];
        const int64_t n = rng_below(trial, 0, 0, 39);
        for (int64_t i = 0; i < n; i++) {
            static const char some[] = "\x01\x1f\"\\\n\r\t ab/\x7f";
            text[i] = some[rng_below(trial, 1, (uint64_t)i, sizeof some - 1)];
        }
        text[n] = '\0';
        buffer_clear(&b);
        CHECK_OK(buffer_json_string(&b, text, (size_t)n));
        json *j = NULL;
        CHECK_OK(json_parse(&j, b.data, b.size, "string"));
        assert_string_equal(json_string(j), text);
        json_free(j);
    }
    buffer_free(&b);
}

static void check_number(buffer *b, double value, const char *want)
{
    buffer_clear(b);
    CHECK_OK(buffer_json_number(b, value));
    assert_string_equal(b->data, want);
}

static void numbers_are_short(void **state)
{
    (void)state;
    buffer b = {0};
    check_number(&b, 0.0, "0");
    check_number(&b, -0.0, "-0");
    check_number(&b, 1.0, "1");
    check_number(&b, -12345.0, "-12345");
    check_number(&b, 999999999999999.0, "999999999999999");
    check_number(&b, 1e15, "1e+15");
    check_number(&b, 9007199254740993.0, "9007199254740992");
    check_number(&b, 1e300, "1e+300");
    check_number(&b, 0.1, "0.1");
    check_number(&b, 1e-6, "1e-06");
    check_number(&b, 0.1 + 0.2, "0.30000000000000004");
    check_number(&b, 1.0 / 3.0, "0.3333333333333333");
    check_number(&b, 4.9406564584124654e-324, "4.94065645841247e-324");
    check_number(&b, 1.7976931348623157e308, "1.7976931348623157e+308");
    check_number(&b, (double)NAN, "null");
    check_number(&b, (double)INFINITY, "null");
    check_number(&b, -(double)INFINITY, "null");
    buffer_free(&b);
}

/* Any bits of a double: what is printed reads back as them, and is the shortest of the three precisions. */
static void numbers_read_back(void **state)
{
    (void)state;
    buffer b = {0};
    int64_t finite = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        const uint64_t bits = rng_bits(3, 0, i);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (i % 4 == 1) value = (double)(int64_t)(bits >> 12);
        if (i % 4 == 2) value = (double)(float)rng_normal(4, 0, i);
        if (i % 4 == 3) value = (double)(int64_t)(bits >> 50) / 64.0;
        if (!isfinite(value)) continue;
        finite++;
        buffer_clear(&b);
        CHECK_OK(buffer_json_number(&b, value));
        json *j = NULL;
        CHECK_OK(json_parse(&j, b.data, b.size, "number"));
        const double back = json_number(j);
        json_free(j);
        if (memcmp(&back, &value, sizeof value) != 0) fail_msg("%.17g reads %.17g", value, back);
        char want[40];
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(want, sizeof want, "%.*g", digits, value);
            if (strtod(want, NULL) == value) break;
        }
        assert_string_equal(b.data, want);
    }
    assert_true(finite > 15000);
    buffer_free(&b);
}

static void locales_do_not_matter(void **state)
{
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8"};
    bool any = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (setlocale(LC_NUMERIC, names[i]) == NULL) continue;
        any = true;
        buffer b = {0};
        check_number(&b, -1.5, "-1.5");
        check_number(&b, 2.5e-300, "2.5e-300");
        check_number(&b, 1e300, "1e+300");
        buffer_free(&b);
    }
    setlocale(LC_NUMERIC, "C");
    if (!any) skip();
}

static void numbers_take_no_time(void **state)
{
    (void)state;
    enum { N = 100000 };
    buffer b = {0};
    const clock_t start = clock();
    for (uint64_t i = 0; i < N; i++) {
        CHECK_OK(buffer_json_number(&b, i % 2 == 0 ? rng_normal(5, 0, i) : (double)i));
        CHECK_OK(buffer_append(&b, ",", 1));
    }
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("%d numbers in %.3f s\n", N, seconds);
    assert_true(seconds <
                2.0); /* 20 us each would be far too slow, and still pass a busy machine */
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_grows_and_stays_terminated),
        cmocka_unit_test(printf_of_any_length),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(strings_read_back),
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(numbers_read_back),
        cmocka_unit_test(locales_do_not_matter),
        cmocka_unit_test(numbers_take_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
