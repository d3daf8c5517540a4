/* test_plan.h - runs to plan: models and data, and plans of them. */
#ifndef CUDPO_TEST_PLAN_H
#define CUDPO_TEST_PLAN_H

#include "program.h"
#include "plan/plan.h"

#include <sys/stat.h>

#define MODEL "tests/golden/models/llama"
#define PAIRS "tests/golden/data/train.jsonl"
#define RUN_OF "plan", "--model_name_or_path", MODEL, "--train_dataset", PAIRS

/* Of 8 B parameters, without weights: a plan reads none. */
static inline const char *big_model(void)
{
    static char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("8b"));
    if (mkdir(folder, 0777) != 0) return folder;
    char *tokens = NULL;
    size_t n;
    CHECK_OK(file_read(&tokens, &n, MODEL "/tokenizer.json", (size_t)1 << 26));
    (void)scratch_write("8b/tokenizer.json", tokens, n);
    free(tokens);
    CHECK_OK(file_read(&tokens, &n, MODEL "/tokenizer_config.json", (size_t)1 << 26));
    (void)scratch_write("8b/tokenizer_config.json", tokens, n);
    free(tokens);
    (void)scratch_text(
        "8b/config.json",
        "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": "
        "4096, \"num_hidden_layers\": 32, \"num_attention_heads\": 32, \"num_key_value_heads\": 8, "
        "\"intermediate_size\": 14336, \"vocab_size\": 128256, \"max_position_embeddings\": 8192, "
        "\"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"hidden_act\": \"silu\", "
        "\"tie_word_embeddings\": false, \"dtype\": \"bfloat16\"}");
    return folder;
}

static inline int occurrences(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)) != NULL; text++)
        n++;
    return n;
}

/* Pairs of 60 to 600 characters in a file. */
static inline const char *long_pairs(void)
{
    enum { ROWS = 29 };
    static char text[ROWS * 2048];
    char *at = text;
    for (int i = 0; i < ROWS; i++) {
        static const char *const keys[3] = {"{\"prompt\": \"", "\", \"chosen\": \" ",
                                            "\", \"rejected\": \" "};
        for (int k = 0; k < 3; k++) {
            at += sprintf(at, "%s", keys[k]);
            const int n = 20 + (i * i * 37 + k * 53) % 180;
            for (int j = 0; j < n; j++)
                *at++ = (char)('a' + (i * 7 + j * j + k) % 26);
        }
        at += sprintf(at, "\"}\n");
    }
    return scratch_text("long.jsonl", text);
}

typedef struct planned {
    cudpo_config config;
    plan p;
} planned;

/* In: settings  key, value, .., NULL. */
static inline cudpo_status open_planned(planned *of, const cudpo_plan_options *o, const char *model,
                                        const char *const *settings)
{
    CHECK_OK(cudpo_config_create(&of->config));
    CHECK_OK(cudpo_config_set(&of->config, "model_name_or_path", model));
    CHECK_OK(cudpo_config_set(&of->config, "train_dataset", long_pairs()));
    for (; *settings != NULL; settings += 2)
        CHECK_OK(cudpo_config_set(&of->config, settings[0], settings[1]));
    CHECK_OK(cudpo_config_check(&of->config));
    return plan_open(&of->p, &of->config, o);
}

static inline void close_planned(planned *of)
{
    plan_free(&of->p);
    cudpo_config_free(&of->config);
}

#define OPEN(of, model, options, ...)                              \
    CHECK_OK(open_planned(of, &(cudpo_plan_options)options, model, \
                          (const char *const[]){__VA_ARGS__, NULL}))
#define WITH(...)   \
    {               \
        __VA_ARGS__ \
    }

#endif /* CUDPO_TEST_PLAN_H */
