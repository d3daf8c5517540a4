/* test_cuda_train.c - `cudpo train --device cuda`: the same series as on the CPU, the same bits each time. */
/* rooms: train */
/* backends: plugin */
#include "test_cuda_job.h"
#include "base/json.h"

/* Of a run: a GPU does more of them in less time. */
static const char *steps(void)
{
    return job_part() ? "3" : plugin_emulated() ? "20" : "50";
}

#define TRAIN "--train_dataset", "tests/golden/data/train.jsonl"
#define LABELLED "--train_dataset", "tests/golden/data/kto.jsonl"

/* Every loss, both modes of the reference, checkpointing on (the default) and off. */
enum { SIGMOID, WHOLE, CACHED, BOTH, IPO, HINGE, ORPO, KTO, KTO_CACHED, SFT, JOBS };
static const job jobs[JOBS] = {
    [SIGMOID] = {"sigmoid", "llama3", {TRAIN}},
    [WHOLE] = {"whole", "qwen2", {TRAIN, "--gradient_checkpointing", "false"}},
    [CACHED] = {"cached", "llama", {TRAIN, "--precompute_ref_log_probs", "true"}},
    [BOTH] = {"both",
              "qwen3",
              {TRAIN, "--precompute_ref_log_probs", "true", "--gradient_checkpointing", "false"}},
    [IPO] = {"ipo", "mistral", {TRAIN, "--loss_type", "ipo"}},
    [HINGE] = {"hinge", "llama-linear", {TRAIN, "--loss_type", "hinge"}},
    [ORPO] = {"orpo", "llama3", {TRAIN, "--loss_type", "orpo"}},
    [KTO] = {"kto", "qwen2-window", {LABELLED, "--loss_type", "kto"}},
    [KTO_CACHED] = {"kto-cached",
                    "llama3",
                    {LABELLED, "--loss_type", "kto", "--precompute_ref_log_probs", "true"}},
    [SFT] = {"sft", "llama3", {TRAIN, "--loss_type", "sft"}},
};

/* So many steps of a job, with checkpoints between them. */
static void run(const job *j, const char *device, const char *output, const char *count)
{
    const job whole = JOB_WITH(j, "--max_steps", count, "--save_steps", "7");
    job_run(&whole, device, output);
}

/* Times; and a count of which of two rewards is larger, which rounding decides where completions are equal: the rewards
 * themselves are compared. */
static bool is_left_out(const char *name)
{
    return strcmp(name, "units_per_second") == 0 || strcmp(name, "time") == 0 ||
           strcmp(name, "rewards/accuracies") == 0;
}

/* What the error of a metric is relative to: 1, or its own size; of kl, a difference of log-probs, the size of those. */
static double size_of(const json *line, const char *name, double value)
{
    static const char *const logps[] = {"logps/chosen", "logps/rejected"};
    double size = fmax(1.0, fabs(value));
    for (int i = 0; i < 2 && strcmp(name, "kl") == 0; i++) {
        const json *v = json_get(line, logps[i]);
        if (v != NULL && json_type(v) == JSON_NUMBER) size = fmax(size, fabs(json_number(v)));
    }
    return size;
}

/* Worst difference of two series of metrics, each as a share of its size where that is above 1. */
static double compare(const char *a, const char *b, int steps)
{
    size_t n, m;
    char *x = program_file(a, "metrics.jsonl", &n), *y = program_file(b, "metrics.jsonl", &m);
    char *in_x = NULL, *in_y = NULL;
    char *p = strtok_r(x, "\n", &in_x), *q = strtok_r(y, "\n", &in_y);
    double worst = 0.0;
    int lines = 0;
    for (; p != NULL && q != NULL; lines++) {
        json *u = NULL, *v = NULL;
        CHECK_OK(json_parse(&u, p, strlen(p), a));
        CHECK_OK(json_parse(&v, q, strlen(q), b));
        int values = 0;
        for (const json *f = json_first(u); f != NULL; f = json_next(f)) {
            const json *g = json_get(v, json_key(f));
            if (is_left_out(json_key(f))) continue;
            assert_non_null(g);
            const double one = json_number(f), other = json_number(g);
            const double difference = fabs(one - other) / size_of(u, json_key(f), one);
            if (!(difference <= (plugin_emulated() ? 1e-5 : 1e-4)))
                fail_msg("%s and %s, line %d: %s is %.9g and %.9g", a, b, lines + 1, json_key(f),
                         one, other);
            worst = fmax(worst, difference);
            values++;
        }
        assert_true(values >= 5);
        json_free(u);
        json_free(v);
        p = strtok_r(NULL, "\n", &in_x);
        q = strtok_r(NULL, "\n", &in_y);
    }
    assert_true(p == NULL && q == NULL && lines == steps);
    free(x);
    free(y);
    return worst;
}

static void same_series_as_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < JOBS; i++) {
        char cpu[64];
        if (job_part() && i != SIGMOID && i != KTO) continue;
        snprintf(cpu, sizeof cpu, "%s-cpu", jobs[i].name);
        run(&jobs[i], "cpu", cpu, steps());
        run(&jobs[i], "cuda", jobs[i].name, steps());
        printf("%-12s differs by at most %.1e\n", jobs[i].name,
               compare(cpu, jobs[i].name, atoi(steps())));
    }
}

/* On the emulator in steps of which two are under way at a time, and with work that waits until the host waits for it: no
 * result is read too early, no input overwritten. */
static void same_bits_again_and_lazily(void **state)
{
    (void)state;
    static const char *const modes[] = {"1", "ahead"};
    if (!plugin_emulated()) {
        run(&jobs[SIGMOID], "cuda", "again", steps());
        program_same_file("again", jobs[SIGMOID].name, "model.safetensors");
        return;
    }
    const job lazy =
        JOB_WITH(&jobs[KTO], "--logging_steps", "100", "--max_steps", "6", "--save_strategy", "no");
    job_run(&lazy, "cuda", "eager");
    for (int i = 0; i < (job_part() ? 1 : 2); i++) {
        job_run_lazily(&lazy, modes[i], modes[i]);
        program_same_file("eager", modes[i], "model.safetensors");
        program_same_metrics("eager", modes[i]);
    }
}

/* What the host did in a run. */
typedef struct counts {
    long waits, allocations, launches, ranges;
} counts;

/* Of so many steps of a job, logged at the end, or each. */
static counts counts_of(const job *j, const char *steps, bool log_each)
{
    char output[64], path[1400];
    const job logged = JOB_WITH(j, "--logging_steps", log_each ? "1" : "100");
    counts c = {-1, -1, -1, -1};
    long ended = 0;
    snprintf(output, sizeof output, "%s-%s-%s", j->name, steps, log_each ? "each" : "end");
    snprintf(path, sizeof path, "%s", scratch_path("COUNTS"));
    assert_int_equal(setenv("SIMT_COUNT", path, 1), 0);
    run(&logged, "cuda", output, steps);
    assert_int_equal(unsetenv("SIMT_COUNT"), 0);
    size_t size;
    char *text = NULL;
    CHECK_OK(file_read(&text, &size, path, 1 << 10));
    assert_int_equal(sscanf(text, "waits %ld allocations %ld launches %ld ranges %ld ended %ld",
                            &c.waits, &c.allocations, &c.launches, &c.ranges, &ended),
                     5);
    assert_int_equal(c.ranges, ended);
    assert_int_equal(unlink(path), 0);
    free(text);
    return c;
}

/* Where nothing is logged, a step more is one wait more, for the step before it, and no allocation: of pairs, and of kto,
 * which scores other completions first; in both modes of the reference; of one pack and of several.  The first run times the
 * products, which waits and allocates once for each shape; that it waits more often shows that waits are counted. */
static void a_step_waits_once(void **state)
{
    (void)state;
    const job half = {"bf16",
                      "llama3",
                      {TRAIN, "--bf16", "true", "--per_device_train_batch_size", "1",
                       "--gradient_accumulation_steps", "2", "--max_tokens_per_pack", "1"}};
    const job *const which[] = {&jobs[KTO], &jobs[KTO_CACHED], &jobs[SIGMOID], &half};
    if (!plugin_emulated()) return;
    for (int i = 0; i < (job_part() ? 1 : 4); i++) {
        const job *j = which[i];
        const counts each = counts_of(j, "5", true);
        const counts few = counts_of(j, "3", false), more = counts_of(j, "5", false);
        assert_int_equal(more.waits - few.waits, 2);
        assert_int_equal(more.allocations, few.allocations);
        assert_true(more.waits > 0 && more.allocations > 0 && each.waits > more.waits);
        assert_true(few.ranges > 0 && more.ranges * 3 == few.ranges * 5); /* alike in each step */
        printf("%-12s waits once in a step, after %ld launches\n", j->name,
               (more.launches - few.launches) / 2);
    }
}

/* From the first checkpoint on the same device: the same bits.  On the other: the same series. */
static void resumed_on_either_device(void **state)
{
    (void)state;
    enum { SAVED = 7, LAST = 9 };
    if (job_part()) return;
    const job *j = &jobs[SIGMOID];
    const job again = JOB_WITH(j, "--resume_from_checkpoint", "true");
    run(j, "cpu", "cpu", "9");
    run(j, "cuda", "whole-run", "9");
    run(j, "cuda", "resumed", "9");
    program_cut_back("resumed", SAVED, LAST);
    run(&again, "cuda", "resumed", "9");
    program_same_file("resumed", "whole-run", "model.safetensors");
    program_cut_back("resumed", SAVED, LAST);
    run(&again, "cpu", "resumed", "9");
    compare("cpu", "resumed", LAST);
    program_cut_back("cpu", SAVED, LAST);
    run(&again, "cuda", "cpu", "9");
    compare("whole-run", "cpu", LAST);
}

/* Machines without a usable GPU: one line with the remedy; `auto` goes on on the CPU and says why. */
static void no_gpu(void **state)
{
    (void)state;
    if (!plugin_emulated()) return;
    static const char *const kinds[][2] = {{"none", "there is no GPU, or CUDA_VISIBLE_DEVICES"},
                                           {"old", "compute capability 7.0, and 8.0 or later"},
                                           {"driver", "the NVIDIA driver is for CUDA 13.0"}};
    char model[] = "tests/golden/models/llama3", data[] = "tests/golden/data/train.jsonl";
    for (int i = 0; i < 3; i++) {
        char output[64];
        snprintf(output, sizeof output, "none-%d", i);
        assert_int_equal(setenv("SIMT_DEVICE", kinds[i][0], 1), 0);
        SAYS(69, kinds[i][1], "train", "--model_name_or_path", model, "--train_dataset", data,
             "--device", "cuda", "--output_dir", scratch_path(output));
        program_result r = RUN(0, "train", "--model_name_or_path", model, "--train_dataset", data,
                               "--max_steps", "1", "--output_dir", scratch_path(output));
        has(r.err, "device: cpu (");
        has(r.err, kinds[i][1]);
        program_free(&r);
    }
    assert_int_equal(unsetenv("SIMT_DEVICE"), 0);
}

static void no_plugin(void **state)
{
    (void)state;
    char before[4096];
    snprintf(before, sizeof before, "%s", getenv("CUDPO_PLUGIN"));
    char model[] = "tests/golden/models/llama3", data[] = "tests/golden/data/train.jsonl";
    assert_int_equal(setenv("CUDPO_PLUGIN", scratch_path("nowhere.so"), 1), 0);
    SAYS(69, "nowhere.so", "train", "--model_name_or_path", model, "--train_dataset", data,
         "--device", "cuda", "--output_dir", scratch_path("without"));
    assert_int_equal(setenv("CUDPO_PLUGIN", "", 1), 0);
    SAYS(69, "no CUDA backend", "train", "--model_name_or_path", model, "--train_dataset", data,
         "--device", "cuda", "--output_dir", scratch_path("without"));
    assert_int_equal(setenv("CUDPO_PLUGIN", before, 1), 0);
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_series_as_the_cpu),
        cmocka_unit_test(same_bits_again_and_lazily),
        cmocka_unit_test(a_step_waits_once),
        cmocka_unit_test(resumed_on_either_device),
        cmocka_unit_test(no_gpu),
        cmocka_unit_test(no_plugin),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
