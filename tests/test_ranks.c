/* test_ranks.c - several ranks train as one does: the same series, the same rows, the same bits when it is repeated. */
/* rooms: train */
#include "ranks.h"
#include "series.h"

enum { SETTINGS = 16, BATCH = 12 };

typedef struct job {
    const char *name;
    const char *settings[SETTINGS]; /* --key value ..., NULL */
} job;

#define PAIRS "--train_dataset", "tests/golden/data/train.jsonl"
#define EVALUATED                                                                                 \
    "--eval_dataset", "tests/golden/data/eval.jsonl", "--eval_strategy", "steps", "--eval_steps", \
        "3"

/* 45 pairs in steps of 12 or 24: the last of an epoch is short, and may leave a rank without any. */
static const job jobs[] = {
    {"sigmoid", {PAIRS, EVALUATED, "--logging_steps", "2"}},
    {"accumulated", {PAIRS, "--gradient_accumulation_steps", "2", "--logging_steps", "3"}},
    {"kto",
     {"--train_dataset", "tests/golden/data/kto.jsonl", "--eval_dataset",
      "tests/golden/data/kto_eval.jsonl", "--eval_strategy", "steps", "--eval_steps", "3",
      "--loss_type", "kto"}},
    {"orpo", {PAIRS, EVALUATED, "--loss_type", "orpo"}},
    {"sft", {PAIRS, "--loss_type", "sft"}},
    {"precomputed", {PAIRS, EVALUATED, "--precompute_ref_log_probs", "true"}},
    {"precomputed-kto",
     {"--train_dataset", "tests/golden/data/kto.jsonl", "--loss_type", "kto",
      "--precompute_ref_log_probs", "true"}},
    {"zero", {PAIRS, EVALUATED, "--zero_stage", "1", "--logging_steps", "2"}},
    {"buckets", {PAIRS, "--ddp_bucket_cap_mb", "0.001", "--max_tokens_per_pack", "300"}},
    {"zero-buckets",
     {PAIRS, "--ddp_bucket_cap_mb", "0.01", "--zero_stage", "1", "--max_grad_norm", "0.5"}},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

/* Start a job of `size` ranks whose batches together are of BATCH. */
static rank_group start(const job *j, int size, int per_device, const char *output,
                        const char *const *more)
{
    char folder[640], batch[16];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    snprintf(batch, sizeof batch, "%d", per_device);
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train",
                                                    "--model_name_or_path",
                                                    "tests/golden/models/llama",
                                                    "--output_dir",
                                                    folder,
                                                    "--device",
                                                    "cpu",
                                                    "--max_length",
                                                    "64",
                                                    "--max_steps",
                                                    "9",
                                                    "--learning_rate",
                                                    "1e-4",
                                                    "--save_steps",
                                                    "4",
                                                    "--logging_steps",
                                                    "1",
                                                    "--per_device_train_batch_size",
                                                    batch,
                                                    "--per_device_eval_batch_size",
                                                    batch};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    for (int i = 0; i < SETTINGS && j->settings[i] != NULL; i++)
        arguments[n++] = j->settings[i];
    for (; more != NULL && *more != NULL; more++)
        arguments[n++] = *more;
    return ranks_start(size, arguments);
}

static void run(const job *j, int size, const char *output, const char *const *more)
{
    rank_group g = start(j, size, BATCH / size, output, more);
    ranks_expect(&g, 0);
}

static void as_one_does(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 4};
    for (int i = 0; i < JOBS; i++) {
        run(&jobs[i], 1, "one", NULL);
        for (int k = 0; k < 3; k++) {
            /* Each job with 2 and 4 ranks, some with 3. */
            if (sizes[k] == 3 && i % 3 != 0) continue;
            run(&jobs[i], sizes[k], "several", NULL);
            const double worst = series_same("one", "several");
            printf("%s: %d ranks within %.2g\n", jobs[i].name, sizes[k], worst);
            CHECK_OK(file_remove_folder(scratch_path("several")));
        }
        CHECK_OK(file_remove_folder(scratch_path("one")));
    }
}

static void twice(void **state)
{
    (void)state;
    static const int which[] = {0, 2, 7};
    for (int i = 0; i < 3; i++) {
        run(&jobs[which[i]], 3, "first", NULL);
        run(&jobs[which[i]], 3, "second", NULL);
        program_same_file("first", "second", "model.safetensors");
        program_same_metrics("first", "second");
        CHECK_OK(file_remove_folder(scratch_path("first")));
        CHECK_OK(file_remove_folder(scratch_path("second")));
    }
}

/* More ranks than a step has rows. */
static void without_rows(void **state)
{
    (void)state;
    const char *const more[] = {"--dataloader_drop_last", "false", "--max_steps", "8", NULL};
    rank_group g = start(&jobs[0], 4, 6, "wide", more);
    ranks_expect(&g, 0);
    rank_group one = start(&jobs[0], 1, 24, "one", more);
    ranks_expect(&one, 0);
    (void)series_same("one", "wide");
}

#define RESUMED "--resume_from_checkpoint", "true"

/* Stopped on some number of ranks and gone on with on another: the same rows are still to come. */
static void on_other_ranks(void **state)
{
    (void)state;
    static const int which[] = {0, 2, 7};
    static const int sizes[][3] = {{2, 1, 4}, {1, 3, 2}, {4, 2, 1}};
    for (int i = 0; i < 3; i++) {
        const job *j = &jobs[which[i]];
        char output[32];
        snprintf(output, sizeof output, "moved-%d", i);
        run(j, 1, "whole", NULL);
        /* What the first ranks take each is what all later ones take each. */
        const int each = BATCH / sizes[i][0];
        for (int k = 0; k < 3; k++) {
            const char *const more[] = {RESUMED, NULL};
            rank_group g = start(j, sizes[i][k], each, output, more);
            ranks_expect(&g, 0);
            if (k == 2) break;
            program_cut_back(output, k == 0 ? 4 : 8, 9);
            if (k == 0) program_cut_back(output, 4, 9);
        }
        (void)series_same("whole", output);
        CHECK_OK(file_remove_folder(scratch_path("whole")));
    }
}

/* With the same ranks it is the same run, bit for bit. */
static void resumed(void **state)
{
    (void)state;
    static const int which[] = {0, 7};
    for (int i = 0; i < 2; i++) {
        const char *const more[] = {RESUMED, NULL};
        run(&jobs[which[i]], 2, "whole", NULL);
        run(&jobs[which[i]], 2, "cut", NULL);
        program_cut_back("cut", 4, 9);
        run(&jobs[which[i]], 2, "cut", more);
        program_same_file("whole", "cut", "model.safetensors");
        program_same_metrics("whole", "cut");
        CHECK_OK(file_remove_folder(scratch_path("whole")));
        CHECK_OK(file_remove_folder(scratch_path("cut")));
    }
}

/* A checkpoint of shared-out moments is one like any other. */
static void of_shares_or_not(void **state)
{
    (void)state;
    const char *const on[] = {RESUMED, "--zero_stage", "0", NULL};
    const char *const off[] = {RESUMED, "--zero_stage", "1", NULL};
    run(&jobs[0], 2, "whole", NULL);
    run(&jobs[7], 3, "shares", NULL);
    program_cut_back("shares", 4, 9);
    run(&jobs[0], 2, "shares", on);
    (void)series_same("whole", "shares");
    program_cut_back("shares", 4, 9);
    run(&jobs[0], 4, "shares", off);
    (void)series_same("whole", "shares");
}

/* One that is damaged or gone is missed, and the checkpoint before it is taken: the same run from there. */
static void of_damaged_shards(void **state)
{
    (void)state;
    static const char *const more[] = {RESUMED, NULL};
    char path[1400];
    run(&jobs[7], 2, "undamaged", NULL);
    run(&jobs[7], 2, "damaged", NULL);
    for (int gone = 0; gone < 2; gone++) {
        snprintf(path, sizeof path, "%s/checkpoint-8/optimizer-0000%d-of-00002.safetensors",
                 scratch_path("damaged"), gone);
        program_cut_back("damaged", 8, 9);
        assert_true(file_is_regular(path));
        if (gone) {
            assert_int_equal(unlink(path), 0);
        } else {
            FILE *f = fopen(path, "r+b");
            assert_non_null(f);
            assert_int_equal(fseek(f, -4, SEEK_END), 0);
            const int last = fgetc(f);
            assert_int_equal(fseek(f, -4, SEEK_END), 0);
            assert_true(last != EOF && fputc(last ^ 1, f) != EOF);
            assert_int_equal(fclose(f), 0);
        }
        run(&jobs[7], 2, "damaged", more);
        ranks_says(0,
                   gone ? "of-00002.safetensors: is missing" : "of-00002.safetensors: is damaged");
        ranks_says(0, "/checkpoint-4");
        program_same_file("undamaged", "damaged", "model.safetensors");
        program_same_metrics("undamaged", "damaged");
    }
}

/* Two ranks, each with a folder of its own. */
static void run_apart(const char *stage, int status)
{
    static const char *const folders[] = {"here", "there"};
    const int port = ranks_port();
    rank_group g = {.size = 2};
    for (int r = 0; r < 2; r++) {
        char folder[640];
        snprintf(folder, sizeof folder, "%s", scratch_path(folders[r]));
        const char *const arguments[] = {"train",
                                         "--model_name_or_path",
                                         "tests/golden/models/llama",
                                         "--output_dir",
                                         folder,
                                         PAIRS,
                                         "--device",
                                         "cpu",
                                         "--max_steps",
                                         "4",
                                         "--save_steps",
                                         "2",
                                         "--zero_stage",
                                         stage,
                                         RESUMED,
                                         NULL};
        g.pid[r] = ranks_start_one(r, 2, port, arguments);
    }
    ranks_expect(&g, status);
}

/* Rank 0 alone writes and reads, unless moments are shared out: then a folder that not all see is one to name. */
static void of_other_folders(void **state)
{
    (void)state;
    run_apart("1", 73);
    ranks_says(0, "rank 1: ");
    ranks_says(0, "there/.checkpoint-2.tmp: rank 0 has made this folder");
    run_apart("0", 0);
    program_cut_back("here", 2, 4);
    run_apart("1", 66);
    ranks_says(0, "there/checkpoint-2: is not, on this rank, the checkpoint");
    run_apart("0", 0);
}

/* Ranks that were not started alike. */
static void of_other_settings(void **state)
{
    (void)state;
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("unlike"));
#define ARGUMENTS(rate)                                                                       \
    (const char *const[])                                                                     \
    {                                                                                         \
        "train", "--model_name_or_path", "tests/golden/models/llama", "--output_dir", folder, \
            PAIRS, "--device", "cpu", "--max_steps", "2", "--learning_rate", rate, NULL       \
    }
    const int port = ranks_port();
    rank_group g = {.size = 2};
    g.pid[0] = ranks_start_one(0, 2, port, ARGUMENTS("1e-5"));
    g.pid[1] = ranks_start_one(1, 2, port, ARGUMENTS("2e-5"));
    ranks_expect(&g, 78);
    ranks_says(0, "rank 1 has another model, other data or other settings");
    ranks_says(1, "rank 1 has another model, other data or other settings");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_one_does),       cmocka_unit_test(twice),
        cmocka_unit_test(without_rows),      cmocka_unit_test(on_other_ranks),
        cmocka_unit_test(resumed),           cmocka_unit_test(of_shares_or_not),
        cmocka_unit_test(of_damaged_shards), cmocka_unit_test(of_other_folders),
        cmocka_unit_test(of_other_settings),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
