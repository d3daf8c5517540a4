/* test_cuda_resume.c - a run on the CUDA backend that goes on elsewhere: on the other device, with more memory, with less. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"

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

/* As if the run had been killed before its last step. */
static void cut_back(const char *output, const char *last)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/%s", scratch_path(output), last);
    CHECK_OK(file_remove_folder(path));
    snprintf(path, sizeof path, "%s/model.safetensors", scratch_path(output));
    assert_int_equal(unlink(path), 0);
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
        cut_back(first, "checkpoint-4");
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
        cut_back("asked", "checkpoint-4");
        program_result r =
            i == 0 ? TRAIN("asked", "cuda", "--bf16", "false") : TRAIN("asked", "cuda", NULL);
        assert_int_equal(r.status, 78);
        has(r.err, "was made with other values of: bf16, master_weights, gradient_dtype;");
        program_free(&r);
        done(TRAIN("asked", "cuda", "--bf16", types[i]));
    }
}

/* Packs as large as fit are others with other memory, and their sums are, too: a run keeps to those that it began with. */
static void with_other_memory(void **state)
{
    (void)state;
    if (!plugin_emulated() || getenv("CUDPO_TEST_PART") != NULL) return;
#define LARGE                                                                                     \
    "--per_device_train_batch_size", "24", "--bf16", "false", "--max_steps", "2", "--save_steps", \
        "1"
    static const char little[] = "38000000", more[] = "64000000";
    assert_int_equal(setenv("SIMT_MEMORY", little, 1), 0);
    done(TRAIN("little", "cuda", LARGE));
    done(TRAIN("moved", "cuda", LARGE));
    cut_back("moved", "checkpoint-2");
    assert_int_equal(setenv("SIMT_MEMORY", more, 1), 0);
    done(TRAIN("moved", "cuda", LARGE));
    program_same_file("little", "moved", "model.safetensors");
    done(TRAIN("more", "cuda", LARGE));
    cut_back("more", "checkpoint-2");
    assert_int_equal(setenv("SIMT_MEMORY", little, 1), 0);
    program_result r = TRAIN("more", "cuda", LARGE);
    has(r.err, "because less memory is free");
    done(r);
    assert_int_equal(unsetenv("SIMT_MEMORY"), 0);
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_other_device),
        cmocka_unit_test(with_other_memory),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
