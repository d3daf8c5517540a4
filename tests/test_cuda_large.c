/* test_cuda_large.c - models of real shapes with random weights, trained on the CUDA backend in packs that fill the chip: the
 * first loss is ln 2, runs give the same bits, and the memory taken is what was forecast.  On the emulator a narrow model
 * stands for them. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"
#include "base/json.h"
#include "random_model.h"
#include "train/trainer.h"

typedef struct named_shape {
    const char *name;
    model_shape shape;
} named_shape;

/* Qwen2.5-0.5B and Llama-3.2-1B as Llamas: the sizes are theirs. */
static const named_shape real[] = {{"0.5B", {896, 24, 14, 2, 64, 4864, 151936, "bfloat16"}},
                                   {"1B", {2048, 16, 32, 8, 64, 8192, 128256, "bfloat16"}}};
static const named_shape narrow[] = {{"narrow", {64, 2, 4, 2, 64, 128, 512, "bfloat16"}}};
enum { GPU_STEPS = 20, EMULATED_STEPS = 2 };
enum { FULL = 132 * 128 }; /* tokens of a pack that fills the chip */

static int steps(void)
{
    return plugin_emulated() ? EMULATED_STEPS : GPU_STEPS;
}

/* Length limits: of a sequence in tokens, and of what is written of each text in characters, most of which are tokens. */
static int longest(void)
{
    return plugin_emulated() ? 64 : 1024;
}

static char *random_text(char *at, uint32_t *state, int least, int most)
{
    const int n = least + (int)((*state = *state * 1664525u + 1013904223u) >> 8) % (most - least);
    for (int i = 0; i < n; i++) {
        *state = *state * 1664525u + 1013904223u;
        *at++ = " abcdefghijklmnopqrstuvwxyz.,;:0123456789"[(*state >> 16) % 41];
    }
    return at;
}

/* Pairs of all lengths up to the longest, some of them cut off there. */
static void make_data(const char *name)
{
    enum { ROWS = 96, ROOM = 4096 };
    const int most = longest();
    uint32_t state = 1;
    char *text = malloc((size_t)ROWS * ROOM), *at = text;
    assert_non_null(text);
    for (int row = 0; row < ROWS; row++) {
        at += sprintf(at, "{\"prompt\": \"");
        at = random_text(at, &state, most / 8, most / 2);
        at += sprintf(at, "\", \"chosen\": \" ");
        at = random_text(at, &state, most / 16, most * 5 / 8);
        at += sprintf(at, "\", \"rejected\": \" ");
        at = random_text(at, &state, most / 16, most * 5 / 8);
        at += sprintf(at, "\"}\n");
    }
    (void)scratch_write(name, text, (size_t)(at - text));
    free(text);
}

/* Memory that the device has left, while nobody else holds any of it but the backend that is asked. */
static size_t left(backend *be)
{
    size_t bytes = 0;
    CHECK_OK(be->available_memory(be, &bytes));
    return bytes;
}

enum { SETTINGS = 12 };

/* What a run is told, here and as a program: 32 pairs a step, which fill packs across micro-batches. */
typedef struct run {
    char model[640], data[640], number[16], length[16];
    const char *settings[SETTINGS][2];
} run;

static void make_run(run *r, const char *model)
{
    snprintf(r->model, sizeof r->model, "%s", scratch_path(model));
    snprintf(r->data, sizeof r->data, "%s", scratch_path("pairs.jsonl"));
    snprintf(r->number, sizeof r->number, "%d", steps());
    snprintf(r->length, sizeof r->length, "%d", longest());
    const char *const settings[][2] = {
        {"model_name_or_path", r->model},
        {"train_dataset", r->data},
        {"device", "cuda"},
        {"max_steps", r->number},
        {"max_length", r->length},
        {"per_device_train_batch_size", plugin_emulated() ? "2" : "4"},
        {"gradient_accumulation_steps", plugin_emulated() ? "2" : "8"},
        {"learning_rate", "1e-5"},
        {"logging_steps", "1"},
        {"save_strategy", "no"},
        {NULL, NULL}};
    memcpy(r->settings, settings, sizeof settings);
}

/* A run in this process: its memory, and the series of its losses.  Memory is looked at between steps: what is allocated and
 * freed within one is not seen, but nothing is to be (a_step_waits_once of test_cuda_train counts). */
static void train_here(double *losses, const run *r)
{
    cudpo_config c;
    cudpo_trainer *t = NULL;
    backend *observer = NULL, *like_the_run = NULL;
    CHECK_OK(cudpo_config_create(&c));
    CHECK_OK(cudpo_config_set(&c, "output_dir", scratch_path("here")));
    for (int i = 0; r->settings[i][0] != NULL; i++)
        CHECK_OK(cudpo_config_set(&c, r->settings[i][0], r->settings[i][1]));
    CHECK_OK(cudpo_config_check(&c));
    CHECK_OK(backend_open(&observer, "cuda", &(backend_options){0}));
    CHECK_OK(backend_open(&like_the_run, "cuda", &(backend_options){0})); /* what one takes empty */
    const size_t before = left(observer);
    like_the_run->close(like_the_run);
    CHECK_OK(cudpo_trainer_open(&t, &c));
    /* Packs are full: a step is more than one on average. */
    const dataset *d = t->train.data;
    if (!plugin_emulated()) assert_int_equal(t->memory.limits.tokens, FULL);
    if (!plugin_emulated()) assert_true(32 * dataset_tokens(d) / dataset_count(d) > FULL);
    size_t least = left(observer);
    for (int i = 0; i < steps(); i++) {
        cudpo_metrics m;
        CHECK_OK(cudpo_trainer_step(t, &m));
        losses[i] = m.loss;
        assert_true(isfinite(m.loss) && isfinite(m.grad_norm));
        const size_t now = left(observer);
        if (now < least) least = now;
    }
    const double used = (double)(before - least), forecast = (double)t->memory.bytes;
    printf(
        "%s: %.3f GB in use at most, %.3f forecast for packs of %lld tokens, %lld tokens a step\n",
        r->model, used * 1e-9, forecast * 1e-9, (long long)t->memory.limits.tokens,
        (long long)t->tokens_seen / steps());
    if (!(fabs(used - forecast) <= 0.05 * forecast)) fail_msg("that is more than 5 %% off");
    cudpo_trainer_close(t);
    observer->close(observer);
    cudpo_config_free(&c);
}
static void train_apart(const run *r, const char *output)
{
    char folder[640], keys[SETTINGS][64];
    const char *arguments[2 * SETTINGS + 4] = {"train", "--output_dir", folder};
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    for (int i = 0, n = 3; r->settings[i][0] != NULL; i++) {
        snprintf(keys[i], sizeof keys[i], "--%s", r->settings[i][0]);
        arguments[n++] = keys[i];
        arguments[n++] = r->settings[i][1];
    }
    program_finish(program_start(arguments), 0);
}

/* To the last bit the losses that were logged. */
static void check_losses(const char *output, const double *losses)
{
    size_t n;
    char *text = program_file(output, "metrics.jsonl", &n), *rest = NULL;
    int i = 0;
    for (char *p = strtok_r(text, "\n", &rest); p != NULL; p = strtok_r(NULL, "\n", &rest), i++) {
        json *line = NULL;
        CHECK_OK(json_parse(&line, p, strlen(p), output));
        assert_true(i < steps() && json_number(json_get(line, "loss")) == losses[i]);
        json_free(line);
    }
    assert_int_equal(i, steps());
    free(text);
}

static void as_forecast_and_repeatable(void **state)
{
    (void)state;
    const int shapes = plugin_emulated() ? 1 : 2;
    make_data("pairs.jsonl");
    for (int i = 0; i < shapes; i++) {
        const named_shape *s = plugin_emulated() ? &narrow[i] : &real[i];
        static const char *const outputs[] = {"first", "second"};
        double losses[GPU_STEPS];
        run r;
        random_model_make(s->name, &s->shape, 1);
        make_run(&r, s->name);
        train_here(losses, &r);
        CHECK_NEAR(losses[0], log(2.0), 1e-6);
        if (getenv("CUDPO_TEST_PART") != NULL) continue; /* for builds that are slow */
        for (int k = 0; k < 2; k++) {
            train_apart(&r, outputs[k]);
            check_losses(outputs[k], losses);
        }
        program_same_file("first", "second", "model.safetensors");
        for (int k = 0; k < 2; k++) /* room for the next shape */
            CHECK_OK(file_remove_folder(scratch_path(outputs[k])));
    }
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_forecast_and_repeatable)};
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
