/* test_cuda_plan.c - what fine-tuning all weights of an 8 B model takes of a GPU with 141 GB, planned before any of it is
 * asked for: which settings fit and which do not. */
/* rooms: train */
/* backends: plugin */
#include "plugin.h"
#include "scratch.h"
#include "train/memory.h"

/* Llama-3.1-8B's config.json, as far as sizes go. */
static const char llama_8b[] =
    "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 4096, "
    "\"num_hidden_layers\": 32, \"num_attention_heads\": 32, \"num_key_value_heads\": 8, "
    "\"intermediate_size\": 14336, \"vocab_size\": 128256, \"max_position_embeddings\": 131072, "
    "\"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"hidden_act\": \"silu\", "
    "\"tie_word_embeddings\": false, \"dtype\": \"bfloat16\"}";

/* Embedding and head 2 x 128256 x 4096; a layer: q and o 4096^2 each, k and v 1024 x 4096 each, gate, up and down
 * 14336 x 4096 each, two norms; a last norm. */
static const int64_t parameters =
    INT64_C(2) * 128256 * 4096 +
    INT64_C(32) * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 2 * 4096) + 4096;

/* 141 GB as the runtime of such a GPU counts them, 139.8 GiB, less 1 GB for its context and the program's code. */
static cudpo_status free_memory(backend *be, size_t *bytes)
{
    (void)be;
    *bytes = (size_t)149 * 1000 * 1000 * 1000;
    return CUDPO_OK;
}

/* A pair whose completions are cut off at 1,024 tokens with their prompt, so that its group is of some 1,500. */
static const char *write_pair(void)
{
    static char text[8192];
    char *at = text + sprintf(text, "{\"prompt\": \"");
    for (int i = 0; i < 600; i++)
        *at++ = (char)('a' + i * i % 26);
    at += sprintf(at, "\", \"chosen\": \" ");
    for (int i = 0; i < 3000; i++)
        *at++ = (char)('a' + i * i % 23);
    at += sprintf(at, "\", \"rejected\": \" ");
    for (int i = 0; i < 3000; i++)
        *at++ = (char)('a' + i * i % 19);
    sprintf(at, "\"}\n");
    return scratch_text("pair.jsonl", text);
}

enum { FULL = 132 * 128 }; /* tokens of a pack that fills the chip */

typedef struct fixture {
    cudpo_config config;
    cudpo_trainer t;
} fixture;

/* A trainer that knows its model and data, and has no memory yet. */
static void open_fixture(fixture *f, const char *const *settings)
{
    *f = (fixture){0};
    CHECK_OK(cudpo_config_create(&f->config));
    CHECK_OK(cudpo_config_set(&f->config, "gradient_accumulation_steps", "4")); /* of 8 pairs */
    for (; *settings != NULL; settings += 2)
        CHECK_OK(cudpo_config_set(&f->config, settings[0], settings[1]));
    cudpo_trainer *t = &f->t;
    t->config = &f->config;
    t->alone = ranks_alone(&f->config);
    t->ranks = &t->alone;
    t->batch_ranks = 1;
    t->traits = loss_traits_find(f->config.loss_type, &t->loss);
    t->completions = 2;
    t->rewards = true;
    t->type = DTYPE_BF16;
    CHECK_OK(backend_open(&t->be, "cuda", &(backend_options){0}));
    t->be->available_memory = free_memory;
    (void)scratch_text("config.json", llama_8b);
    CHECK_OK(model_config_load(&t->model, scratch_folder()));
    assert_true(model_config_parameters(&t->model) == parameters);
    CHECK_OK(tokenizer_load(&t->tokenizer, "tests/golden/models/llama3"));
    const dataset_options options = {.kind = ROW_PAIR, .max_length = 1024, .rules = RULES_JOINED};
    CHECK_OK(dataset_open(&t->train.data, write_pair(), t->tokenizer, &options));
}

static void close_fixture(fixture *f)
{
    dataset_close(f->t.train.data);
    tokenizer_free(f->t.tokenizer);
    f->t.be->close(f->t.be);
    cudpo_config_free(&f->config);
}

/* With fp32 master weights, gradients and moments: 2 + 4 + 4 + 8 bytes a parameter are 144.5 GB, and even a reference whose
 * layers are streamed takes 3 more. */
static void defaults_do_not_fit(void **state)
{
    (void)state;
    fixture f;
    memory_forecast m;
    open_fixture(&f, (const char *const[]){NULL});
    assert_int_equal(memory_plan(&m, &f.t, true), CUDPO_ENOMEM);
    const char *why = cudpo_error_message();
    static const char *const parts[] = {"147.93 can be had",         "weights 16.06",
                                        "master weights 32.12",      "streamed reference 2.97",
                                        "gradients 32.12",           "moments 64.24",
                                        "--gradient_dtype bfloat16", "--master_weights false"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(why, parts[i]) == NULL) fail_msg("no %s: %s", parts[i], why);
    cudpo_error_clear();
    close_fixture(&f);
}

/* bytes_a_parameter: of weights, their copies, gradients and moments; the rest is for packs. */
static void fits(const char *const *settings, bool streamed, int bytes_a_parameter,
                 int64_t least_tokens)
{
    fixture f;
    memory_forecast m;
    open_fixture(&f, settings);
    CHECK_OK(memory_plan(&m, &f.t, true));
    printf("%s %s: %.1f GB with packs of %lld tokens\n", settings[2], settings[3],
           (double)m.bytes * 1e-9, (long long)m.limits.tokens);
    assert_int_equal(m.offload, streamed);
    assert_true(m.limits.tokens >= least_tokens && m.limits.tokens <= FULL);
    assert_true((double)m.bytes > (double)parameters * bytes_a_parameter && m.bytes < 149e9);
    close_fixture(&f);
}

static void bf16_gradients_fit(void **state)
{
    (void)state;
    /* 2 + 4 + 2 + 8 = 16 bytes a parameter, 128.5 GB.  A resident reference takes 16.1 more and leaves 4.4 for packs. */
    fits((const char *const[]){"gradient_dtype", "bfloat16", "ref_model_offload", "null", NULL},
         false, 18, 2 * 1536);
    fits((const char *const[]){"gradient_dtype", "bfloat16", "ref_model_offload", "true", NULL},
         true, 16, FULL);
    fits((const char *const[]){"gradient_dtype", "bfloat16", "precompute_ref_log_probs", "true",
                               NULL},
         false, 16, FULL);
    /* 2 + 2 + 8 = 12 bytes, and 2 of the reference. */
    fits((const char *const[]){"gradient_dtype", "bfloat16", "master_weights", "false", NULL},
         false, 14, FULL);
}

int main(void)
{
    if (plugin_missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_do_not_fit),
        cmocka_unit_test(bf16_gradients_fit),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
