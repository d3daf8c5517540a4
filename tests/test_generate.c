/* test_generate.c - the choice of tokens by hand, greedy continuations of a real model, samples that batches don't change. */
/* rooms: train */
#include "test.h"
#include "base/json.h"
#include "cudpo/score.h"
#include "text/tokenizer.h"
#include "train/sample.h"

enum { V = 4 };

/* Probabilities 0.4, 0.1, 0.3, 0.2. */
static const float logits[V] = {-0.91629073f, -2.30258509f, -1.20397280f, -1.60943791f};

static int32_t choose(double temperature, int64_t top_k, double top_p, double u)
{
    const sample_settings s = {temperature, top_k, top_p};
    int32_t token = -1, order[V];
    CHECK_OK(sample_token(&token, order, logits, V, &s, u));
    return token;
}

static void samples_by_hand(void **state)
{
    (void)state;
    assert_int_equal(choose(0.0, 0, 1.0, 0.99), 0);
    /* In the order of ids: 0 up to 0.4, 1 up to 0.5, 2 up to 0.8, 3. */
    assert_int_equal(choose(1.0, 0, 1.0, 0.0), 0);
    assert_int_equal(choose(1.0, 0, 1.0, 0.39), 0);
    assert_int_equal(choose(1.0, 0, 1.0, 0.41), 1);
    assert_int_equal(choose(1.0, 0, 1.0, 0.51), 2);
    assert_int_equal(choose(1.0, 0, 1.0, 0.81), 3);
    assert_int_equal(choose(1.0, 0, 1.0, 0.9999999), 3);
    /* The two likeliest, 0.4 and 0.3 of 0.7, likeliest first. */
    assert_int_equal(choose(1.0, 2, 1.0, 0.56), 0);
    assert_int_equal(choose(1.0, 2, 1.0, 0.58), 2);
    assert_int_equal(choose(1.0, 1, 1.0, 0.99), 0);
    /* 0.4 + 0.3 do not hold 0.75, and 0.2 more do: of 0.9 that is 0.444, 0.778, 1. */
    assert_int_equal(choose(1.0, 0, 0.75, 0.44), 0);
    assert_int_equal(choose(1.0, 0, 0.75, 0.45), 2);
    assert_int_equal(choose(1.0, 0, 0.75, 0.77), 2);
    assert_int_equal(choose(1.0, 0, 0.75, 0.79), 3);
    /* Of the three that top_k leaves, 4/9 and 3/9 hold 0.7. */
    assert_int_equal(choose(1.0, 3, 0.7, 0.99), 2);
    /* Temperature 1/2 squares: 0.16, 0.01, 0.09, 0.04 of 0.3. */
    assert_int_equal(choose(0.5, 0, 1.0, 0.53), 0);
    assert_int_equal(choose(0.5, 0, 1.0, 0.54), 1);
    assert_int_equal(choose(0.5, 0, 1.0, 0.57), 2);
    const float bad[2] = {0.0f, NAN};
    const sample_settings s = {1.0, 0, 1.0};
    int32_t token, order[2];
    CHECK_FAILS(sample_token(&token, order, bad, 2, &s, 0.5), CUDPO_ENUMERIC, "logit 1 is NaN");
}

/* How often each token comes out of 4,000 evenly spread draws is its probability. */
static void shares_are_probabilities(void **state)
{
    (void)state;
    enum { DRAWS = 4000 };
    int count[V] = {0};
    for (int i = 0; i < DRAWS; i++)
        count[choose(1.0, 0, 1.0, (i + 0.5) / DRAWS)]++;
    for (int i = 0; i < V; i++)
        CHECK_NEAR(count[i] / (double)DRAWS, exp((double)logits[i]), 1.0 / DRAWS);
}

static char *decode(const tokenizer *t, const json *list, int64_t skip, int64_t *n)
{
    int32_t ids[256];
    buffer text = {0};
    *n = 0;
    for (const json *v = json_first(list); v != NULL && *n < 256; v = json_next(v))
        ids[(*n)++] = (int32_t)json_number(v);
    CHECK_OK(buffer_append(&text, "", 0));
    CHECK_OK(tokenizer_decode(t, &text, ids + skip, *n - skip, true));
    return text.data;
}

/* dpo-golden/greedy.json: 64 tokens in all, computed with torch from the real stories260K. */
static void greedy_as_torch(void **state)
{
    (void)state;
    static const char *const prompts[] = {"empty", "zoo"};
    char model[4096];
    json *golden = NULL;
    tokenizer *t = NULL;
    const char *path = test_data("dpo-golden/greedy.json");
    if (path == NULL) skip();
    CHECK_OK(json_load(&golden, path, 1 << 20));
    snprintf(model, sizeof model, "%s", test_data("stories260k-hf/config.json"));
    *strrchr(model, '/') = '\0';
    CHECK_OK(tokenizer_load(&t, model));
    for (int i = 0; i < 2; i++) {
        const json *g = json_get(golden, prompts[i]);
        int64_t given, all;
        char *prompt = decode(t, json_get(g, "prompt_ids"), 0, &given);
        char *want = decode(t, json_get(g, "greedy_64"), given, &all);
        const char *const list[] = {prompt};
        const cudpo_generate_options o = {.model_name_or_path = model,
                                          .prompts = list,
                                          .prompt_count = 1,
                                          .max_new_tokens = all - given,
                                          .top_p = 1.0};
        char **texts = NULL;
        CHECK_OK(cudpo_generate(&texts, &o));
        assert_true(strlen(want) > 100);
        assert_string_equal(texts[0], want);
        free(texts[0]);
        free(texts);
        free(want);
        free(prompt);
    }
    tokenizer_free(t);
    json_free(golden);
}

/* One text of each prompt, however many are decoded together. */
static void batches_change_nothing(void **state)
{
    (void)state;
    static const char *const prompts[] = {"Human: Why?", "a", "The sky is blue, and so is", "x y",
                                          "Once"};
    static const char *const models[] = {"tests/golden/models/llama", "tests/golden/models/mistral",
                                         "tests/golden/models/qwen3"};
    for (int m = 0; m < 3; m++) {
        char **want = NULL;
        cudpo_generate_options o = {.model_name_or_path = models[m],
                                    .prompts = prompts,
                                    .prompt_count = 5,
                                    .max_new_tokens = 40,
                                    .temperature = 0.8,
                                    .top_k = 40,
                                    .top_p = 0.95,
                                    .seed = 3};
        CHECK_OK(cudpo_generate(&want, &o));
        assert_true(strlen(want[0]) > 0 && strcmp(want[0], want[1]) != 0);
        for (o.batch_size = 1; o.batch_size <= 3; o.batch_size++) {
            char **got = NULL;
            CHECK_OK(cudpo_generate(&got, &o));
            for (int i = 0; i < 5; i++) {
                assert_string_equal(got[i], want[i]);
                free(got[i]);
            }
            free(got);
        }
        for (int i = 0; i < 5; i++)
            free(want[i]);
        free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_by_hand),
        cmocka_unit_test(shares_are_probabilities),
        cmocka_unit_test(batches_change_nothing),
        cmocka_unit_test(greedy_as_torch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
