/* test_cuda_bf16.c - `cudpo train --device cuda` in bf16: it learns what the CPU learns in float32, goes on after an
 * interruption with the bits of a run that had none, and does not depend on when the device works. */
/* rooms: train */
/* backends: plugin */
#include "test_cuda_job.h"
#include "base/json.h"

/* Each of the same two pairs, or four completions.  The data have them twice, so that packs of steps are not those whose scores
 * are cached.  Checkpoints are of steps 2, 4 and 5. */
enum { STEPS = 5, SAVED = 2 };

/* Paths of first rows of the golden files. */
static char pairs[640], completions[640], evaluated[640];

/* What a step changes is large beside what bf16 can't tell apart: see check_series(). */
#define RUN_IN_STEPS                                                           \
    "--max_steps", "5", "--save_steps", "2", "--learning_rate", "0.001953125", \
        "--lr_scheduler_type", "constant"
#define PAIRS                                                                                    \
    RUN_IN_STEPS, "--train_dataset", pairs, "--train_sampling_strategy", "sequential", "--beta", \
        "0.03"
#define KTO                                                                              \
    RUN_IN_STEPS, "--train_dataset", completions, "--loss_type", "kto", "--beta", "0.1", \
        "--gradient_accumulation_steps", "2"

/* A job, and what it is on the device besides. */
static const struct {
    job job;
    const char *device[10];
} jobs[] = {
    {{"bf16", "llama3", {PAIRS}}, {"--bf16", "true"}},
    {{"bf16-all", "qwen3", {PAIRS}},
     {"--bf16", "true", "--master_weights", "false", "--gradient_dtype", "bfloat16"}},
    {{"bf16-kto", "qwen2", {KTO}}, {"--bf16", "true"}},
    {{"bf16-cached", "llama3", {PAIRS}}, {"--bf16", "true", "--precompute_ref_log_probs", "true"}},
    {{"bf16-kto-cached", "llama3", {KTO}},
     {"--bf16", "true", "--precompute_ref_log_probs", "true"}},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

/* The first rows of a golden file into the scratch folder, so many times. */
static void take_rows(char path[640], const char *name, int rows, int times)
{
    char from[128], all[8192], *text = NULL, *end;
    size_t n, used = 0;
    snprintf(from, sizeof from, "tests/golden/data/%s", name);
    CHECK_OK(file_read(&text, &n, from, 1 << 20));
    for (end = text; rows > 0; rows--) {
        end = strchr(end, '\n');
        assert_non_null(end);
        end++;
    }
    for (; times > 0; times--)
        used += (size_t)snprintf(all + used, sizeof all - used, "%.*s", (int)(end - text), text);
    assert_true(used < sizeof all);
    snprintf(path, 640, "%s", scratch_write(name, all, used));
    free(text);
}

static int make_data(void **state)
{
    (void)state;
    take_rows(pairs, "train.jsonl", 2, 2);
    take_rows(completions, "kto.jsonl", 4, 2);
    take_rows(evaluated, "eval.jsonl", 4, 1);
    return 0;
}

typedef struct series {
    double loss[STEPS], norm[STEPS];
} series;

static double number_of(const json *line, const char *name)
{
    const json *v = json_get(line, name);
    assert_non_null(v);
    return json_number(v);
}

static series read_series(const char *output)
{
    series s;
    size_t n;
    char *text = program_file(output, "metrics.jsonl", &n), *rest = NULL;
    int i = 0;
    for (char *p = strtok_r(text, "\n", &rest); p != NULL; p = strtok_r(NULL, "\n", &rest), i++) {
        json *line = NULL;
        CHECK_OK(json_parse(&line, p, strlen(p), output));
        assert_true(i < STEPS);
        s.loss[i] = number_of(line, "loss");
        s.norm[i] = number_of(line, "grad_norm");
        json_free(line);
    }
    assert_int_equal(i, STEPS);
    free(text);
    return s;
}

static double near(const char *output, const char *what, int step, double one, double other,
                   double tolerance)
{
    const double difference = fabs(one - other);
    if (!(difference <= tolerance))
        fail_msg("%s, step %d: %s %.6g on the CPU, %.6g in bf16: %g apart, and %g is allowed",
                 output, step + 1, what, one, other, difference, tolerance);
    return difference;
}

/* How far bf16 may be from float32.
 *
 * A rounding to bf16 moves a value by at most 2^-8 of it.  On the way to a log-prob, and back to a gradient, are some 16
 * roundings in two layers, each as likely up as down, of 2^-8 / 3^(1/2) on average: together 16^(1/2) of that, 1e-2 of a
 * logit of size 1, or of a gradient; of the norm of all gradients no more than that.
 *
 * A reward is beta times the difference of two sums of some 15 log-probs, and a pair has two: at first the policy and the
 * reference round alike, or 0.03 60^(1/2) 1e-2 = 2e-3 apart, and 0.1 30^(1/2) 1e-2 = 6e-3 for KTO.
 *
 * What moves the rewards is the weights' steps.  Adam makes the first of the size of the learning rate, 2^-9: a whole number of
 * bf16's spacings for every weight below 1/2, which nearly all are, and they begin as bf16 numbers, so that copies of master
 * weights make it in full.  Later ones are rounded as likely up as down.  So a reward's change z is off by what its gradient is,
 * some 1e-2, and what copies are, no more: 2e-2 z.
 * The loss is off by its slope times that: 2e-2 z sigmoid(-z) <= 2e-2 0.28 and for KTO 2e-2 z sigmoid(z) sigmoid(-z) <= 2e-2
 * 0.23, and by 1/2 2e-3 and 1/4 6e-3: at most 7e-3.  Where z only grows the slope only falls, so the change of the loss is off
 * by a share no larger than that of z, and by those: of the least change, 0.12, at most 3.5e-2 together.
 *
 * Gradients have the slope as a factor: their norm is off by 1e-2, and by what the slope is, at most 2e-2 z for either loss,
 * where z reaches 2: 5e-2 together. */
static const double loss_off = 1e-2, change_off = 4e-2, first_norm_off = 1e-2, norm_off = 5e-2;

static void check_series(const char *cpu, const char *cuda)
{
    const series one = read_series(cpu), other = read_series(cuda);
    double loss = 0.0, change = 0.0, norm = 0.0;
    if (!(one.loss[0] - one.loss[STEPS - 1] >= 10 * loss_off))
        fail_msg("%s: the loss goes from %g to %g, too little to tell", cpu, one.loss[0],
                 one.loss[STEPS - 1]);
    for (int i = 0; i < STEPS; i++) {
        loss = fmax(loss, near(cuda, "loss", i, one.loss[i], other.loss[i], loss_off));
        const double size = one.norm[i], moved = one.loss[i] - one.loss[0];
        norm = fmax(norm, near(cuda, "grad_norm", i, size, other.norm[i],
                               size * (i == 0 ? first_norm_off : norm_off)) /
                              size);
        if (i == 0) continue;
        assert_true(moved < -0.1);
        change = fmax(change, near(cuda, "change of the loss", i, moved,
                                   other.loss[i] - other.loss[0], -moved * change_off) /
                                  -moved);
    }
    printf("%-16s differs by %.1e of the loss, %.1e of its change, %.1e of the gradient's norm\n",
           cuda, loss, change, norm);
}

static void learns_as_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < (job_part() ? 1 : JOBS); i++) {
        const job half = job_with(&jobs[i].job, jobs[i].device);
        char cpu[64];
        snprintf(cpu, sizeof cpu, "%s-cpu", half.name);
        job_run(&jobs[i].job, "cpu", cpu);
        job_run(&half, "cuda", half.name);
        check_series(cpu, half.name);
    }
}

/* A copy of a file of one folder of the scratch folder in another. */
static void keep(const char *to, const char *from, const char *name)
{
    char source[1400], target[1400];
    snprintf(source, sizeof source, "%s/%s", scratch_path(from), name);
    snprintf(target, sizeof target, "%s/%s", scratch_path(to), name);
    CHECK_OK(file_copy(target, source));
}

/* The first two jobs again: the policy is made of the master weights; where there are none, it is what was saved. */
static void resumed_with_the_same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < (job_part() ? 1 : 2); i++) {
        const job half = job_with(&jobs[i].job, jobs[i].device);
        const job resumed = JOB_WITH(&half, "--resume_from_checkpoint", "true");
        char whole[64];
        snprintf(whole, sizeof whole, "%s-whole", half.name);
        CHECK_OK(file_make_folder(scratch_path(whole)));
        keep(whole, half.name, "model.safetensors");
        keep(whole, half.name, "metrics.jsonl");
        program_cut_back(half.name, SAVED, STEPS);
        job_run(&resumed, "cuda", half.name);
        program_same_file(whole, half.name, "model.safetensors");
        program_same_metrics(whole, half.name);
    }
}

/* Steps of two micro-batches and several packs, of which two are under way at a time, with evaluations between them: when the
 * device works, as late or as early as may be, changes no bit. */
static void lazily_with_the_same_bits(void **state)
{
    (void)state;
    static const job evaluating = {
        "lazy", "llama3", {"--train_dataset", pairs, "--eval_dataset", evaluated}};
    const job lazy = JOB_WITH(&evaluating, "--bf16", "true", "--eval_strategy", "steps",
                              "--eval_steps", "4", "--logging_steps", "4", "--max_steps", "5",
                              "--save_strategy", "no", "--per_device_train_batch_size", "1",
                              "--gradient_accumulation_steps", "2", "--max_tokens_per_pack", "1",
                              "--precompute_ref_log_probs", "true", "--learning_rate", "1e-3");
    if (!plugin_emulated() || job_part()) return;
    job_run(&lazy, "cuda", "eager");
    static const char *const modes[] = {"1", "ahead"};
    for (int i = 0; i < 2; i++) {
        job_run_lazily(&lazy, modes[i], modes[i]);
        program_same_file("eager", modes[i], "model.safetensors");
        program_same_metrics("eager", modes[i]);
    }
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns_as_the_cpu),
        cmocka_unit_test(resumed_with_the_same_bits),
        cmocka_unit_test(lazily_with_the_same_bits),
    };
    return cmocka_run_group_tests(tests, make_data, scratch_remove);
}
