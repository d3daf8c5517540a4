/* test_cuda_ranks.c - several ranks on GPUs train as one does on the CPU; and one that dies ends all.
 *
 * On the emulated GPU their sums go through tests/simt/nccl. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "random_model.h"
#include "ranks.h"
#include "series.h"
#include "model/half.h"

enum { SETTINGS = 16, BATCH = 4 };

typedef struct job {
    const char *name;
    const char *settings[SETTINGS]; /* --key value ..., NULL */
} job;

#define PAIRS "--train_dataset", "tests/golden/data/train.jsonl"

static const job jobs[] = {
    {"sigmoid", {PAIRS, "--ddp_bucket_cap_mb", "0.01"}},
    {"kto", {"--train_dataset", "tests/golden/data/kto.jsonl", "--loss_type", "kto"}},
    {"zero", {PAIRS, "--zero_stage", "1"}},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

static rank_group start(const job *j, const char *device, int size, const char *output,
                        const char *const *more)
{
    char folder[640], batch[16];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    snprintf(batch, sizeof batch, "%d", BATCH / size);
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train",
                                                    "--model_name_or_path",
                                                    "tests/golden/models/llama",
                                                    "--output_dir",
                                                    folder,
                                                    "--device",
                                                    device,
                                                    "--max_length",
                                                    "48",
                                                    "--max_steps",
                                                    "4",
                                                    "--learning_rate",
                                                    "1e-4",
                                                    "--save_steps",
                                                    "2",
                                                    "--logging_steps",
                                                    "1",
                                                    "--per_device_train_batch_size",
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

static void run(const job *j, const char *device, int size, const char *output,
                const char *const *more)
{
    rank_group g = start(j, device, size, output, more);
    ranks_expect(&g, 0);
}

static const char *const in_f32[] = {"--bf16", "false", NULL};

static void as_a_cpu_does(void **state)
{
    (void)state;
    const int last = getenv("CUDPO_TEST_PART") != NULL ? 1 : JOBS;
    assert_int_equal(setenv("CUDPO_GEMM", "first", 1),
                     0); /* runs in several folders have the same bits */
    for (int i = 0; i < last; i++) {
        run(&jobs[i], "cpu", 1, "one", NULL);
        run(&jobs[i], "cuda", 2, "two", in_f32);
        printf("%s: 2 ranks within %.2g\n", jobs[i].name, series_same("one", "two"));
        /* Streams that do nothing before somebody waits: an event that is missing shows. */
        assert_int_equal(setenv("SIMT_LAZY", "1", 1), 0);
        run(&jobs[i], "cuda", 2, "late", in_f32);
        assert_int_equal(unsetenv("SIMT_LAZY"), 0);
        program_same_file("two", "late", "model.safetensors");
        program_same_metrics("two", "late");
        CHECK_OK(file_remove_folder(scratch_path("one")));
        CHECK_OK(file_remove_folder(scratch_path("two")));
        CHECK_OK(file_remove_folder(scratch_path("late")));
    }
    assert_int_equal(unsetenv("CUDPO_GEMM"), 0);
}

static void copy_file(const char *to, const char *from, const char *name)
{
    size_t n;
    char *data = program_file(from, name, &n), path[1400];
    snprintf(path, sizeof path, "%s/%s", scratch_path(to), name);
    CHECK_OK(file_write(path, data, n));
    free(data);
}

/* The values in a file of tensors of one type, in new memory. */
static void *values_of(const char *folder, size_t *n)
{
    char *data = program_file(folder, "model.safetensors", n);
    uint64_t header;
    memcpy(&header, data, sizeof header);
    *n -= sizeof header + header;
    memmove(data, data + sizeof header + header, *n);
    return data;
}

/* The second folder's weights are the first's, rounded. */
static void same_but_rounded(const char *exact, const char *rounded)
{
    size_t n, m;
    float *x = values_of(exact, &n);
    uint16_t *y = values_of(rounded, &m);
    assert_true(n > 0 && n == 2 * m);
    for (size_t i = 0; i < m / sizeof *y; i++)
        if (bf16_from_float(x[i]) != y[i]) fail_msg("element %zu: %g", i, (double)x[i]);
    free(x);
    free(y);
}

/* The share of weights that are not within a tenth of what a step moves them.  Rounding moves a gradient by less than that, but
 * for those near 0, whose direction alone AdamW looks at; master weights that had been rounded would be apart by 2^-9 of
 * themselves, which is more for most. */
static double apart(const char *a, const char *b)
{
    size_t n, m, others = 0;
    float *x = values_of(a, &n), *y = values_of(b, &m);
    assert_true(n > 0 && n == m);
    for (size_t i = 0; i < n / sizeof *x; i++)
        others += !(fabsf(x[i] - y[i]) <= 1e-5f);
    free(x);
    free(y);
    return (double)others * sizeof *x / (double)n;
}

/* In bf16, with master weights shared out: what each rank writes to a checkpoint is what goes on, with the algorithms that it
 * took before.  Gradients in bf16 have no room for master weights or moments. */
static void in_bf16(void **state)
{
    (void)state;
    static const char *const gradients[] = {"float32", "bfloat16"};
    for (int i = getenv("CUDPO_TEST_PART") != NULL ? 1 : 0; i < 2; i++) {
        const char *more[] = {"--bf16",  "true",    "--gradient_dtype",         gradients[i],
                              "--dtype", "float32", "--resume_from_checkpoint", "true",
                              NULL};
        run(&jobs[2], "cuda", 2, "half", more);
        CHECK_OK(file_make_folder(scratch_path("whole")));
        copy_file("whole", "half", "model.safetensors");
        copy_file("whole", "half", "metrics.jsonl");
        program_cut_back("half", 2, 4);
        run(&jobs[2], "cuda", 2, "half", more);
        program_same_file("whole", "half", "model.safetensors");
        program_same_metrics("whole", "half");
        if (i == 1) {
            /* Weights that go out in bf16 are the master weights, too. */
            program_cut_back("half", 4, 4);
            more[5] = "bfloat16";
            run(&jobs[2], "cuda", 2, "half", more);
            same_but_rounded("whole", "half");
            /* On one rank, which has all of them: another order of sums. */
            program_cut_back("half", 2, 4);
            more[5] = "float32";
            run(&jobs[2], "cuda", 1, "half", more);
            printf("1 rank goes on: %.2g %% of its weights are others\n",
                   100 * apart("whole", "half"));
            assert_true(apart("whole", "half") <= 0.05);
        }
        CHECK_OK(file_remove_folder(scratch_path("whole")));
        CHECK_OK(file_remove_folder(scratch_path("half")));
    }
}

/* A rank that is killed in the middle ends the other, whose host waits for its GPU. */
static void killed(void **state)
{
    (void)state;
    for (int one = 0; one < 2; one++) {
        static const char *const many[] = {"--bf16", "false", "--max_steps", "100000", NULL};
        rank_group g = start(&jobs[0], "cuda", 2, "killed", many);
        char path[1400];
        snprintf(path, sizeof path, "%s/metrics.jsonl", scratch_path("killed"));
        const double limit = program_clock() + 120;
        while (!file_is_regular(path) && program_clock() < limit)
            program_sleep(0.01);
        const double when = program_clock();
        assert_int_equal(kill(g.pid[one], SIGKILL), 0);
        ranks_wait(&g, 60);
        assert_int_equal(g.status[1 - one], 69);
        ranks_says(1 - one, one == 0 ? "rank 0" : "rank 1");
        const double took = g.ended[1 - one] - when;
        printf("the other had ended after %.2f s\n", took);
        assert_true(took <= 4.0); /* 2 s, and a step on the emulator */
        CHECK_OK(file_remove_folder(scratch_path("killed")));
    }
}

/* What each rank takes is reckoned before the first step, with the moments that it has: of 2 ranks with zero_stage 1 half of them,
 * which is offered to those that have all.  Of 3.5e6 parameters in float32 all moments take 28 MB, of 70 together: that is 7 more
 * than there are beside what the backend itself takes. */
static void little_memory(void **state)
{
    (void)state;
    model_shape s = random_model_small;
    s.hidden = 512;
    s.ffn = 1024;
    char model[640];
    random_model_make("large", &s, 1);
    snprintf(model, sizeof model, "%s", scratch_path("large"));
    assert_int_equal(setenv("SIMT_MEMORY", "101000000", 1), 0);
    for (int zero = 0; zero < 2; zero++) {
        const char *const more[] = {"--model_name_or_path",
                                    model,
                                    "--bf16",
                                    "false",
                                    "--ref_model_offload",
                                    "false",
                                    "--max_tokens_per_pack",
                                    "96",
                                    "--per_device_train_batch_size",
                                    "1",
                                    "--max_steps",
                                    "1",
                                    "--save_strategy",
                                    "no",
                                    "--zero_stage",
                                    zero == 1 ? "1" : "0",
                                    NULL};
        rank_group g = start(&jobs[0], "cuda", 2, "little", more);
        ranks_expect(&g, zero == 1 ? 0 : 71);
        for (int r = 0; r < 2 && zero == 0; r++) {
            ranks_says(r, "moments 0.03, packs");
            ranks_says(r, "each of these makes it smaller: --zero_stage 1 ");
        }
    }
    assert_int_equal(setenv("SIMT_MEMORY", "60000000", 1), 0);
    rank_group g =
        start(&jobs[2], "cuda", 2, "less",
              (const char *const[]){"--model_name_or_path", model, "--bf16", "false", NULL});
    ranks_expect(&g, 71);
    for (int r = 0; r < 2; r++) {
        char *said = ranks_said(r);
        has(said, "moments 0.01, packs");
        assert_null(strstr(said, "--zero_stage"));
        free(said);
    }
    assert_int_equal(unsetenv("SIMT_MEMORY"), 0);
}

int main(void)
{
    if (!plugin_emulated()) {
        printf("skipped: two ranks take two GPUs\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_a_cpu_does),
        cmocka_unit_test(in_bf16),
        cmocka_unit_test(little_memory),
        cmocka_unit_test(killed),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
