/* test_json.c - what json.h promises to accept and to refuse. */
/* rooms: base */
#include "test_json.h"
#include "base/buffer.h"
#include "base/json.h"
#include "base/json_scan.h"
#include "base/rng.h"

static void accepts(const char *text)
{
    json *j = NULL;
    const cudpo_status status = parse_bytes(&j, text, strlen(text));
    if (status != CUDPO_OK) fail_msg("%s: refused: %s", text, cudpo_error_message());
    assert_non_null(j);
    json_free(j);
}

static void refuses_bytes(const char *text, size_t n, const char *reason)
{
    json *j = NULL;
    cudpo_error_clear();
    const cudpo_status status = parse_bytes(&j, text, n);
    if (status != CUDPO_EDATA) fail_msg("%s: status %d", text, (int)status);
    assert_null(j);
    if (strncmp(cudpo_error_message(), "t.json: ", 8) != 0 ||
        strstr(cudpo_error_message(), reason) == NULL)
        fail_msg("%s: message is \"%s\", without \"%s\"", text, cudpo_error_message(), reason);
    cudpo_error_clear();
}

static void refuses(const char *text, const char *reason)
{
    refuses_bytes(text, strlen(text), reason);
}

static void what_is_json_is_accepted(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "10",
        "0.5",
        "1e5",
        "1E+5",
        "1.5e-5",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "\t\r\n{ }\n",
        "[1,2]",
        "{\"a\":1}",
        "{\"\":1}",
        "\"\\/\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"",
        "\"\\ud83d\\ude00\"",
        "\"\xf0\x9f\x98\x80\"",
        "\"\x7f\"",
        "\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\"",
        "{\"a\":{\"a\":1},\"b\":{\"a\":1}}",
        "{\"a\":1,\"A\":2}",
        "1.7976931348623157e308",
        "[4.9e-324,1e-400]",
        "\xef\xbb\xbf[1]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        accepts(texts[i]);
}

static void what_is_not_json_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "nul",
                                        "nulll",
                                        "True",
                                        "01",
                                        "-",
                                        "-01",
                                        "+1",
                                        ".5",
                                        "1.",
                                        "1.e5",
                                        "1e",
                                        "1e+",
                                        "0x1",
                                        "1_0",
                                        "NaN",
                                        "Infinity",
                                        "-Infinity",
                                        "nan",
                                        "inf",
                                        "'a'",
                                        "a",
                                        "[",
                                        "]",
                                        "[1",
                                        "[1,",
                                        "[1,]",
                                        "[,1]",
                                        "[1 2]",
                                        "[1,,2]",
                                        "{",
                                        "}",
                                        "{\"a\"",
                                        "{\"a\":",
                                        "{\"a\":1",
                                        "{\"a\":1,",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "{1:1}",
                                        "{\"a\" 1}",
                                        "{\"a\"::1}",
                                        "{\"a\":1 \"b\":2}",
                                        "[1}",
                                        "{\"a\":1]",
                                        "\"",
                                        "\"a",
                                        "\"\\\"",
                                        "\"\\x41\"",
                                        "\"\\a\"",
                                        "\"\\u\"",
                                        "\"\\u004\"",
                                        "\"\\u004g\"",
                                        "\"\\U0041\"",
                                        "1 2",
                                        "[] []",
                                        "{} x",
                                        "[1]//x",
                                        "/*x*/1",
                                        "#",
                                        "\f1",
                                        "\v1",
                                        "[1]\f",
                                        "\xc2\xa0[1]",
                                        "\xef\xbb\xbf",
                                        "\xef\xbb\xbf\xef\xbb\xbf[1]",
                                        "[1\xef\xbb\xbf]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        refuses(texts[i], "not valid JSON at byte ");
}

static void the_place_is_named(void **state)
{
    (void)state;
    refuses("[1, x]", "at byte 4: expected a value");
    refuses("\xef\xbb\xbf[1, x]", "at byte 7: expected a value");
    refuses("{\"a\" 1}", "at byte 5: expected ':'");
    refuses("[1 2]", "at byte 3: expected ',' or the closing bracket");
    refuses("[1] 2", "at byte 4: text after the value");
    refuses("[1, ", "at byte 4: unexpected end");
}

static void control_characters_are_refused(void **state)
{
    (void)state;
    for (int c = 0; c < 0x20; c++) {
        const char in_string[3] = {'"', (char)c, '"'},
                   in_key[6] = {'{', '"', (char)c, '"', ':', '1'};
        refuses_bytes(in_string, sizeof in_string, "control character");
        refuses_bytes(in_key, sizeof in_key, "control character");
        if (strchr("\t\r\n", c) != NULL && c != 0) continue;
        const char outside[3] = {'[', (char)c, ']'};
        refuses_bytes(outside, sizeof outside, "expected a value");
    }
    refuses_bytes("[1]\0", 4, "text after the value");
    refuses_bytes("[1,\0]", 5, "expected a value");
}

/* A string would end at it, and a file's name or a key would be another than it seems. */
static void nul_is_refused(void **state)
{
    (void)state;
    refuses("\"\\u0000\"", "\\u0000");
    refuses("\"a\\u0000b\"", "\\u0000");
    refuses("{\"a\\u0000\":1}", "\\u0000");
}

static void surrogates_come_in_pairs(void **state)
{
    (void)state;
    static const char *const lone[] = {
        "\"\\ud800\"",        "\"\\udbff\"",       "\"\\udc00\"",        "\"\\udfff\"",
        "\"\\ud800a\"",       "\"\\ud800\\n\"",    "\"\\ud800\\u0041\"", "\"\\ud800\\ud800\"",
        "\"\\udc00\\ud800\"", "\"\\ud83d\\ude0\"", "\"\\ud83d\\\"",      "\"\\ud83d\\u\"",
        "\"\\uD800\\uE000\"", "{\"\\ud800\":1}",   "\"\\ud83d\\udfgg\"", "\"\\uDFFFx\""};
    for (size_t i = 0; i < sizeof lone / sizeof lone[0]; i++)
        refuses(lone[i], "lone surrogate");
}

static void only_utf8_is_accepted(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xc2\x41",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xe1\x80",
                                      "\xe1\x80\x41",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xf8\x88\x80\x80",
                                      "\xff",
                                      "\xfe",
                                      "\xf1\x80\x80",
                                      "\xf1\x80\x80\x41",
                                      "\xf1\x41\x80\x80",
                                      "\xc2\xc2"};
    char text[32];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(utf8_length(bad[i], strlen(bad[i])), 0);
        snprintf(text, sizeof text, "\"%s\"", bad[i]);
        refuses(text, "invalid UTF-8");
        snprintf(text, sizeof text, "{\"%s\":1}", bad[i]);
        refuses(text, "invalid UTF-8");
        snprintf(text, sizeof text, "\"%s", bad[i]); /* cut off within the character */
        refuses(text, "invalid UTF-8");
    }
}

/* A key that stands twice means one thing to this reader and another to the next. */
static void keys_stand_once(void **state)
{
    (void)state;
    refuses("{\"a\":1,\"a\":1}", "key \"a\" stands twice");
    refuses("{\"a\":1,\"b\":2,\"\\u0061\":3}", "stands twice");
    refuses("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", "stands twice");
    refuses("{\"/\":1,\"\\/\":2}", "stands twice");
    refuses("{\"\":1,\"\":2}", "stands twice");
    refuses("[[{\"x\":[{\"a\":1,\"b\":{},\"a\":[]}]}]]", "stands twice");
    accepts("{\"a\":1,\"\\u0041\":2,\"aa\":3}");
}

static void nest(buffer *b, int depth, const char *open, const char *close)
{
    for (int i = 0; i < depth; i++)
        CHECK_OK(buffer_append(b, open, strlen(open)));
    CHECK_OK(buffer_append(b, "1", 1));
    for (int i = 0; i < depth; i++)
        CHECK_OK(buffer_append(b, close, strlen(close)));
}

static void depth_is_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *open, *close;
    } kinds[] = {{"[", "]"}, {"{\"a\":", "}"}, {"[{\"b\":[", "]}]"}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const int per = i == 2 ? 3 : 1;
        buffer b = {0};
        nest(&b, JSON_MAX_DEPTH / per, kinds[i].open, kinds[i].close);
        accepts(b.data);
        buffer_clear(&b);
        nest(&b, JSON_MAX_DEPTH / per + 1, kinds[i].open, kinds[i].close);
        refuses(b.data, "nested too deeply");
        buffer_clear(&b);
        nest(&b, 200000, kinds[i].open, ""); /* no stack is deep enough for this */
        refuses(b.data, "nested too deeply");
        buffer_free(&b);
    }
}

static double number_of(const char *text)
{
    json *j = NULL;
    CHECK_OK(parse_bytes(&j, text, strlen(text)));
    assert_int_equal(json_type(j), JSON_NUMBER);
    const double value = json_number(j);
    json_free(j);
    return value;
}

static void numbers_keep_their_value(void **state)
{
    (void)state;
    assert_true(number_of("0.1") == 0.1);
    assert_true(number_of("-2.5e-3") == -2.5e-3);
    assert_true(number_of("1.7976931348623157e308") == 1.7976931348623157e308);
    assert_true(number_of("4.9406564584124654e-324") == 4.9406564584124654e-324);
    assert_true(number_of("1e-400") == 0.0);
    assert_true(number_of("9007199254740993") == 9007199254740992.0);
    assert_true(signbit(number_of("-0")) != 0);
    refuses("1e309", "too large for a double");
    refuses("[-1e999999]", "too large for a double");
    refuses("{\"a\":[1.8e308]}", "too large for a double");
    /* 63 characters are read, and one more is not cut off in silence. */
    char text[80] = "1.";
    memset(text + 2, '5', 61);
    text[63] = '\0';
    assert_true(number_of(text) == 1.5555555555555556);
    text[63] = '5';
    text[64] = '\0';
    refuses(text, "too many digits");
    char many[5000];
    memset(many, '7', sizeof many);
    refuses_bytes(many, sizeof many, "too many digits");
}

static bool integer_of(const char *text, int64_t *out)
{
    json *j = NULL;
    CHECK_OK(parse_bytes(&j, text, strlen(text)));
    *out = 42;
    const bool is = json_integer(j, out);
    json_free(j);
    return is;
}

static void integers_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0},
                {"-0", 0},
                {"7", 7},
                {"-7", -7},
                {"1.0", 1},
                {"1e3", 1000},
                {"9007199254740991", 9007199254740991},
                {"-9007199254740991", -9007199254740991}};
    static const char *const bad[] = {"0.5",
                                      "1e-3",
                                      "9007199254740992",
                                      "9007199254740993",
                                      "1e300",
                                      "-1e30",
                                      "-9007199254740993",
                                      "true",
                                      "\"1\"",
                                      "null",
                                      "[1]",
                                      "{}",
                                      "18446744073709551616"};
    int64_t value = 0;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(integer_of(good[i].text, &value));
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (integer_of(bad[i], &value)) fail_msg("%s is taken as %lld", bad[i], (long long)value);
        assert_int_equal(value, 42); /* only then *out is set */
    }
}

static void a_tree_is_walked_in_order(void **state)
{
    (void)state;
    json *j = NULL;
    static const char text[] =
        "{\"b\":[1,true,null,\"\\u00e9\\ud83d\\ude00\\n\"],\"a\":{\"\":false}}";
    CHECK_OK(parse_bytes(&j, text, strlen(text)));
    assert_int_equal(json_count(j), 2);
    const json *b = json_first(j);
    assert_string_equal(json_key(b), "b");
    assert_ptr_equal(json_get(j, "b"), b);
    assert_null(json_get(j, "B"));
    assert_null(json_get(j, "c"));
    static const json_kind kinds[] = {JSON_NUMBER, JSON_BOOL, JSON_NULL, JSON_STRING};
    int n = 0;
    for (const json *v = json_first(b); v != NULL; v = json_next(v))
        assert_int_equal(json_type(v), kinds[n++]);
    assert_int_equal(n, 4);
    assert_string_equal(json_string(json_next(json_next(json_next(json_first(b))))),
                        "\xc3\xa9\xf0\x9f\x98\x80\n");
    const json *a = json_next(b);
    assert_string_equal(json_key(a), "a");
    assert_null(json_next(a));
    assert_string_equal(json_key(json_first(a)), "");
    assert_false(json_bool(json_first(a)));
    assert_string_equal(json_kind_name(json_type(a)), "an object");
    json_free(j);
    json_free(NULL);
}

static void files_are_read(void **state)
{
    (void)state;
    json *j = NULL;
    char path[] = "/tmp/cudpo-json-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "wb");
    assert_non_null(f);
    assert_true(fputs("{\"a\": 1}\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    CHECK_OK(json_load(&j, path, 100));
    assert_int_equal(json_count(j), 1);
    json_free(j);
    CHECK_FAILS(json_load(&j, path, 8), CUDPO_EDATA, "9 bytes; at most 8");
    assert_null(j);
    assert_int_equal(remove(path), 0);
    CHECK_FAILS(json_load(&j, path, 100), CUDPO_ENOINPUT, path);
    CHECK_FAILS(json_load(&j, "/tmp", 100), CUDPO_EDATA, "not a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_json_is_accepted),
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(the_place_is_named),
        cmocka_unit_test(control_characters_are_refused),
        cmocka_unit_test(nul_is_refused),
        cmocka_unit_test(surrogates_come_in_pairs),
        cmocka_unit_test(only_utf8_is_accepted),
        cmocka_unit_test(keys_stand_once),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(numbers_keep_their_value),
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(a_tree_is_walked_in_order),
        cmocka_unit_test(files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
