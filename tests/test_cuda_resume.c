/* test_cuda_resume.c - a run on the CUDA backend that goes on elsewhere: on the other device, with more memory, with less. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"
#include "random_model.h"

/* Four steps with a checkpoint after each second, with settings that NULL ends. */
static program_result train(const char *output, const char *device, const char *const *settings)
{
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train",
                                                    "--model_name_or_path",
                                                    "tests/golden/models/llama3",
                                                    "--train_dataset",
                                                    "tests/golden/data/train.jsonl",
                                                    "--device",
                                                    device,
                                                    "--output_dir",
                                                    folder,
                                                    "--resume_from_checkpoint",
                                                    "true",
                                                    "--max_length",
                                                    "48",
                                                    "--max_steps",
                                                    "4",
                                                    "--save_steps",
                                                    "2",
                                                    "--logging_steps",
                                                    "1",
                                                    "--learning_rate",
                                                    "1e-3",
                                                    "--per_device_train_batch_size",
                                                    "2"};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    while (*settings != NULL)
        arguments[n++] = *settings++;
    return program_run(arguments);
}
#define TRAIN(output, device, ...) train(output, device, (const char *const[]){__VA_ARGS__, NULL})

static void done(program_result r)
{
    if (r.status != 0) fail_msg("status %d: %s", r.status, r.err);
    program_free(&r);
}

/* With a device's own defaults: bfloat16 on a GPU, float32 on the CPU.  Where the type was asked for, it must stay, and so it
 * must on the same device. */
static void on_the_other_device(void **state)
{
    (void)state;
    static const char *const devices[] = {"cuda", "cpu"};
    for (int i = 0; i < 2; i++) {
        const char *const first = devices[i], *const second = devices[1 - i];
        done(TRAIN(first, first, NULL));
        program_cut_back(first, 2, 4);
        program_result r = TRAIN(first, second, NULL);
        has(r.err, "was made in another type");
        has(r.err, i == 0 ? "goes on in float32" : "goes on in bfloat16");
        has(r.err, "going on from");
        assert_null(strstr(r.err, "step 2/4"));
        has(r.err, "step 4/4");
        done(r);
    }
    static const char *const types[] = {"true", "false"};
    for (int i = 0; i < 2; i++) {
        done(TRAIN("asked", "cuda", "--bf16", types[i], "--overwrite_output_dir", "true"));
        program_cut_back("asked", 2, 4);
        program_result r =
            i == 0 ? TRAIN("asked", "cuda", "--bf16", "false") : TRAIN("asked", "cuda", NULL);
        assert_int_equal(r.status, 78);
        has(r.err, "was made with other values of: bf16, master_weights, gradient_dtype;");
        program_free(&r);
        done(TRAIN("asked", "cuda", "--bf16", types[i]));
    }
}

/* Weights that bfloat16 rounds are the same weights on a device that computes in it: of the policy, with master weights and
 * without, and of a reference of its own. */
static void float32_on_the_other_device(void **state)
{
    (void)state;
    if (getenv("CUDPO_TEST_PART") != NULL) return;
    char exact[640], rounded[640];
    model_shape s = random_model_small;
    random_model_make("rounded", &s, 1);
    s.type = "float32";
    random_model_make("exact", &s, 2);
    snprintf(exact, sizeof exact, "%s", scratch_path("exact"));
    snprintf(rounded, sizeof rounded, "%s", scratch_path("rounded"));
    const char *const settings[][5] = {
        {"--model_name_or_path", exact},
        {"--model_name_or_path", exact, "--master_weights", "false"},
        {"--model_name_or_path", rounded, "--ref_model_name_or_path", exact},
    };
    static const char *const devices[] = {"cuda", "cpu"};
    for (int i = 0; i < 6; i++) {
        char output[24];
        snprintf(output, sizeof output, "moved-%d", i);
        done(train(output, devices[i % 2], settings[i / 2]));
        program_cut_back(output, 2, 4);
        program_result r = train(output, devices[1 - i % 2], settings[i / 2]);
        has(r.err, "was made in another type");
        has(r.err, "going on from");
        done(r);
    }
}

#define LARGE                                                                                     \
    "--per_device_train_batch_size", "24", "--bf16", "false", "--max_steps", "2", "--save_steps", \
        "1"

/* A run on the emulated GPU with that much memory, which has to get through. */
static void train_in(const char *memory, const char *output, const char *precompute)
{
    assert_int_equal(setenv("SIMT_MEMORY", memory, 1), 0);
    done(TRAIN(output, "cuda", LARGE, "--precompute_ref_log_probs", precompute));
    assert_int_equal(unsetenv("SIMT_MEMORY"), 0);
}

/* Packs as large as fit are others with other memory, and their sums are, too: a run keeps to those that it began with. */
static void with_other_memory(void **state)
{
    (void)state;
    if (!plugin_emulated() || getenv("CUDPO_TEST_PART") != NULL) return;
    static const char little[] = "38000000", more[] = "64000000";
    train_in(little, "little", "false");
    train_in(little, "moved", "false");
    program_cut_back("moved", 1, 2);
    train_in(more, "moved", "false");
    program_same_file("little", "moved", "model.safetensors");
    train_in(more, "more", "false");
    program_cut_back("more", 1, 2);
    assert_int_equal(setenv("SIMT_MEMORY", little, 1), 0);
    program_result r = TRAIN("more", "cuda", LARGE);
    has(r.err, "because less memory is free");
    done(r);
    assert_int_equal(unsetenv("SIMT_MEMORY"), 0);
}

/* The reference's scores, too, are computed in such packs, where the machine that a run goes on on has none in its cache. */
static void scores_with_other_memory(void **state)
{
    (void)state;
    if (!plugin_emulated() || getenv("CUDPO_TEST_PART") != NULL) return;
    static const char little[] = "37500000", more[] = "64000000";
    char here[640], there[640];
    snprintf(here, sizeof here, "%s", getenv("CUDPO_CACHE"));
    snprintf(there, sizeof there, "%s", scratch_path("cache-there"));
    assert_int_equal(setenv("SIMT_FASTEST", "2", 1), 0);
    train_in(little, "scored", "true");
    train_in(little, "scored-moved", "true");
    program_cut_back("scored-moved", 1, 2);
    assert_int_equal(setenv("CUDPO_CACHE", there, 1), 0);
    train_in(more, "scored-moved", "true");
    program_same_file("scored", "scored-moved", "model.safetensors");
    CHECK_OK(file_remove_folder(there));
    train_in(more, "scored-more", "true"); /* or the size of packs would decide nothing */
    assert_false(program_equal_weights("scored", "scored-more"));
    assert_int_equal(setenv("CUDPO_CACHE", here, 1), 0);
    assert_int_equal(unsetenv("SIMT_FASTEST"), 0);
}

/* Limits of packs that other settings of evaluation move, and that no step comes to. */
static void with_another_evaluation(void **state)
{
    (void)state;
    static const char rows[] = "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \" c\"}\n"
                               "{\"prompt\": \"d\", \"chosen\": \" e f\", \"rejected\": \" g\"}\n";
    static const char warning[] = "that of a run without a break";
    char little[640];
    snprintf(little, sizeof little, "%s", scratch_text("little.jsonl", rows));
    /* Room for eight groups, then for the two of a step; then for one, which is longer than any that is trained on. */
    done(TRAIN("unbroken", "cuda", "--bf16", "false"));
    done(TRAIN("eight", "cuda", "--bf16", "false"));
    program_cut_back("eight", 2, 4);
    program_result r =
        TRAIN("eight", "cuda", "--bf16", "false", "--per_device_eval_batch_size", "1");
    has(r.err, "going on from");
    assert_null(strstr(r.err, warning));
    done(r);
    program_same_file("unbroken", "eight", "model.safetensors");
#define ONE                                                                             \
    "--bf16", "false", "--train_dataset", little, "--per_device_train_batch_size", "1", \
        "--per_device_eval_batch_size", "1"
    done(TRAIN("one", "cuda", ONE));
    program_cut_back("one", 2, 4);
    r = TRAIN("one", "cuda", ONE, "--eval_dataset", "tests/golden/data/eval.jsonl",
              "--eval_strategy", "steps");
    has(r.err, "going on from");
    assert_null(strstr(r.err, warning));
    done(r);
    /* Packs of scores are filled whatever a step is. */
    done(TRAIN("filled", "cuda", "--bf16", "false", "--precompute_ref_log_probs", "true"));
    program_cut_back("filled", 2, 4);
    r = TRAIN("filled", "cuda", "--bf16", "false", "--precompute_ref_log_probs", "true",
              "--per_device_eval_batch_size", "1");
    has(r.err, warning);
    assert_null(strstr(r.err, "memory"));
    done(r);
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_other_device),     cmocka_unit_test(float32_on_the_other_device),
        cmocka_unit_test(with_other_memory),       cmocka_unit_test(scores_with_other_memory),
        cmocka_unit_test(with_another_evaluation),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
