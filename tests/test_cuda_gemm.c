/* test_cuda_gemm.c - algorithms of products are timed, and differ in their bits: a run goes on with those that it took, on a
 * machine that knows none of them too. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"

static const char model[] = "tests/golden/models/llama3", data[] = "tests/golden/data/train.jsonl";

typedef struct how {
    const char *from; /* what it goes on from; NULL: nothing */
    bool precompute;  /* the reference's scores, before all else */
    bool replace;     /* another run, with another learning rate, is in its output_dir */
} how;

/* A run of some steps with a checkpoint at each, with its own folder of caches, where on the emulated GPU the algorithm of
 * that number is always the fastest. */
static program_result run(const char *output, const char *cache, const char *fastest, how h)
{
    char folder[640], before[640];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    snprintf(before, sizeof before, "%s", getenv("CUDPO_CACHE"));
    assert_int_equal(setenv("CUDPO_CACHE", scratch_path(cache), 1), 0);
    assert_int_equal(setenv("SIMT_FASTEST", fastest, 1), 0);
    const char *arguments[] = {"train",
                               "--model_name_or_path",
                               model,
                               "--train_dataset",
                               data,
                               "--device",
                               "cuda",
                               "--bf16",
                               "false",
                               "--max_length",
                               "32",
                               "--per_device_train_batch_size",
                               "1",
                               "--learning_rate",
                               h.replace ? "2e-3" : "1e-3",
                               "--save_steps",
                               "1",
                               "--max_steps",
                               getenv("CUDPO_TEST_PART") != NULL ? "2" : "4",
                               "--precompute_ref_log_probs",
                               h.precompute ? "true" : "false",
                               "--overwrite_output_dir",
                               h.replace ? "true" : "false",
                               "--output_dir",
                               folder,
                               h.from != NULL ? "--resume_from_checkpoint" : NULL,
                               h.from,
                               NULL};
    const program_result r = program_expect(0, arguments);
    assert_int_equal(setenv("CUDPO_CACHE", before, 1), 0);
    assert_int_equal(unsetenv("SIMT_FASTEST"), 0);
    return r;
}

static void train(const char *output, const char *cache, const char *fastest, how h)
{
    program_result r = run(output, cache, fastest, h);
    program_free(&r);
}

static const how afresh = {0}, resumed = {.from = "true"};

static const char *path_in(const char *folder, const char *name)
{
    static char path[1400];
    snprintf(path, sizeof path, "%s/%s", scratch_path(folder), name);
    return path;
}

static void keep_result(const char *output, const char *as)
{
    static const char *const files[] = {"model.safetensors", "gemm.txt"};
    CHECK_OK(file_make_folder(scratch_path(as)));
    for (int i = 0; i < 2; i++) {
        char to[1400];
        snprintf(to, sizeof to, "%s", path_in(as, files[i]));
        CHECK_OK(file_copy(to, path_in(output, files[i])));
    }
}

/* With an empty cache, where other algorithms would be the fastest, a run that goes on or begins anew ends in the same bits;
 * without what it kept it does not, where the emulator makes sure of it. */
static void the_same_on_another_machine(void **state)
{
    (void)state;
    char checkpoint[1400];
    train("run", "cache-1", "2", afresh);
    keep_result("run", "want");
    program_cut_back("run", 1, 4);
    train("run", "cache-2", "4", resumed);
    program_same_file("run", "want", "model.safetensors");
    program_cut_back("run", 0, 4);
    train("run", "cache-3", "3", resumed);
    program_same_file("run", "want", "model.safetensors");
    snprintf(checkpoint, sizeof checkpoint, "%s", path_in("run", "checkpoint-1"));
    for (int i = 0; i < 2; i++) { /* into a folder of its own, which the second time holds a run */
        train("moved", i == 0 ? "cache-4" : "cache-5", "4", (how){.from = checkpoint});
        program_same_file("moved", "want", "model.safetensors");
    }
    if (!plugin_emulated()) return;
    program_cut_back("run", 1, 4);
    assert_int_equal(unlink(path_in("run", "gemm.txt")), 0);
    train("run", "cache-6", "4", resumed);
    assert_false(program_equal_weights("run", "want"));
    train("other", "cache-7", "4", afresh);
    assert_false(program_equal_weights("other", "want"));
    /* A run that replaces another one has nothing of it. */
    train("other", "cache-8", "2", (how){.replace = true});
    program_same_file("other", "want", "gemm.txt");
}

/* What the cache knows is taken where the run knows nothing yet, and is then the run's own. */
static void from_the_cache(void **state)
{
    (void)state;
    train("first", "shared", "2", afresh);
    train("second", "shared", "4", afresh);
    program_same_file("second", "first", "model.safetensors");
    program_same_file("second", "first", "gemm.txt");
    program_cut_back("second", 1, 4);
    train("second", "empty", "4", resumed);
    program_same_file("second", "first", "model.safetensors");
}

/* Scores that the run itself computed are computed again where the cache is empty: of the same bits too. */
static void scores_of_the_reference(void **state)
{
    (void)state;
    train("scored", "scores-1", "2", (how){.precompute = true});
    keep_result("scored", "want-scored");
    program_cut_back("scored", 1, 4);
    train("scored", "scores-2", "4", (how){.precompute = true, .from = "true"});
    program_same_file("scored", "want-scored", "model.safetensors");
}

/* $CUDPO_GEMM=first: the same bits from nothing, and no file of algorithms. */
static void the_first_of_cublaslt(void **state)
{
    (void)state;
    assert_int_equal(setenv("CUDPO_GEMM", "first", 1), 0);
    train("one", "cache-a", "2", afresh);
    train("two", "cache-b", "4", afresh);
    assert_int_equal(unsetenv("CUDPO_GEMM"), 0);
    program_same_file("two", "one", "model.safetensors");
    assert_false(file_is_regular(path_in("one", "gemm.txt")));
    if (!plugin_emulated()) return;
    assert_false(file_is_regular(path_in("cache-a", "gemm-emulated-GPU-0.txt")));
    assert_true(file_is_regular(path_in("shared", "gemm-emulated-GPU-0.txt")));
}

/* A file that can't be written is a warning, one for the whole run. */
static void one_warning(void **state)
{
    (void)state;
    if (!plugin_emulated()) return;
    CHECK_OK(file_make_folder(path_in("full", "gemm-emulated-GPU-0.txt/of someone else")));
    program_result r = run("warned", "full", "2", afresh);
    const char *warning = strstr(r.err, "algorithms of products are not ");
    assert_non_null(warning);
    assert_null(strstr(warning + 1, "algorithms of products are not "));
    program_free(&r);
    assert_true(file_is_regular(path_in("warned", "gemm.txt")));
}

/* Evaluation takes those of the cache, and keeps nothing in output_dir. */
static void evaluation(void **state)
{
    (void)state;
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("first"));
    assert_int_equal(unlink(path_in("first", "gemm.txt")), 0);
    program_result r =
        RUN(0, "eval", "--model_name_or_path", folder, "--eval_dataset", data, "--device", "cuda",
            "--bf16", "false", "--max_length", "16", "--output_dir", folder);
    has(r.out, "eval_loss");
    program_free(&r);
    assert_false(file_is_regular(path_in("first", "gemm.txt")));
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    scratch_folder();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_on_another_machine),
        cmocka_unit_test(from_the_cache),
        cmocka_unit_test(scores_of_the_reference),
        cmocka_unit_test(the_first_of_cublaslt),
        cmocka_unit_test(one_warning),
        cmocka_unit_test(evaluation),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
