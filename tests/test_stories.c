/* test_stories.c - the whole job on a real model and real preferences: stories260K, dpo_en.standard.jsonl. */
/* rooms: base text */
#include "program.h"
#include "base/json.h"
#include "text/unicode.h"

static char model[4096], pairs[4096];

/* The loss of each logging step, from ln 2 on. */
static void check_metrics(const char *output)
{
    char path[700], *text = NULL, *next = NULL;
    size_t n;
    int lines = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", output);
    CHECK_OK(file_read(&text, &n, path, 1 << 24));
    for (char *line = strtok_r(text, "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next)) {
        json *tree = NULL;
        CHECK_OK(json_parse(&tree, line, strlen(line), path));
        const double loss = json_number(json_get(tree, "loss"));
        if (lines == 0) CHECK_NEAR(loss, log(2.0), 1e-5);
        assert_true(loss > 0.0 && loss < 2.0);
        assert_true(json_number(json_get(tree, "step")) == ++lines);
        json_free(tree);
    }
    assert_int_equal(lines, 12); /* one epoch of 89 pairs in eights */
    free(text);
}

static void trains_and_generates(void **state)
{
    (void)state;
    char output[640];
    size_t bad;
    snprintf(output, sizeof output, "%s", scratch_path("aligned"));
    program_result r = RUN(0, "train", "--model_name_or_path", model, "--train_dataset", pairs,
                           "--output_dir", output, "--max_length", "512", "--num_train_epochs", "1",
                           "--learning_rate", "1e-5", "--logging_steps", "1");
    assert_non_null(strstr(r.err, "25 rows left out")); /* their prompts alone reach max_length */
    program_free(&r);
    check_metrics(output);
    r = RUN(0, "generate", "--model_name_or_path", output, "--prompt", "Once upon a time",
            "--max_new_tokens", "60");
    assert_true(strlen(r.out) > 60);
    assert_true(utf8_valid(r.out, strlen(r.out), &bad));
    assert_non_null(strstr(r.out, " a ")); /* words, as the model knows them */
    program_free(&r);
    /* What was trained is another model: its rewards on what it learned are not those of the start. */
    r = RUN(0, "eval", "--model_name_or_path", output, "--ref_model_name_or_path", model,
            "--eval_dataset", pairs, "--max_length", "512");
    json *tree = NULL;
    CHECK_OK(json_parse(&tree, r.out, strlen(r.out), "eval"));
    assert_true(json_number(json_get(tree, "eval_loss")) < log(2.0));
    assert_true(json_number(json_get(tree, "eval_rewards/margins")) > 0.0);
    json_free(tree);
    program_free(&r);
}

int main(void)
{
    const char *path = test_data("stories260k-hf/config.json");
    if (path == NULL) return TEST_SKIPPED;
    snprintf(model, sizeof model, "%s", path);
    *strrchr(model, '/') = '\0';
    snprintf(pairs, sizeof pairs, "%s", test_data("preference/dpo_en.standard.jsonl"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(trains_and_generates)};
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
