/* test_numeric_stop.c - a run that went wrong says so, names step and rows, and leaves the last checkpoint. */
/* rooms: train */
/* backends: cpu plugin */
#include "plugin.h"
#include "program.h"
#include "cudpo/config.h"
#include "model/weights_file.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

static const char model[] = "tests/golden/models/llama", data[] = "tests/golden/data/train.jsonl";

/* Weights of 1e30: the first step that uses them has no finite loss.  The step before was saved. */
static void steps_too_large(void **state)
{
    (void)state;
    char folder[640], *newest = NULL;
    snprintf(folder, sizeof folder, "%s", scratch_path("large"));
    program_result r =
        RUN(79, "train", "--model_name_or_path", model, "--train_dataset", data, "--output_dir",
            folder, "--max_length", "64", "--max_steps", "4", "--learning_rate", "1e30",
            "--save_steps", "1", "--logging_steps", "1", "--per_device_train_batch_size", "4");
    assert_non_null(strstr(r.err, "train.jsonl: step 2: loss "));
    assert_non_null(strstr(r.err, "at rows "));
    program_free(&r);
    CHECK_OK(checkpoint_newest(&newest, folder));
    assert_non_null(newest);
    assert_non_null(strstr(newest, "checkpoint-1"));
    checkpoint_state s;
    CHECK_OK(checkpoint_read(&s, newest));
    assert_int_equal(s.step, 1);
    free(newest);
    /* What was logged before stays; nothing that looks like a result was written. */
    char path[1400], *text = NULL;
    size_t n;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(file_read(&text, &n, path, 1 << 20));
    assert_int_equal(strncmp(text, "{\"step\": 1,", 11), 0);
    assert_null(strstr(text, "\"step\": 2"));
    free(text);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_false(file_is_regular(path));
}

/* Nothing asks for a step's results, so on a device the next one is under way when a step's turn out to be wrong.  The rate of
 * the first step is 0 and the second makes weights of 1e30: of the third there is no finite loss. */
static void check_two_under_way(const char *output, const char *lazy)
{
    char folder[640], path[1400], *text = NULL;
    size_t n;
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    if (lazy != NULL) assert_int_equal(setenv("SIMT_LAZY", lazy, 1), 0);
    program_result r = RUN(79, "train", "--model_name_or_path", model, "--train_dataset", data,
                           "--output_dir", folder, "--max_length", "64", "--max_steps", "8",
                           "--learning_rate", "1e30", "--warmup_steps", "1", "--logging_steps",
                           "100", "--save_strategy", "no", "--per_device_train_batch_size", "2");
    assert_int_equal(unsetenv("SIMT_LAZY"), 0);
    has(r.err, "train.jsonl: step 3: loss ");
    has(r.err, "at rows ");
    assert_null(strstr(r.err, "holds the trained model"));
    program_free(&r);
    static const char *const results[] = {"model.safetensors", "config.json",  "checkpoint-1",
                                          "checkpoint-2",      "checkpoint-3", "checkpoint-4"};
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, results[i]);
        if (access(path, F_OK) == 0) fail_msg("there is %s", path);
    }
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(file_read(&text, &n, path, 1 << 20));
    assert_int_equal(n, 0);
    free(text);
}

static void two_steps_under_way(void **state)
{
    (void)state;
    check_two_under_way("two", NULL);
    if (!plugin_asked() || !plugin_emulated()) return;
    check_two_under_way("two-late", "1");
    check_two_under_way("two-ahead", "ahead");
}

static void open_run(cudpo_config *c, cudpo_trainer **t)
{
    CHECK_OK(cudpo_config_create(c));
    CHECK_OK(cudpo_config_set(c, "model_name_or_path", model));
    CHECK_OK(cudpo_config_set(c, "train_dataset", data));
    CHECK_OK(cudpo_config_set(c, "output_dir", scratch_folder()));
    CHECK_OK(cudpo_config_set(c, "max_length", "64"));
    CHECK_OK(cudpo_config_set(c, "max_steps", "3"));
    CHECK_OK(cudpo_config_set(c, "bf16", "false"));
    CHECK_OK(cudpo_trainer_open(t, c));
}

/* Values on the host, in new memory. */
static float *copy_of(const model_weights *w, tensor view)
{
    const int64_t n = tensor_elements(view);
    float *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    CHECK_OK(weights_download(w, view, 0, values, n));
    return values;
}

static bool holds(const example *e, int32_t token)
{
    for (int32_t i = 0; i < e->prompt_length; i++)
        if (e->prompt[i] == token) return true;
    for (int k = 0; k < e->completions; k++)
        for (int32_t i = 0; i < e->completion_length[k]; i++)
            if (e->completion[k][i] == token) return true;
    return false;
}

/* A NaN that one token brings in: exactly the rows that hold the token are named, and no weight moves. */
static void one_bad_embedding(void **state)
{
    (void)state;
    cudpo_config c;
    cudpo_trainer *t;
    step_batch b;
    batch_metrics m;
    open_run(&c, &t);
    CHECK_OK(trainer_batch(t, &b, t->order, NULL, 0));
    const example e = dataset_get(t->train.data, b.example[5]);
    const int32_t token = e.completion[0][0];
    char rows[256];
    size_t used = (size_t)snprintf(rows, sizeof rows, "at rows ");
    for (int64_t i = 0, named = 0; i < b.n; i++) {
        const example other = dataset_get(t->train.data, b.example[i]);
        if (!holds(&other, token)) continue;
        used += (size_t)snprintf(rows + used, sizeof rows - used, "%s%lld",
                                 named++ == 0 ? "" : ", ", (long long)other.row);
    }
    snprintf(rows + used, sizeof rows - used, ";");
    const float nan = NAN;
    CHECK_OK(weights_upload(&t->policy, t->policy.embed, (int64_t)token * t->policy.embed.cols,
                            &nan, 1));
    const int64_t n = tensor_elements(t->policy.all);
    float *before = copy_of(&t->policy, t->policy.all);
    CHECK_FAILS(trainer_step(t, &b, &m), CUDPO_ENUMERIC, "step 1");
    cudpo_error_clear();
    CHECK_FAILS(trainer_step(t, &b, &m), CUDPO_ENUMERIC, rows);
    float *after = copy_of(&t->policy, t->policy.all);
    assert_memory_equal(before, after, (size_t)n * sizeof *before);
    assert_int_equal(t->step, 0);
    free(after);
    free(before);
    cudpo_trainer_close(t);
    cudpo_config_free(&c);
}

static void bad_reference(void **state)
{
    (void)state;
    cudpo_config c;
    cudpo_trainer *t;
    step_batch b;
    batch_metrics m;
    open_run(&c, &t);
    /* The reference was the initial policy; now it is not, and the first step's self-check sees it. */
    const tensor head = t->reference.head;
    float *w = copy_of(&t->reference, head);
    for (int64_t i = 0; i < tensor_elements(head); i++)
        w[i] *= 1.01f;
    CHECK_OK(weights_upload(&t->reference, head, 0, w, tensor_elements(head)));
    free(w);
    CHECK_FAILS(trainer_step(t, &b, &m), CUDPO_ENUMERIC,
                "policy and reference are the same weights");
    assert_int_equal(t->step, 0);
    cudpo_trainer_close(t);
    cudpo_config_free(&c);
}

int main(void)
{
    if (plugin_asked() && plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_too_large),
        cmocka_unit_test(two_steps_under_way),
        cmocka_unit_test(one_bad_embedding),
        cmocka_unit_test(bad_reference),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
