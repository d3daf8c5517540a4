/* test_tokenizer_golden.c - text to ids and back as the official `tokenizers` 0.23.2 does it, on real vocabularies. */
/* rooms: text base */
#include "test.h"
#include "base/buffer.h"
#include "base/file.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

typedef struct golden_case {
    buffer text, decoded;
    token_list ids, ids_nospecial;
} golden_case;

/* The lines hold \u0000 and lone surrogates' worth of odd text, which json.h refuses on purpose; their layout is fixed:
 * {"text": "...", "ids": [..], "ids_nospecial": [..], "decoded_skip_special": "..."}. */
static const char *expect(const char *at, const char *expected)
{
    const size_t n = strlen(expected);
    if (strncmp(at, expected, n) != 0) fail_msg("expected %s at %.40s", expected, at);
    return at + n;
}

static unsigned hex4(const char *at)
{
    unsigned code = 0;
    if (sscanf(at, "%4x", &code) != 1) fail_msg("bad \\u at %.10s", at);
    return code;
}

static const char *read_escape(buffer *out, const char *at)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = *at != '\0' ? strchr(names, *at) : NULL;
    if (name != NULL) {
        CHECK_OK(buffer_append(out, &values[name - names], 1));
        return at + 1;
    }
    uint32_t code = hex4(expect(at, "u"));
    at += 5;
    if (code >= 0xd800 && code < 0xdc00) {
        code = 0x10000 + ((code - 0xd800) << 10) + (hex4(expect(at, "\\u")) - 0xdc00);
        at += 6;
    }
    char utf8[UTF8_MAX];
    CHECK_OK(buffer_append(out, utf8, utf8_encode(utf8, code)));
    return at;
}

static const char *read_string(buffer *out, const char *at)
{
    buffer_clear(out);
    at = expect(at, "\"");
    while (*at != '"') {
        if (*at == '\0') fail_msg("a string without end");
        if (*at == '\\') {
            at = read_escape(out, at + 1);
        } else {
            CHECK_OK(buffer_append(out, at++, 1));
        }
    }
    return at + 1;
}

static const char *read_ids(token_list *out, const char *at)
{
    out->n = 0;
    at = expect(at, "[");
    while (*at != ']') {
        char *end;
        if (out->n == out->capacity) {
            out->capacity = 2 * out->capacity + 64;
            out->ids = realloc(out->ids, (size_t)out->capacity * sizeof *out->ids);
            assert_non_null(out->ids);
        }
        out->ids[out->n++] = (int32_t)strtol(at, &end, 10);
        assert_true(end != at);
        at = *end == ',' ? expect(end, ", ") : end;
    }
    return at + 1;
}

static const char *read_case(golden_case *c, const char *line)
{
    line = read_string(&c->text, expect(line, "{\"text\": "));
    line = read_ids(&c->ids, expect(line, ", \"ids\": "));
    line = read_ids(&c->ids_nospecial, expect(line, ", \"ids_nospecial\": "));
    line = read_string(&c->decoded, expect(line, ", \"decoded_skip_special\": "));
    return expect(line, "}\n");
}

/* True where they are the same; otherwise says where they differ. */
static bool same_ids(const token_list *got, const token_list *want, const buffer *text,
                     const char *what)
{
    int64_t i = 0;
    while (i < got->n && i < want->n && got->ids[i] == want->ids[i])
        i++;
    if (i == got->n && i == want->n) return true;
    print_error("%s of \"%.60s\": id %lld is %d, want %d (%lld ids, want %lld)\n", what,
                text->data != NULL ? text->data : "", (long long)i, i < got->n ? got->ids[i] : -1,
                i < want->n ? want->ids[i] : -1, (long long)got->n, (long long)want->n);
    return false;
}

static int check_case(const tokenizer *t, const golden_case *c)
{
    int wrong = 0;
    token_list ids = {0};
    buffer text = {0};
    CHECK_OK(tokenizer_encode(t, &ids, c->text.data, c->text.size, true));
    wrong += !same_ids(&ids, &c->ids, &c->text, "ids");
    CHECK_OK(tokenizer_decode(t, &text, ids.ids, ids.n, true));
    if (text.size != c->decoded.size ||
        (text.size > 0 && memcmp(text.data, c->decoded.data, text.size) != 0)) {
        print_error("decoded \"%s\", want \"%s\"\n", text.data, c->decoded.data);
        wrong++;
    }
    ids.n = 0;
    CHECK_OK(tokenizer_encode(t, &ids, c->text.data, c->text.size, false));
    wrong += !same_ids(&ids, &c->ids_nospecial, &c->text, "ids without special tokens");
    buffer_free(&text);
    token_list_free(&ids);
    return wrong;
}

static void check_golden(const char *tokenizer_name, const char *golden_name)
{
    const char *path = test_data(tokenizer_name);
    if (path == NULL) skip();
    tokenizer *t;
    CHECK_OK(tokenizer_load(&t, path));
    char *lines;
    size_t n;
    path = test_data(golden_name);
    assert_non_null(path);
    CHECK_OK(file_read(&lines, &n, path, 16 << 20));
    golden_case c = {{0}, {0}, {0}, {0}};
    int cases = 0, wrong = 0;
    for (const char *line = lines; *line != '\0'; cases++) {
        line = read_case(&c, line);
        wrong += check_case(t, &c);
    }
    buffer_free(&c.text);
    buffer_free(&c.decoded);
    token_list_free(&c.ids);
    token_list_free(&c.ids_nospecial);
    free(lines);
    tokenizer_free(t);
    if (cases < 475 || wrong > 0) fail_msg("%d differences in %d cases", wrong, cases);
}

static void gpt2(void **state)
{
    (void)state;
    check_golden("tokenizers/gpt-2.tokenizer.json", "tokenizer-golden/gpt-2.jsonl");
}

static void llama3(void **state)
{
    (void)state;
    check_golden("tokenizers/llama3.tokenizer.json", "tokenizer-golden/llama3.jsonl");
}

static void qwen2(void **state)
{
    (void)state;
    check_golden("tokenizers/qwen2.tokenizer.json", "tokenizer-golden/qwen2.jsonl");
}

static void llama2_legacy(void **state)
{
    (void)state;
    check_golden("tokenizers/llama-spm.tokenizer.json", "tokenizer-golden/llama-spm.jsonl");
}

static void llama2_metaspace(void **state)
{
    (void)state;
    check_golden("tokenizers/llama-spm-metaspace.tokenizer.json",
                 "tokenizer-golden/llama-spm-metaspace.jsonl");
}

static void stories260k(void **state)
{
    (void)state;
    check_golden("stories260k-hf", "tokenizer-golden/stories260k.jsonl");
}

/* The same vocabulary with merges written as pairs. */
static void stories260k_with_pair_merges(void **state)
{
    (void)state;
    check_golden("stories260k-hf-bf16-sharded", "tokenizer-golden/stories260k.jsonl");
}

static void folder_names_special_tokens(void **state)
{
    (void)state;
    const char *path = test_data("stories260k-hf");
    if (path == NULL) skip();
    tokenizer *t;
    CHECK_OK(tokenizer_load(&t, path));
    assert_int_equal(tokenizer_size(t), 512);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_pad(t), 2); /* null in the config: falls back to eos */
    assert_string_equal(tokenizer_eos_text(t), "</s>");
    tokenizer_free(t);
}

int main(void)
{
    if (test_data("tokenizer-golden/gpt-2.jsonl") == NULL) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2),
        cmocka_unit_test(llama3),
        cmocka_unit_test(qwen2),
        cmocka_unit_test(llama2_legacy),
        cmocka_unit_test(llama2_metaspace),
        cmocka_unit_test(stories260k),
        cmocka_unit_test(stories260k_with_pair_merges),
        cmocka_unit_test(folder_names_special_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
