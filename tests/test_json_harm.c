/* test_json_harm.c - no text does harm: cut, changed, random or large. */
/* rooms: base */
#include "test_json.h"
#include "base/buffer.h"
#include "base/json_scan.h"
#include "base/rng.h"

#include <time.h>

static const char sample[] =
    "{\"model_type\": \"llama\", \"x\": [0, -1.5e+10, true, false, null, \"\\u00e9\\ud83d\\ude00 "
    "\xc3\xa9\xf0\x9f\x98\x80\\n\\\"\\\\\"], \"y\": {\"a\": {\"b\": [[], {}, [{\"c\": \"\"}]]}, "
    "\"\": 1e-5}}";

/* Any verdict but a crash, and never an excuse of memory for what the two readers see differently. */
static bool harmless(const char *text, size_t n)
{
    json *j = NULL;
    cudpo_error_clear();
    const cudpo_status status = parse_bytes(&j, text, n);
    if (status != CUDPO_OK && status != CUDPO_EDATA)
        fail_msg("status %d: %s for %.*s", (int)status, cudpo_error_message(), (int)n, text);
    assert_true((j != NULL) == (status == CUDPO_OK));
    json_free(j);
    cudpo_error_clear();
    return status == CUDPO_OK;
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    assert_true(harmless(sample, sizeof sample - 1));
    for (size_t n = 0; n < sizeof sample - 1; n++)
        assert_false(harmless(sample, n));
}

static void every_byte_may_change(void **state)
{
    (void)state;
    char text[sizeof sample];
    int64_t accepted = 0, refused = 0;
    for (size_t at = 0; at < sizeof sample - 1; at++) {
        for (int c = 0; c < 256; c++) {
            memcpy(text, sample, sizeof sample);
            text[at] = (char)c;
            if (harmless(text, sizeof sample - 1)) {
                accepted++;
            } else {
                refused++;
            }
        }
    }
    assert_true(accepted > 1000 && refused > 1000);
}

static void random_mixtures_of_tokens(void **state)
{
    (void)state;
    static const char *const token[] = {
        "[",       "]", "{",  "}",    ",",     ":",    "\"a\"", "\"",       "\\", "1",
        "-",       ".", "e",  "null", "tr",    "true", "\xc3",  "\xa9",     " ",  "\\ud83d",
        "\\ude00", "0", "\n", "\x01", "\"b\"", "1e30", "[1]",   "{\"a\":1}"};
    int64_t accepted = 0;
    for (uint64_t trial = 0; trial < 20000; trial++) {
        char text[400] = "";
        size_t n = 0;
        const int64_t count = 1 + rng_below(trial, 0, 0, 12);
        for (int64_t i = 0; i < count; i++) {
            const char *t = token[rng_below(trial, 1, (uint64_t)i, sizeof token / sizeof token[0])];
            memcpy(text + n, t, strlen(t));
            n += strlen(t);
        }
        accepted += harmless(text, n);
    }
    assert_true(accepted > 100);
}

/* ---- speed: a tokenizer's vocabulary is one object ---- */

static void large_objects_take_no_time(void **state)
{
    (void)state;
    enum { KEYS = 150000 };
    buffer b = {0};
    CHECK_OK(buffer_append(&b, "{", 1));
    for (int i = 0; i < KEYS; i++)
        CHECK_OK(buffer_printf(&b, "%s\"token %d\":%d", i == 0 ? "" : ",", i, i));
    CHECK_OK(buffer_append(&b, "}", 1));
    json *j = NULL;
    const clock_t start = clock();
    CHECK_OK(json_parse(&j, b.data, b.size, "large"));
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    assert_int_equal(json_count(j), KEYS);
    json_free(j);
    buffer_free(&b);
    printf("%d keys in %.3f s\n", KEYS, seconds);
#if defined(__has_feature)
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer) || !defined(__OPTIMIZE__)
    const double limit = 3.0;
#else
    const double limit = 0.3;
#endif
    assert_true(seconds < limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_byte_may_change),
        cmocka_unit_test(random_mixtures_of_tokens),
        cmocka_unit_test(large_objects_take_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
