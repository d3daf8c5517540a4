/* test_tokenizer.c - merges by hand, and tokenizer.json files that are broken, lying or hostile. */
/* rooms: text base */
#include "scratch.h"
#include "base/rng.h"
#include "text/tokenizer.h"

/* Ids 0..6: a b c ab abc Ġ <eos>.  "abc" is a b c -> ab c -> abc; "ba" has no merge. */
#define MODEL                                                                                     \
    "{\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": " \
    "null, \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, "         \
    "\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 4, \"\xc4\xa0\": 5}, "         \
    "\"merges\": [\"a b\", \"ab c\"]}"
#define ADDED                                                                          \
    "[{\"id\": 6, \"content\": \"<eos>\", \"single_word\": false, \"lstrip\": false, " \
    "\"rstrip\": false, \"normalized\": false, \"special\": true}]"
#define BYTE_LEVEL                                                                                 \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\"" \
    ": false}"

static char *file_text(const char *added, const char *pre, const char *model)
{
    buffer b = {0};
    CHECK_OK(buffer_printf(&b,
                           "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, "
                           "\"added_tokens\": %s, \"normalizer\": null, \"pre_tokenizer\": %s, "
                           "\"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\"}, "
                           "\"model\": %s}",
                           added, pre, model));
    return b.data;
}

static cudpo_status load(tokenizer **t, const char *text, size_t n)
{
    *t = NULL;
    return tokenizer_load(t, scratch_write("tokenizer.json", text, n));
}

static void encodes(const tokenizer *t, const char *text, const int32_t *want, int64_t n)
{
    token_list ids = {0};
    CHECK_OK(tokenizer_encode(t, &ids, text, strlen(text), true));
    if (ids.n != n || (n > 0 && memcmp(ids.ids, want, (size_t)n * sizeof *want) != 0))
        fail_msg("\"%s\" has other ids", text);
    buffer back = {0};
    CHECK_OK(buffer_append(&back, "", 0));
    CHECK_OK(tokenizer_decode(t, &back, ids.ids, ids.n, false));
    assert_string_equal(back.data, text);
    buffer_free(&back);
    token_list_free(&ids);
}
#define ENCODES(t, text, ...)                        \
    encodes(t, text, (const int32_t[]){__VA_ARGS__}, \
            (int64_t)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

static void merges_by_hand(void **state)
{
    (void)state;
    tokenizer *t;
    char *text = file_text(ADDED, BYTE_LEVEL, MODEL);
    CHECK_OK(load(&t, text, strlen(text)));
    ENCODES(t, "abc", 4);
    ENCODES(t, "ab", 3);
    ENCODES(t, "ba", 1, 0);
    ENCODES(t, "aab", 0, 3);
    ENCODES(t, "abab", 3, 3);
    ENCODES(t, "bc", 1, 2); /* b c is no merge: abc comes only through ab */
    ENCODES(t, "abcabc a", 4, 4, 5, 0);
    ENCODES(t, "ab<eos>c", 3, 6, 2);
    ENCODES(t, "<eos><eos>", 6, 6);
    encodes(t, "", NULL, 0);
    assert_int_equal(tokenizer_size(t), 7);
    token_list ids = {0};
    CHECK_FAILS(tokenizer_encode(t, &ids, "a\xff", 2, true), CUDPO_EDATA, "");
    assert_int_equal(ids.n, 0);
    /* Ids that nobody has, and those of other models, add nothing to a text. */
    buffer back = {0};
    const int32_t odd[] = {3, 99, -1, INT32_MAX, 2};
    CHECK_OK(tokenizer_decode(t, &back, odd, 5, false));
    assert_string_equal(back.data, "abc");
    buffer_free(&back);
    token_list_free(&ids);
    tokenizer_free(t);
    free(text);
}

static void refuses(const char *added, const char *pre, const char *model, const char *message)
{
    tokenizer *t;
    char *text = file_text(added, pre, model);
    CHECK_FAILS(load(&t, text, strlen(text)), CUDPO_EDATA, message);
    CHECK_FAILS(load(&t, text, strlen(text)), CUDPO_EDATA, "tokenizer.json");
    assert_null(t);
    free(text);
}

#define BPE(vocab, merges)                                                              \
    "{\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"fuse_unk\": false, " \
    "\"byte_fallback\": false, \"vocab\": " vocab ", \"merges\": " merges "}"

static void refuses_what_makes_no_sense(void **state)
{
    (void)state;
    refuses("[]", "null", "{\"type\": \"Unigram\", \"vocab\": []}", "Unigram");
    refuses("[]", "null", "{\"type\": \"WordPiece\", \"vocab\": {}}", "WordPiece");
    refuses("[]", "null", "{}", "model");
    refuses("[]", "null", "[]", "model");
    refuses("[]", "null", BPE("[]", "[]"), "vocab");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": \"1\"}", "[]"), "vocab");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": -1}", "[]"), "the id of");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 0.5}", "[]"), "vocab");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 99999999999}", "[]"), "the id of");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 1}", "[\"a b\"]"), "merge");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 1}", "[\"a x\"]"), "merge");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 1}", "[\"ab\"]"), "merge");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 1}", "[3]"), "merge");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 1}", "[[\"a\"]]"), "merge");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 1}", "{}"), "merges");
    refuses("{}", "null", MODEL, "added_tokens");
    refuses("[{\"id\": 6}]", "null", MODEL, "added_tokens");
    refuses("[{\"id\": -6, \"content\": \"x\", \"special\": true}]", "null", MODEL, "");
    refuses("[]", "{\"type\": \"BertPreTokenizer\"}", MODEL, "BertPreTokenizer");
    refuses("[]", "null", BPE("{\"a\": 0, \"b\": 0}", "[]"), "have the same id 0");
    refuses("[]",
            "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\","
            " \"invert\": false}",
            MODEL, "");
    refuses("[]", "{\"type\": 3}", MODEL, "pre_tokenizer");
    refuses("[]", "{\"type\": \"Sequence\", \"pretokenizers\": 3}", MODEL, "");
    tokenizer *t;
    CHECK_FAILS(tokenizer_load(&t, scratch_path("absent")), CUDPO_ENOINPUT, "absent");
    CHECK_FAILS(load(&t, "", 0), CUDPO_EDATA, "tokenizer.json");
    CHECK_FAILS(load(&t, "[]", 2), CUDPO_EDATA, "tokenizer.json");
    CHECK_FAILS(load(&t, "{}", 2), CUDPO_EDATA, "tokenizer.json");
}

/* Every prefix of a file: a clear refusal, never a crash. */
static void truncated(void **state)
{
    (void)state;
    tokenizer *t;
    char *text = file_text(ADDED, BYTE_LEVEL, MODEL);
    const size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        CHECK_FAILS(load(&t, text, i), CUDPO_EDATA, "tokenizer.json");
    free(text);
}

/* Seeded changes of a sound file: whatever still loads encodes and decodes; all else is refused by name. */
static void mutated(void **state)
{
    (void)state;
    enum { TRIES = 3000, SEED = 17 };
    char *sound = file_text(ADDED, BYTE_LEVEL, MODEL);
    const size_t n = strlen(sound);
    char *text = malloc(n + 1);
    int loaded = 0;
    assert_non_null(text);
    for (uint64_t i = 0; i < TRIES; i++) {
        memcpy(text, sound, n + 1);
        size_t length = n;
        for (uint64_t k = 0; k <= rng_bits(SEED, i, 0) % 3; k++) {
            const size_t at = rng_bits(SEED, i, 3 * k + 1) % length;
            const uint64_t what = rng_bits(SEED, i, 3 * k + 2), byte = rng_bits(SEED, i, 3 * k + 3);
            static const char meaningful[] = "{}[]\",:0123456789-.eE\\utfnab ";
            if (what % 3 == 0) {
                text[at] = (char)(byte & 255);
            } else if (what % 3 == 1) {
                text[at] = meaningful[byte % (sizeof meaningful - 1)];
            } else {
                memmove(text + at, text + at + 1, length - at);
                length--;
            }
        }
        tokenizer *t;
        cudpo_error_clear();
        if (load(&t, text, length) != CUDPO_OK) {
            assert_non_null(strstr(cudpo_error_message(), "tokenizer.json"));
            continue;
        }
        token_list ids = {0};
        buffer back = {0};
        if (tokenizer_encode(t, &ids, "abc ab<eos> c", 13, true) == CUDPO_OK)
            CHECK_OK(tokenizer_decode(t, &back, ids.ids, ids.n, true));
        buffer_free(&back);
        token_list_free(&ids);
        tokenizer_free(t);
        loaded++;
    }
    cudpo_error_clear();
    printf("%d of %d changed files still load\n", loaded, TRIES);
    assert_true(loaded > 0 && loaded < TRIES);
    free(text);
    free(sound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_by_hand),
        cmocka_unit_test(refuses_what_makes_no_sense),
        cmocka_unit_test(truncated),
        cmocka_unit_test(mutated),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
