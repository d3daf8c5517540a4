/* test_cuda_faults.c - `cudpo train --device cuda` when memory is short, a call fails, or the device is lost: one line with
 * cause and remedy, the right exit status, and the last checkpoint holds. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"
#include "train/checkpoint.h"

static const char model[] = "tests/golden/models/llama3", data[] = "tests/golden/data/train.jsonl";

/* Two steps on the emulated GPU, of which a run may have done the first; `name` and `value` are set in its environment, and
 * `more` are settings of its own, ended by NULL, or NULL. */
static program_result train(const char *output, const char *name, const char *value,
                            const char *const *more)
{
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train", "--model_name_or_path",
                                                    model,   "--train_dataset",
                                                    data,    "--device",
                                                    "cuda",  "--bf16",
                                                    "false", "--max_length",
                                                    "32",    "--per_device_train_batch_size",
                                                    "1",     "--save_steps",
                                                    "1",     "--max_steps",
                                                    "2",     "--logging_steps",
                                                    "1",     "--resume_from_checkpoint",
                                                    "true",  "--output_dir",
                                                    folder};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    while (more != NULL && *more != NULL)
        arguments[n++] = *more++;
    if (name != NULL) assert_int_equal(setenv(name, value, 1), 0);
    const program_result r = program_run(arguments);
    if (name != NULL) assert_int_equal(unsetenv(name), 0);
    return r;
}
#define SETTINGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The last line on standard error, which is the only one of ours. */
static const char *message(const program_result *r)
{
    const char *line = strstr(r->err, "cudpo: ");
    if (line == NULL || strchr(line, '\n') == NULL || strchr(line, '\n')[1] != '\0')
        fail_msg("not one line at the end: %s", r->err);
    return line;
}

/* The newest checkpoint of the run is whole. */
static void check_checkpoint(const char *output)
{
    char *newest = NULL;
    checkpoint_state s;
    CHECK_OK(checkpoint_newest(&newest, scratch_path(output)));
    assert_non_null(newest);
    CHECK_OK(checkpoint_read(&s, newest));
    assert_true(s.step >= 1);
    free(newest);
}

/* A run that was stopped after its first step. */
static void first_step(const char *output)
{
    program_result r = train(output, NULL, NULL, NULL);
    if (r.status != 0) fail_msg("status %d: %s", r.status, r.err);
    program_free(&r);
    program_cut_back(output, 1, 2);
}

/* No algorithm of a product is known: all are timed again. */
static void forget_products(const char *output)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/gemm.txt", scratch_path(output));
    assert_true(unlink(path) == 0 || errno == ENOENT);
    CHECK_OK(file_remove_folder(scratch_path("cache")));
}

/* The message names the call, behind file and line, or the line in kernels/ that launches the kernel.  Without a device
 * there is no call to blame. */
static void check_named(const program_result *r)
{
    char call[64], named[80];
    const char *asked = strstr(r->err, "SIMT: call "), *line = message(r);
    assert_int_equal(sscanf(asked, "SIMT: call %*d, %63[^,]", call), 1);
    const bool kernel = strncmp(call, "cuda", 4) != 0 && strncmp(call, "cublas", 6) != 0;
    snprintf(named, sizeof named, ": %s", call);
    if (strstr(line, kernel ? "kernels/" : named) != NULL) return;
    if (strcmp(call, "cudaGetDeviceCount") != 0 || strstr(line, "use --device cpu") == NULL)
        fail_msg("%s is not named: %s", call, line);
}

/* Of a run whose reference is streamed, which makes calls of every kind, the N-th call of the CUDA runtime, of cuBLASLt or of
 * a kernel fails, for every N with $CUDPO_EVERY_CALL, else for some: the run ends with a message that names the call or the
 * kernel's line, as a failure of the device or of memory.  Or it ends as if nothing had been: it was closing, or had another
 * way (the first algorithm of a product is the fastest here, so that to take it untimed changes nothing). */
static void every_call_fails_once(void **state)
{
    (void)state;
    const bool every = getenv("CUDPO_EVERY_CALL") != NULL, part = getenv("CUDPO_TEST_PART") != NULL;
    int runs = 0, unharmed = 0;
    bool reached = true;
    assert_int_equal(setenv("SIMT_FASTEST", "1", 1), 0);
    forget_products("whole");
    first_step("whole");
    program_result r = train("whole", NULL, NULL, SETTINGS("--ref_model_offload", "true"));
    assert_int_equal(r.status, 0);
    program_free(&r);
    first_step("calls");
    for (long n = 1; reached; n += every ? 1 : part ? 1 + n : 1 + n / 5, runs++) {
        char number[32];
        snprintf(number, sizeof number, "%ld", n);
        forget_products("calls");
        r = train("calls", "SIMT_FAIL", number, SETTINGS("--ref_model_offload", "true"));
        reached = strstr(r.err, "fails as SIMT_FAIL asks") != NULL;
        if (r.status == 0) {
            unharmed += reached;
            program_same_file("calls", "whole", "model.safetensors");
        } else {
            if (r.status != 69 && r.status != 71)
                fail_msg("call %ld: status %d: %s", n, r.status, r.err);
            check_named(&r);
        }
        check_checkpoint("calls");
        program_cut_back("calls", 1, 2);
        program_free(&r);
        assert_true(runs < 100000);
    }
    assert_int_equal(unsetenv("SIMT_FASTEST"), 0);
    printf("%d runs, %d of them unharmed\n", runs, unharmed);
    assert_true(runs >= (part ? 8 : 20));
}

/* The device is lost at a kernel: found when somebody waits; with CUDPO_SYNC the op itself says so. */
static void lost_device(void **state)
{
    (void)state;
    static const char *const kernels[] = {"1", "7", "40", "90"};
    first_step("lost");
    for (int i = 0; i < 4; i++) {
        program_result r = train("lost", "SIMT_FAULT", kernels[i], NULL);
        assert_int_equal(r.status, 69);
        has(message(&r), "unspecified launch failure");
        has(message(&r), "CUDPO_SYNC=1 names it");
        program_free(&r);
        assert_int_equal(setenv("CUDPO_SYNC", "1", 1), 0);
        r = train("lost", "SIMT_FAULT", kernels[i], NULL);
        assert_int_equal(unsetenv("CUDPO_SYNC"), 0);
        assert_int_equal(r.status, 69);
        has(message(&r), "kernels/");
        program_free(&r);
        check_checkpoint("lost");
    }
}

/* Too little memory: said before the first step, part by part, with the settings that would make it fit.  Where nobody asks
 * for a size of packs, they are made smaller instead. */
static void too_little_memory(void **state)
{
    (void)state;
    program_result r = train("small", "SIMT_MEMORY", "1000000", NULL);
    assert_int_equal(r.status, 71);
    has(message(&r), "out of memory");
    program_free(&r);
    /* 64 GiB, of which another process holds all but what the backend itself takes and 122 kB; then all but 0.5 MB. */
    r = train("small", "SIMT_FILLED", "68685800000", NULL);
    assert_int_equal(r.status, 71);
    has(message(&r), "others hold the rest (nvidia-smi)");
    program_free(&r);
    r = train("small", "SIMT_FILLED", "68719000000", NULL);
    assert_int_equal(r.status, 71);
    has(message(&r), "nvidia-smi shows which processes hold the rest");
    program_free(&r);
    r = train("small", "SIMT_MEMORY", "38000000",
              SETTINGS("--per_device_train_batch_size", "32", "--max_tokens_per_pack", "4000"));
    assert_int_equal(r.status, 71);
    const char *line = message(&r);
    has(line, "this run needs");
    has(line, "weights 0.00, reference 0.00, gradients 0.00, moments 0.00, packs");
    has(line, "--max_tokens_per_pack");
    has(line, "--precompute_ref_log_probs true");
    has(line, "--bf16 true");
    assert_null(strstr(r.err, "step 1"));
    program_free(&r);
    r = train("small", "SIMT_MEMORY", "38000000", SETTINGS("--per_device_train_batch_size", "32"));
    if (r.status != 0) fail_msg("status %d: %s", r.status, r.err);
    program_free(&r);
}

int main(void)
{
    if (!plugin_emulated()) {
        printf("skipped: these faults are the emulator's\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_little_memory),
        cmocka_unit_test(lost_device),
        cmocka_unit_test(every_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
