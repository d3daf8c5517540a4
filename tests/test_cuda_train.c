/* test_cuda_train.c - `cudpo train --device cuda`: the same series as on the CPU, the same bits each time. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"
#include "base/json.h"

enum { SETTINGS = 10 };

/* With $CUDPO_TEST_PART a few jobs of a few steps: for builds that are slow. */
static bool part(void)
{
    return getenv("CUDPO_TEST_PART") != NULL;
}

/* Of a run: a GPU does more of them in less time. */
static const char *steps(void)
{
    return part() ? "3" : plugin_emulated() ? "20" : "50";
}

typedef struct job {
    const char *name, *model;
    const char *settings[SETTINGS]; /* --key value ..., NULL */
} job;

#define TRAIN "--train_dataset", "tests/golden/data/train.jsonl"
#define KTO "--train_dataset", "tests/golden/data/kto.jsonl"

/* Every loss, both modes of the reference, checkpointing on (the default) and off. */
static const job jobs[] = {
    {"sigmoid", "llama3", {TRAIN}},
    {"whole", "qwen2", {TRAIN, "--gradient_checkpointing", "false"}},
    {"cached", "llama", {TRAIN, "--precompute_ref_log_probs", "true"}},
    {"both",
     "qwen3",
     {TRAIN, "--precompute_ref_log_probs", "true", "--gradient_checkpointing", "false"}},
    {"ipo", "mistral", {TRAIN, "--loss_type", "ipo"}},
    {"hinge", "llama-linear", {TRAIN, "--loss_type", "hinge"}},
    {"orpo", "llama3", {TRAIN, "--loss_type", "orpo"}},
    {"kto", "qwen2-window", {KTO, "--loss_type", "kto"}},
    {"kto-cached", "llama3", {KTO, "--loss_type", "kto", "--precompute_ref_log_probs", "true"}},
    {"sft", "llama3", {TRAIN, "--loss_type", "sft"}},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

/* Start a job on a device into a folder of the scratch folder; `more` and `value` may be one setting. */
static pid_t start(const job *j, const char *device, const char *output, const char *more,
                   const char *value)
{
    char folder[640], model[256];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    snprintf(model, sizeof model, "tests/golden/models/%s", j->model);
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train", "--model_name_or_path",
                                                    model,   "--device",
                                                    device,  "--output_dir",
                                                    folder,  "--max_length",
                                                    "48",    "--max_steps",
                                                    steps(), "--save_steps",
                                                    "7",     "--per_device_train_batch_size",
                                                    "2",     "--logging_steps",
                                                    "1",     "--bf16",
                                                    "false", "--learning_rate",
                                                    "1e-4"};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    for (int i = 0; i < SETTINGS && j->settings[i] != NULL; i++)
        arguments[n++] = j->settings[i];
    if (more != NULL) {
        arguments[n++] = more;
        arguments[n++] = value;
    }
    return program_start(arguments);
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
static double compare(const char *a, const char *b)
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
    assert_true(p == NULL && q == NULL && lines == atoi(steps()));
    free(x);
    free(y);
    return worst;
}

/* Of a run in bf16, which the emulator computes slowly. */
static const char *bf16_steps(void)
{
    return plugin_emulated() ? "5" : "50";
}

/* Worst difference of two series' losses.  Rewards are beta times differences of sums of some 30 log-probs, each of which
 * bf16 activations move by some 2^-8 of a logit of size 1: beta 30^(1/2) 2 2^-8 = 4e-3 for each of two pairs, at most 2e-2
 * with room for what the weights differ by after some steps. */
static double compare_loss(const char *a, const char *b)
{
    size_t n, m;
    char *x = program_file(a, "metrics.jsonl", &n), *y = program_file(b, "metrics.jsonl", &m);
    double worst = 0.0;
    int lines = 0;
    const char *p = x, *q = y;
    while ((p = strstr(p, "\"loss\": ")) != NULL && (q = strstr(q, "\"loss\": ")) != NULL) {
        const double difference = fabs(strtod(p += 8, NULL) - strtod(q += 8, NULL));
        if (!(difference <= 2e-2)) fail_msg("%s and %s: losses %g apart", a, b, difference);
        worst = fmax(worst, difference);
        lines++;
    }
    assert_true(lines == atoi(bf16_steps()));
    free(x);
    free(y);
    return worst;
}

static void same_series_as_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < JOBS; i++) {
        char cpu[64];
        if (part() && i % 7 != 0) continue; /* sigmoid, kto */
        snprintf(cpu, sizeof cpu, "%s-cpu", jobs[i].name);
        program_finish(start(&jobs[i], "cpu", cpu, NULL, NULL), 0);
        program_finish(start(&jobs[i], "cuda", jobs[i].name, NULL, NULL), 0);
        printf("%-12s differs by at most %.1e\n", jobs[i].name, compare(cpu, jobs[i].name));
    }
}

/* Work that waits until the host waits for it gives the same bits: no result is read too early, no input overwritten. */
static void same_bits_again_and_lazily(void **state)
{
    (void)state;
    program_finish(start(&jobs[0], "cuda", "again", NULL, NULL), 0);
    program_same_file("again", jobs[0].name, "model.safetensors");
    if (!plugin_emulated()) return;
    assert_int_equal(setenv("SIMT_LAZY", "1", 1), 0);
    program_finish(start(&jobs[0], "cuda", "lazy", NULL, NULL), 0);
    program_finish(start(&jobs[7], "cuda", "lazy-kto", NULL, NULL), 0);
    assert_int_equal(unsetenv("SIMT_LAZY"), 0);
    program_same_file("lazy", jobs[0].name, "model.safetensors");
    program_same_file("lazy-kto", jobs[7].name, "model.safetensors");
}

/* What the host did in a run. */
typedef struct counts {
    long waits, allocations, launches;
} counts;

/* Of so many steps of a job, logged at the end, or each. */
static counts counts_of(const job *j, const char *steps, bool log_each)
{
    char output[64], path[1400];
    job run = *j;
    counts c = {-1, -1, -1};
    int n = 0;
    while (run.settings[n] != NULL)
        n++;
    assert_true(n + 4 <= SETTINGS);
    run.settings[n++] = "--max_steps";
    run.settings[n++] = steps;
    run.settings[n++] = "--logging_steps";
    run.settings[n++] = log_each ? "1" : "100";
    snprintf(output, sizeof output, "%s-%s-%s", j->name, steps, log_each ? "each" : "end");
    snprintf(path, sizeof path, "%s", scratch_path("COUNTS"));
    assert_int_equal(setenv("SIMT_COUNT", path, 1), 0);
    program_finish(start(&run, "cuda", output, NULL, NULL), 0);
    assert_int_equal(unsetenv("SIMT_COUNT"), 0);
    size_t size;
    char *text = NULL;
    CHECK_OK(file_read(&text, &size, path, 1 << 10));
    assert_int_equal(sscanf(text, "waits %ld allocations %ld launches %ld", &c.waits,
                            &c.allocations, &c.launches),
                     3);
    assert_int_equal(unlink(path), 0);
    free(text);
    return c;
}

/* Where nothing is logged, a step more is one wait more, for the step before it, and no allocation: of pairs, and of kto,
 * which scores other completions first; in both modes of the reference.  The first run times the products, which waits and
 * allocates once for each shape; that it waits more often shows that waits are counted. */
static void a_step_waits_once(void **state)
{
    (void)state;
    static const int which[] = {7, 8, 0, 2}; /* kto, kto-cached, sigmoid, cached */
    if (!plugin_emulated()) return;
    for (int i = 0; i < (part() ? 1 : 4); i++) {
        const job *j = &jobs[which[i]];
        const counts each = counts_of(j, "5", true);
        const counts few = counts_of(j, "3", false), more = counts_of(j, "5", false);
        assert_int_equal(more.waits - few.waits, 2);
        assert_int_equal(more.allocations, few.allocations);
        assert_true(more.waits > 0 && more.allocations > 0 && each.waits > more.waits);
        printf("%-12s waits once in a step, after %ld launches\n", j->name,
               (more.launches - few.launches) / 2);
    }
}

/* Remove what a run left behind its first checkpoint, as if it had been killed after it. */
static void cut_back(const char *output)
{
    char path[1400];
    for (int step = 8; step <= atoi(steps()); step++) {
        snprintf(path, sizeof path, "%s/checkpoint-%d", scratch_path(output), step);
        CHECK_OK(file_remove_folder(path));
    }
    snprintf(path, sizeof path, "%s/model.safetensors", scratch_path(output));
    assert_int_equal(unlink(path), 0);
}

/* From the first checkpoint on the same device: the same bits.  On the other: the same series. */
static void resumed_on_either_device(void **state)
{
    (void)state;
    if (part()) return;
    program_finish(start(&jobs[0], "cuda", "resumed", NULL, NULL), 0);
    cut_back("resumed");
    program_finish(start(&jobs[0], "cuda", "resumed", "--resume_from_checkpoint", "true"), 0);
    program_same_file("resumed", jobs[0].name, "model.safetensors");
    cut_back("resumed");
    program_finish(start(&jobs[0], "cpu", "resumed", "--resume_from_checkpoint", "true"), 0);
    compare("sigmoid-cpu", "resumed");
    cut_back("sigmoid-cpu");
    program_finish(start(&jobs[0], "cuda", "sigmoid-cpu", "--resume_from_checkpoint", "true"), 0);
    compare(jobs[0].name, "sigmoid-cpu");
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

/* bf16 is another computation: its loss is off by what bf16 rounds, and its bits are as repeatable. */
static void bf16_near_the_cpu(void **state)
{
    (void)state;
    if (part()) return;
    const char *const most = bf16_steps();
    const job masters = {"bf16", "llama3", {TRAIN, "--bf16", "true", "--max_steps", most}};
    const job cpu = {"bf16-cpu", "llama3", {TRAIN, "--max_steps", most}};
    const job half = {"bf16-all",
                      "llama3",
                      {TRAIN, "--bf16", "true", "--max_steps", most, "--master_weights", "false"}};
    program_finish(start(&cpu, "cpu", cpu.name, NULL, NULL), 0);
    program_finish(start(&masters, "cuda", masters.name, NULL, NULL), 0);
    program_finish(start(&masters, "cuda", "bf16-again", NULL, NULL), 0);
    program_same_file("bf16-again", masters.name, "model.safetensors");
    printf("%-12s loss differs by at most %.1e\n", masters.name,
           compare_loss(cpu.name, masters.name));
    program_finish(start(&half, "cuda", half.name, "--gradient_dtype", "bfloat16"), 0);
    printf("%-12s loss differs by at most %.1e\n", half.name, compare_loss(cpu.name, half.name));
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_series_as_the_cpu),
        cmocka_unit_test(bf16_near_the_cpu),
        cmocka_unit_test(same_bits_again_and_lazily),
        cmocka_unit_test(a_step_waits_once),
        cmocka_unit_test(resumed_on_either_device),
        cmocka_unit_test(no_gpu),
        cmocka_unit_test(no_plugin),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
