/* test_cuda_offload.c - `cudpo train --device cuda --ref_model_offload true`: a reference whose layers are streamed from the
 * host's memory gives the bits of a resident one, and is what a run takes where that one does not fit. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"
#include "random_model.h"

/* With $CUDPO_TEST_PART fewer runs: for builds that are slow. */
static bool part(void)
{
    return getenv("CUDPO_TEST_PART") != NULL;
}

/* A model of `layers` random layers, like the golden one of two. */
static void make_model(const char *name, int layers, uint64_t seed)
{
    model_shape s = random_model_small;
    s.layers = layers;
    random_model_make(name, &s, seed);
}

/* Two steps of some packs, with settings that NULL ends. */
static program_result train(const char *output, const char *model, const char *loss,
                            const char *const *settings)
{
    char folder[640], weights[640];
    const bool kto = strcmp(loss, "kto") == 0;
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    snprintf(weights, sizeof weights, "%s", scratch_path(model));
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train",
                                                    "--device",
                                                    "cuda",
                                                    "--model_name_or_path",
                                                    weights,
                                                    "--train_dataset",
                                                    kto ? "tests/golden/data/kto.jsonl"
                                                        : "tests/golden/data/train.jsonl",
                                                    "--loss_type",
                                                    loss,
                                                    "--output_dir",
                                                    folder,
                                                    "--overwrite_output_dir",
                                                    "true",
                                                    "--max_length",
                                                    "48",
                                                    "--max_steps",
                                                    "2",
                                                    "--save_strategy",
                                                    "no",
                                                    "--per_device_train_batch_size",
                                                    "2",
                                                    "--gradient_accumulation_steps",
                                                    "2",
                                                    "--learning_rate",
                                                    "1e-3"};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    while (*settings != NULL)
        arguments[n++] = *settings++;
    return program_run(arguments);
}
#define TRAIN(output, model, loss, ...) \
    train(output, model, loss, (const char *const[]){__VA_ARGS__, NULL})

static void expect(program_result r, int status)
{
    if (r.status != status) fail_msg("status %d, not %d: %s", r.status, status, r.err);
    program_free(&r);
}

/* As it comes, and with the copies as late and as early as the events of the two streams allow. */
static void check_bits(const char *model, const char *loss, const char *type, const char *reference)
{
    static const char *const modes[] = {NULL, "1", "ahead"};
    const char *key = reference != NULL ? "--ref_model_name_or_path" : NULL;
    char other[640];
    snprintf(other, sizeof other, "%s", scratch_path(reference != NULL ? reference : "none"));
    expect(
        TRAIN("resident", model, loss, "--bf16", type, "--ref_model_offload", "false", key, other),
        0);
    for (int i = 0; i < (plugin_emulated() ? 3 : 1); i++) {
        const char *const mode = modes[i] != NULL ? modes[i] : "unset";
        if (modes[i] != NULL) assert_int_equal(setenv("SIMT_LAZY", mode, 1), 0);
        program_result r = TRAIN("streamed", model, loss, "--bf16", type, "--ref_model_offload",
                                 "true", key, other);
        assert_int_equal(unsetenv("SIMT_LAZY"), 0);
        if (r.status != 0 || !program_equal_weights("resident", "streamed"))
            fail_msg("%s, %s, bf16 %s, SIMT_LAZY %s: status %d, or other weights: %s", model, loss,
                     type, mode, r.status, r.err);
        program_free(&r);
    }
}

/* The circle of layers closes at an odd and at an even number of them, and where there is one. */
static void same_bits_as_resident(void **state)
{
    (void)state;
    make_model("three", 3, 1);
    make_model("four", 4, 2);
    make_model("one", 1, 3);
    check_bits("three", "sigmoid", "false", NULL);
    if (part()) return;
    check_bits("four", "kto", "false", NULL);
    check_bits("three", "kto", "true", NULL);
    check_bits("one", "sigmoid", "false", NULL);
}

/* Which comes to the host through the policy's memory. */
static void reference_of_its_own(void **state)
{
    (void)state;
    if (part()) return;
    make_model("other", 3, 4);
    check_bits("three", "sigmoid", "false", "other");
    expect(TRAIN("itself", "three", "sigmoid", "--bf16", "false"), 0);
    assert_false(program_equal_weights("itself", "resident")); /* or it was not read */
}

/* Does the run fit?  One that does not is refused before its first step. */
static bool fits(size_t memory, const char *offload)
{
    char number[32];
    snprintf(number, sizeof number, "%zu", memory);
    assert_int_equal(setenv("SIMT_MEMORY", number, 1), 0);
    program_result r = TRAIN("fitted", "six", "sigmoid", "--bf16", "false", "--ref_model_offload",
                             offload, "--max_tokens_per_pack", "96", "--max_steps", "1");
    assert_int_equal(unsetenv("SIMT_MEMORY"), 0);
    const bool yes = r.status == 0;
    if (!yes) {
        assert_int_equal(r.status, 71);
        has(r.err, "this run needs");
        has(r.err, strcmp(offload, "false") == 0 ? ", reference 0.00" : "streamed reference 0.00");
        if (strcmp(offload, "false") == 0)
            has(r.err, "--ref_model_offload true --precompute_ref_log_probs true");
        else
            assert_null(strstr(r.err, "--ref_model_offload"));
    }
    program_free(&r);
    return yes;
}

/* The least memory, within `step`, in which a run fits. */
static size_t least_memory(const char *offload, size_t step)
{
    size_t low = (size_t)34 << 20, high = (size_t)40 << 20; /* the backend alone takes 32 MiB */
    assert_true(!fits(low, offload) && fits(high, offload));
    while (high - low > step) {
        const size_t middle = low + (high - low) / 2;
        if (fits(middle, offload))
            high = middle;
        else
            low = middle;
    }
    return high;
}

/* Between what the two need, a run that says nothing streams, and says so; where the resident one fits, it is resident. */
static void streams_where_that_is_what_fits(void **state)
{
    (void)state;
    if (!plugin_emulated() || part()) return;
    enum { STEP = 16 << 10 };
    static const char said[] = "ref_model_offload: 0.00 GB of reference do not fit";
    make_model("six", 6, 5);
    const size_t whole = least_memory("false", STEP), streamed = least_memory("true", STEP);
    /* Four of six layers of 32 wide, 64 ffn, 4 heads of 16, 2 kv heads, in float32. */
    const size_t layer = sizeof(float) * (32 * 128 + 32 * 64 + 3 * 32 * 64 + 2 * 32);
    printf("resident fits in %zu bytes, streamed in %zu, a layer takes %zu\n", whole, streamed,
           layer);
    assert_true(whole - streamed < 4 * layer + STEP && whole - streamed > 4 * layer - 2 * STEP);
    char number[32];
    snprintf(number, sizeof number, "%zu", whole - 2 * STEP);
    assert_int_equal(setenv("SIMT_MEMORY", number, 1), 0);
    program_result r =
        TRAIN("chosen", "six", "sigmoid", "--bf16", "false", "--max_tokens_per_pack", "96");
    has(r.err, said);
    expect(r, 0);
    assert_int_equal(unsetenv("SIMT_MEMORY"), 0);
    r = TRAIN("roomy", "six", "sigmoid", "--bf16", "false", "--max_tokens_per_pack", "96");
    assert_null(strstr(r.err, said));
    expect(r, 0);
    assert_true(program_equal_weights("chosen", "roomy"));
}

/* A GPU's setting that the CPU follows too. */
static void on_the_cpu(void **state)
{
    (void)state;
    expect(TRAIN("cpu", "three", "kto", "--device", "cpu"), 0);
    expect(TRAIN("cpu-streamed", "three", "kto", "--device", "cpu", "--ref_model_offload", "true"),
           0);
    assert_true(program_equal_weights("cpu", "cpu-streamed"));
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_as_resident),
        cmocka_unit_test(reference_of_its_own),
        cmocka_unit_test(streams_where_that_is_what_fits),
        cmocka_unit_test(on_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
