/* test_cuda_large.c - models of real shapes with random weights, trained on the CUDA backend: the first loss is ln 2, two runs
 * give the same bits, and the memory taken is what was forecast.  On the emulator a narrow model stands for them. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "program.h"
#include "cudpo/model.h"
#include "train/trainer.h"

typedef struct shape {
    const char *name;
    int hidden, layers, heads, kv_heads, ffn, vocabulary;
} shape;

/* Qwen2.5-0.5B and Llama-3.2-1B as Llamas: the sizes are theirs. */
static const shape real[] = {{"0.5B", 896, 24, 14, 2, 4864, 151936},
                             {"1B", 2048, 16, 32, 8, 8192, 128256}};
static const shape narrow[] = {{"narrow", 64, 2, 4, 2, 128, 512}};
enum { GPU_STEPS = 20, EMULATED_STEPS = 2, HEAD_DIM = 64 };

static int steps(void)
{
    return plugin_emulated() ? EMULATED_STEPS : GPU_STEPS;
}

static void make_model(const char *folder, const shape *s)
{
    static const char golden[] = "tests/golden/models/llama3";
    char from[128], to[800];
    CHECK_OK(file_make_folder(folder));
    snprintf(from, sizeof from, "%s/tokenizer.json", golden);
    snprintf(to, sizeof to, "%s/tokenizer.json", folder);
    CHECK_OK(file_copy(to, from));
    snprintf(from, sizeof from, "%s/tokenizer_config.json", golden);
    snprintf(to, sizeof to, "%s/tokenizer_config.json", folder);
    CHECK_OK(file_copy(to, from));
    snprintf(to, sizeof to, "%s/config.json", folder);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    fprintf(f,
            "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
            "\"hidden_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
            "\"num_key_value_heads\": %d, \"head_dim\": %d, \"intermediate_size\": %d, "
            "\"vocab_size\": %d, \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, "
            "\"rope_theta\": 500000.0, \"hidden_act\": \"silu\", \"eos_token_id\": 299, "
            "\"tie_word_embeddings\": true, \"dtype\": \"bfloat16\"}\n",
            s->hidden, s->layers, s->heads, s->kv_heads, HEAD_DIM, s->ffn, s->vocabulary);
    assert_int_equal(fclose(f), 0);
    CHECK_OK(cudpo_model_randomise(folder, 1));
}

/* Memory that the device has left, while nobody else holds any of it but the backend that is asked. */
static size_t left(backend *be)
{
    size_t bytes = 0;
    CHECK_OK(be->available_memory(be, &bytes));
    return bytes;
}

static void configure(cudpo_config *c, const char *model, const char *output)
{
    char number[16];
    CHECK_OK(cudpo_config_create(c));
    snprintf(number, sizeof number, "%d", steps());
    const char *const settings[][2] = {{"model_name_or_path", model},
                                       {"train_dataset", "tests/golden/data/train.jsonl"},
                                       {"output_dir", output},
                                       {"device", "cuda"},
                                       {"max_steps", number},
                                       {"max_length", "64"},
                                       {"per_device_train_batch_size", "4"},
                                       {"learning_rate", "1e-5"},
                                       {"save_strategy", "no"}};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        CHECK_OK(cudpo_config_set(c, settings[i][0], settings[i][1]));
    CHECK_OK(cudpo_config_check(c));
}

/* A run in this process: its memory, and the series of its losses. */
static void train_here(double *losses, const char *model, const char *output)
{
    cudpo_config c;
    cudpo_trainer *t = NULL;
    backend *observer = NULL, *like_the_run = NULL;
    configure(&c, model, output);
    CHECK_OK(backend_open(&observer, "cuda", &(backend_options){0}));
    CHECK_OK(backend_open(&like_the_run, "cuda", &(backend_options){0})); /* what one takes empty */
    const size_t before = left(observer);
    like_the_run->close(like_the_run);
    CHECK_OK(cudpo_trainer_open(&t, &c));
    for (int i = 0; i < steps(); i++) {
        cudpo_metrics m;
        CHECK_OK(cudpo_trainer_step(t, &m));
        losses[i] = m.loss;
        assert_true(isfinite(m.loss) && isfinite(m.grad_norm));
    }
    const double used = (double)(before - left(observer)), forecast = (double)t->memory.bytes;
    printf("%s: %.3f GB in use, %.3f forecast\n", model, used * 1e-9, forecast * 1e-9);
    if (!(fabs(used - forecast) <= 0.05 * forecast)) fail_msg("that is more than 5 %% off");
    cudpo_trainer_close(t);
    observer->close(observer);
    cudpo_config_free(&c);
}

static void as_forecast_and_repeatable(void **state)
{
    (void)state;
    const int shapes = plugin_emulated() ? 1 : 2;
    for (int i = 0; i < shapes; i++) {
        const shape *s = plugin_emulated() ? &narrow[i] : &real[i];
        double losses[2][GPU_STEPS];
        char model[640], output[640], number[16];
        snprintf(model, sizeof model, "%s", scratch_path(s->name));
        make_model(model, s);
        const int runs = getenv("CUDPO_TEST_PART") != NULL ? 1 : 2; /* for builds that are slow */
        for (int run = 0; run < runs; run++) {
            snprintf(output, sizeof output, "%s", scratch_path("here"));
            train_here(losses[run], model, output);
        }
        CHECK_NEAR(losses[0][0], log(2.0), 1e-6);
        if (runs == 1) continue;
        assert_memory_equal(losses[0], losses[1], (size_t)steps() * sizeof losses[0][0]);
        snprintf(number, sizeof number, "%d", steps());
        for (int run = 0; run < 2; run++) {
            snprintf(output, sizeof output, "%s", scratch_path(run == 0 ? "first" : "second"));
            const char *const arguments[] = {"train",
                                             "--model_name_or_path",
                                             model,
                                             "--train_dataset",
                                             "tests/golden/data/train.jsonl",
                                             "--output_dir",
                                             output,
                                             "--device",
                                             "cuda",
                                             "--max_steps",
                                             number,
                                             "--max_length",
                                             "64",
                                             "--save_strategy",
                                             "no",
                                             "--overwrite_output_dir",
                                             "true",
                                             NULL};
            program_finish(program_start(arguments), 0);
        }
        program_same_file("first", "second", "model.safetensors");
    }
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_forecast_and_repeatable)};
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
