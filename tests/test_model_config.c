/* test_model_config.c - config.json in every spelling, its defaults, and what is refused. */
/* rooms: model */
#include "test.h"
#include "base/file.h"
#include "model/config.h"

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

static char folder[] = "/tmp/cudpo-config-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_folder(folder) != CUDPO_OK;
}

static const char *in_folder(const char *name)
{
    static char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put_file(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static cudpo_status load(model_config *c, const char *text)
{
    put_file("config.json", text, strlen(text));
    return model_config_load(c, folder);
}

#define SIZES                                                                                 \
    "\"vocab_size\":100,\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4," \
    "\"num_attention_heads\":8"
#define LLAMA(more) \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," SIZES more "}"
#define MODEL(type, more) "{\"model_type\":\"" type "\"," SIZES more "}"

static void both_spellings_of_a_real_model(void **state)
{
    (void)state;
    const char *old = test_data("stories260k-hf");
    if (old == NULL) skip();
    model_config a, b;
    CHECK_OK(model_config_load(&a, old));
    CHECK_OK(model_config_load(&b, test_data("stories260k-hf-bf16-sharded")));
    assert_int_equal(a.torch_dtype, DTYPE_F32);
    assert_int_equal(b.torch_dtype, DTYPE_BF16);
    b.torch_dtype = a.torch_dtype;
    assert_memory_equal(&a, &b, sizeof a); /* both came from a zeroed struct */
    assert_string_equal(a.model_type, "llama");
    assert_true(a.vocab_size == 512 && a.hidden_size == 64 && a.intermediate_size == 172);
    assert_true(a.num_hidden_layers == 5 && a.num_attention_heads == 8);
    assert_true(a.num_key_value_heads == 4 && a.head_dim == 8);
    assert_int_equal(a.max_position_embeddings, 512);
    CHECK_NEAR((double)a.rms_norm_eps, 1e-5, 1e-12);
    assert_true(a.tie_word_embeddings && !a.qkv_bias && !a.o_bias && !a.mlp_bias && !a.qk_norm);
    assert_true(a.bos_token_id == 1 && a.eos_count == 1 && a.eos_token_id[0] == 2);
    assert_int_equal(model_config_parameters(&a), 260032); /* as its README says */
    assert_int_equal(model_config_window(&a, 0), 0);
}

static void defaults_of_each_class(void **state)
{
    (void)state;
    model_config c;
    CHECK_OK(load(&c, MODEL("llama", "")));
    assert_true(c.num_key_value_heads == 8 && c.head_dim == 8 && c.sliding_window == 0);
    assert_true(c.max_position_embeddings == 2048 && !c.tie_word_embeddings && !c.qkv_bias);
    assert_true(c.torch_dtype == DTYPE_F32 && c.bos_token_id == -1 && c.eos_count == 0);
    CHECK_NEAR((double)c.rms_norm_eps, 1e-6, 1e-13);
    CHECK_NEAR(c.rope_theta, 10000, 0);
    CHECK_NEAR(c.initializer_range, 0.02, 0);
    CHECK_OK(load(&c, MODEL("mistral", "")));
    assert_true(c.num_key_value_heads == 8 && c.sliding_window == 4096);
    assert_true(c.first_window_layer == 0 && model_config_window(&c, 3) == 4096);
    CHECK_OK(load(&c, MODEL("mistral", ",\"sliding_window\":null")));
    assert_int_equal(c.sliding_window, 0);
    CHECK_OK(load(&c, MODEL("qwen2", ",\"num_key_value_heads\":2")));
    assert_true(c.qkv_bias && !c.o_bias && !c.qk_norm && c.sliding_window == 0);
    CHECK_OK(load(&c, MODEL("qwen3", ",\"num_key_value_heads\":2")));
    assert_true(c.qk_norm && !c.qkv_bias && c.head_dim == 128);
    /* An absent key is the class's 32, which does not divide 8; null is as many as heads. */
    CHECK_FAILS(load(&c, MODEL("qwen2", "")), CUDPO_EDATA, "num_key_value_heads");
    CHECK_OK(load(&c, MODEL("qwen2", ",\"num_key_value_heads\":null")));
    assert_int_equal(c.num_key_value_heads, 8);
    CHECK_OK(load(&c, "{\"architectures\":[\"MistralForCausalLM\"]," SIZES "}"));
    assert_string_equal(c.model_type, "mistral");
}

static void switches(void **state)
{
    (void)state;
    model_config c;
    CHECK_OK(load(&c, LLAMA(",\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":16,"
                            "\"tie_word_embeddings\":true,\"dtype\":\"float16\","
                            "\"torch_dtype\":\"float32\",\"hidden_act\":\"swish\"")));
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias && c.head_dim == 16);
    assert_true(c.tie_word_embeddings && c.torch_dtype == DTYPE_F16); /* dtype wins */
    CHECK_OK(load(&c, LLAMA(",\"torch_dtype\":\"torch.bfloat16\",\"dtype\":null")));
    assert_int_equal(c.torch_dtype, DTYPE_BF16);
    CHECK_OK(load(&c, MODEL("qwen3", ",\"num_key_value_heads\":8,\"attention_bias\":true,"
                                     "\"mlp_bias\":true")));
    assert_true(c.qkv_bias && c.o_bias && !c.mlp_bias); /* qwen3 has no mlp_bias */
    CHECK_OK(load(&c, MODEL("mistral", ",\"attention_bias\":true")));
    assert_true(!c.qkv_bias && !c.o_bias);
}

#define QWEN(more) MODEL("qwen2", ",\"num_key_value_heads\":8" more)

static void windows_of_qwen(void **state)
{
    (void)state;
    model_config c;
    CHECK_OK(load(&c, QWEN(",\"sliding_window\":16,\"max_window_layers\":2")));
    assert_int_equal(model_config_window(&c, 3), 0); /* use_sliding_window is off */
    CHECK_OK(load(&c, QWEN(",\"use_sliding_window\":true,\"sliding_window\":16,"
                           "\"max_window_layers\":2")));
    assert_int_equal(model_config_window(&c, 1), 0);
    assert_int_equal(model_config_window(&c, 2), 16);
    CHECK_OK(load(&c, QWEN(",\"use_sliding_window\":true,\"max_window_layers\":1")));
    assert_int_equal(model_config_window(&c, 1), 4096);
    CHECK_OK(load(&c, QWEN(",\"use_sliding_window\":true,\"sliding_window\":null")));
    assert_int_equal(model_config_window(&c, 3), 0);
    /* layer_types decides over max_window_layers */
    CHECK_OK(load(&c, QWEN(",\"use_sliding_window\":true,\"sliding_window\":16,"
                           "\"max_window_layers\":0,\"layer_types\":[\"full_attention\","
                           "\"full_attention\",\"full_attention\",\"sliding_attention\"]")));
    assert_true(model_config_window(&c, 2) == 0 && model_config_window(&c, 3) == 16);
    CHECK_OK(load(&c, QWEN(",\"layer_types\":[\"full_attention\",\"full_attention\","
                           "\"full_attention\",\"full_attention\"]")));
    assert_int_equal(model_config_window(&c, 3), 0);
    CHECK_FAILS(load(&c, QWEN(",\"use_sliding_window\":true,\"layer_types\":["
                              "\"sliding_attention\",\"full_attention\",\"full_attention\","
                              "\"full_attention\"]")),
                CUDPO_EDATA, "layer_types: entry 1");
    CHECK_FAILS(load(&c, QWEN(",\"layer_types\":[\"full_attention\",\"full_attention\","
                              "\"full_attention\",\"sliding_attention\"]")),
                CUDPO_EDATA, "no window");
    CHECK_FAILS(load(&c, QWEN(",\"layer_types\":[\"full_attention\"]")), CUDPO_EDATA,
                "num_hidden_layers = 4");
    CHECK_FAILS(load(&c, QWEN(",\"layer_types\":[\"linear_attention\",\"full_attention\","
                              "\"full_attention\",7]")),
                CUDPO_EDATA, "linear_attention");
}

static void rope_in_both_spellings(void **state)
{
    (void)state;
    static const char *const same[] = {
        LLAMA(",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
              "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
              "\"original_max_position_embeddings\":8192}"),
        LLAMA(",\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\","
              "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
              "\"original_max_position_embeddings\":8192}"),
        LLAMA(",\"rope_theta\":500000,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,"
              "\"low_freq_factor\":1,\"high_freq_factor\":4},\"rope_parameters\":{\"factor\":2},"
              "\"original_max_position_embeddings\":8192"),
    };
    for (int i = 0; i < 3; i++) {
        model_config c;
        CHECK_OK(load(&c, same[i]));
        assert_int_equal(c.rope, ROPE_LLAMA3);
        CHECK_NEAR(c.rope_theta, 500000, 0);
        CHECK_NEAR(c.rope_factor, 8, 0);
        CHECK_NEAR(c.rope_low_freq_factor, 1, 0);
        CHECK_NEAR(c.rope_high_freq_factor, 4, 0);
        assert_int_equal(c.rope_original_max_position, 8192);
    }
    model_config c;
    CHECK_OK(load(&c, LLAMA(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}")));
    assert_int_equal(c.rope, ROPE_LINEAR);
    CHECK_NEAR(c.rope_factor, 2.5, 0);
    CHECK_OK(load(&c, LLAMA(",\"rope_scaling\":{},\"rope_parameters\":{\"rope_theta\":7.0}")));
    assert_int_equal(c.rope, ROPE_DEFAULT);
    CHECK_NEAR(c.rope_theta, 7, 0);
}

/* Each: what is wrong, and words that the message must have. */
static void unsupported_things_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {MODEL("gemma2", ""), "model_type: \"gemma2\" is not supported; supported are Llama"},
        {"{" SIZES "}", "missing"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"],\"model_type\":\"llama\"," SIZES
         "}",
         "\"LlamaForSequenceClassification\" of model_type \"llama\""},
        {"{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"llama\"," SIZES "}", "Qwen2"},
        {"{\"architectures\":[],\"model_type\":\"llama\"," SIZES "}", "list of names"},
        {"{\"architectures\":\"LlamaForCausalLM\"," SIZES "}", "list of names"},
        {"{\"model_type\":3," SIZES "}", "model_type: must be a string"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}"),
         "rope_scaling.rope_type: \"yarn\" is not supported; supported are default, linear, "
         "llama3"},
        {LLAMA(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}"),
         "rope_scaling.type: \"dynamic\""},
        {LLAMA(",\"rope_parameters\":{\"rope_type\":\"longrope\"}"), "longrope"},
        {LLAMA(",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}"),
         "per layer"},
        {LLAMA(",\"rope_scaling\":[1]"), "must be an object"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"linear\"}"), "rope_scaling.factor: missing"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}"), "outside"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4}"),
         "high_freq_factor: missing"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
               "\"high_freq_factor\":4}"),
         "larger"},
        {LLAMA(",\"rope_theta\":-1"), "rope_theta"},
        {LLAMA(",\"partial_rotary_factor\":0.5"), "partial_rotary_factor: 0.5 is not supported"},
        {LLAMA(",\"rope_parameters\":{\"partial_rotary_factor\":0.25}"), "0.25"},
        {LLAMA(",\"hidden_act\":\"gelu\""),
         "hidden_act: \"gelu\" is not supported; supported is silu"},
        {LLAMA(",\"quantization_config\":{\"quant_method\":\"gptq\"}"), "quantised"},
        {LLAMA(",\"num_local_experts\":8"), "num_local_experts: mixture-of-experts"},
        {LLAMA(",\"torch_dtype\":\"float64\""), "torch_dtype: \"float64\""},
        {LLAMA(",\"dtype\":8"), "dtype: must be a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_config c;
        cudpo_error_clear();
        if (load(&c, cases[i].text) != CUDPO_EDATA) fail_msg("%s: not refused", cases[i].text);
        if (strstr(cudpo_error_message(), cases[i].word) == NULL ||
            strstr(cudpo_error_message(), "/config.json: ") == NULL)
            fail_msg("%s: \"%s\" without \"%s\"", cases[i].text, cudpo_error_message(),
                     cases[i].word);
    }
    cudpo_error_clear();
}

#define ODD(v, h, f, l, n, more)                                        \
    "{\"model_type\":\"llama\",\"vocab_size\":" v ",\"hidden_size\":" h \
    ",\"intermediate_size\":" f ",\"num_hidden_layers\":" l ",\"num_attention_heads\":" n more "}"

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {ODD("0", "64", "96", "4", "8", ""), "vocab_size: 0 is outside"},
        {ODD("-5", "64", "96", "4", "8", ""), "vocab_size: -5 is outside"},
        {ODD("1.5", "64", "96", "4", "8", ""), "vocab_size: must be an integer"},
        {ODD("1e30", "64", "96", "4", "8", ""), "vocab_size: must be an integer"},
        {ODD("\"9\"", "64", "96", "4", "8", ""), "must be an integer, not a string"},
        {ODD("null", "64", "96", "4", "8", ""), "vocab_size: missing"},
        {ODD("16777217", "64", "96", "4", "8", ""), "outside"},
        {ODD("9007199254740993", "64", "96", "4", "8", ""), "vocab_size: "},
        {ODD("9", "64", "96", "16385", "8", ""), "num_hidden_layers"},
        {ODD("9", "65", "96", "4", "8", ""), "do not divide hidden_size"},
        {ODD("9", "64", "96", "4", "8", ",\"num_key_value_heads\":3"), "3 does not divide 8"},
        {ODD("9", "64", "96", "4", "8", ",\"num_key_value_heads\":16"), "does not divide"},
        {ODD("9", "64", "96", "4", "8", ",\"head_dim\":7"), "head_dim: 7"},
        {ODD("9", "64", "96", "4", "8", ",\"head_dim\":258"), "head_dim: 258"},
        {ODD("9", "64", "96", "4", "8", ",\"head_dim\":0"), "head_dim"},
        {ODD("9", "24", "96", "4", "8", ""), "head_dim: 3"},
        {ODD("16777216", "16777216", "96", "4", "16777216", ",\"head_dim\":2"), "2^48"},
        {ODD("2", "16777216", "16777216", "16384", "16777216", ",\"head_dim\":256"), "2^48"},
        {ODD("9", "64", "96", "4", "8", ",\"rms_norm_eps\":0"), "rms_norm_eps"},
        {ODD("9", "64", "96", "4", "8", ",\"rms_norm_eps\":\"1e-5\""), "must be a number"},
        {ODD("9", "64", "96", "4", "8", ",\"initializer_range\":-0.1"), "initializer_range"},
        {ODD("9", "64", "96", "4", "8", ",\"tie_word_embeddings\":1"), "must be true or false"},
        {ODD("9", "64", "96", "4", "8", ",\"eos_token_id\":\"</s>\""), "eos_token_id: must be"},
        {ODD("9", "64", "96", "4", "8", ",\"eos_token_id\":[1,[2]]"), "eos_token_id: must be"},
        {ODD("9", "64", "96", "4", "8", ",\"eos_token_id\":[1,1,1,1,1,1,1,1,1]"), "more than 8"},
        {ODD("9", "64", "96", "4", "8", ",\"vocab_size\":10"), "twice"},
        {"[]", "must be an object"},
        {"\"config\"", "must be an object"},
        {"", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_config c;
        cudpo_error_clear();
        if (load(&c, cases[i].text) != CUDPO_EDATA) fail_msg("%s: not refused", cases[i].text);
        if (strstr(cudpo_error_message(), cases[i].word) == NULL)
            fail_msg("%s: \"%s\" without \"%s\"", cases[i].text, cudpo_error_message(),
                     cases[i].word);
    }
    model_config c;
    CHECK_FAILS(model_config_load(&c, in_folder("absent")), CUDPO_ENOINPUT,
                "absent: no such folder");
}

static void generation_config_has_precedence(void **state)
{
    (void)state;
    model_config c;
    static const char generation[] = "{\"bos_token_id\":null,\"eos_token_id\":[7,9]}";
    const char *text = LLAMA(",\"bos_token_id\":3,\"eos_token_id\":[4,5,1000,-1]");
    CHECK_OK(load(&c, text));
    assert_true(c.bos_token_id == 3 && c.eos_count == 2); /* ids outside the vocabulary: ignored */
    assert_true(c.eos_token_id[0] == 4 && c.eos_token_id[1] == 5);
    put_file("generation_config.json", generation, sizeof generation - 1);
    CHECK_OK(load(&c, text));
    assert_true(c.bos_token_id == 3 && c.eos_count == 2);
    assert_true(c.eos_token_id[0] == 7 && c.eos_token_id[1] == 9);
    put_file("generation_config.json", "{}", 2);
    CHECK_OK(load(&c, text));
    assert_int_equal(c.eos_token_id[0], 4);
    put_file("generation_config.json", "[]", 2);
    CHECK_FAILS(load(&c, text), CUDPO_EDATA, "generation_config.json: must be an object");
    assert_int_equal(unlink(in_folder("generation_config.json")), 0);
}

/* inv_freq of transformers 5.23's LlamaRotaryEmbedding in float32 (torch 2.15, CPU); head_dim 128. */
static void frequencies_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        rope_kind kind;
        double theta, factor;
        double at[5]; /* of j = 1, 28, 31, 35, 63 */
    } cases[] = {
        {ROPE_DEFAULT,
         1000000,
         1,
         {0.805842221, 0.00237137382, 0.00124093785, 0.000523299095, 1.24093776e-06}},
        {ROPE_LINEAR,
         10000,
         3,
         {0.288654774, 0.0059275981, 0.00384927331, 0.00216460554, 3.84927298e-05}},
        {ROPE_LLAMA3,
         500000,
         8,
         {0.814617217, 0.00321144611, 0.00085675146, 9.55621217e-05, 3.06892588e-07}},
    };
    static const int j[5] = {1, 28, 31, 35, 63};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const model_config c = {.head_dim = 128,
                                .rope = cases[i].kind,
                                .rope_theta = cases[i].theta,
                                .rope_factor = cases[i].factor,
                                .rope_low_freq_factor = 1,
                                .rope_high_freq_factor = 4,
                                .rope_original_max_position = 8192};
        double frequency[64];
        model_config_frequencies(&c, frequency);
        CHECK_NEAR(frequency[0], cases[i].kind == ROPE_LINEAR ? (double)(1.0f / 3) : 1.0, 0);
        for (int k = 0; k < 5; k++) /* a unit in the last place is at most 2^-23 */
            CHECK_NEAR(frequency[j[k]] / cases[i].at[k], 1, 0x1p-23);
    }
}

/* Parameters by hand: V C + L (C (Q + 2KV) + C Q + 3 F C + 2 C) + C, and the extras. */
static void parameters_are_counted(void **state)
{
    (void)state;
    model_config c;
    CHECK_OK(load(&c, LLAMA(",\"num_key_value_heads\":2")));
    /* Q = 64, KV = 16: 64*96 + 64*64 + 3*96*64 + 128 = 28800 a layer */
    assert_int_equal(model_config_parameters(&c), 2 * 6400 + 4 * 28800 + 64);
    CHECK_OK(load(&c, LLAMA(",\"num_key_value_heads\":2,\"tie_word_embeddings\":true,"
                            "\"attention_bias\":true,\"mlp_bias\":true")));
    assert_int_equal(model_config_parameters(&c), 6400 + 4 * (28800 + 96 + 64 + 2 * 96 + 64) + 64);
    CHECK_OK(load(&c, MODEL("qwen3", ",\"num_key_value_heads\":2,\"head_dim\":8")));
    assert_int_equal(model_config_parameters(&c), 2 * 6400 + 4 * (28800 + 16) + 64);
}

/* No outcome but success or CUDPO_EDATA, whatever happens to a byte of the file. */
static void no_mutation_harms(void **state)
{
    (void)state;
    const char *text =
        LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\""
              ":1,\"high_freq_factor\":4},\"eos_token_id\":[1,2],\"dtype\":\"float16\"");
    const size_t n = strlen(text);
    model_config c;
    for (size_t m = 0; m <= n; m++) {
        put_file("config.json", text, m);
        assert_int_equal(model_config_load(&c, folder), m == n ? CUDPO_OK : CUDPO_EDATA);
        cudpo_error_clear();
    }
    const int fd = open(in_folder("config.json"), O_WRONLY);
    int refused = 0;
    for (size_t at = 0; at < n; at++) {
        for (int value = 0; value < 256; value += value < 128 ? 1 : 31) {
            const unsigned char byte = (unsigned char)value;
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
            const cudpo_status status = model_config_load(&c, folder);
            assert_true(status == CUDPO_OK || status == CUDPO_EDATA);
            refused += status == CUDPO_EDATA;
            cudpo_error_clear();
        }
        assert_int_equal(pwrite(fd, &text[at], 1, (off_t)at), 1);
    }
    close(fd);
    assert_true(refused > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_spellings_of_a_real_model),
        cmocka_unit_test(defaults_of_each_class),
        cmocka_unit_test(switches),
        cmocka_unit_test(windows_of_qwen),
        cmocka_unit_test(rope_in_both_spellings),
        cmocka_unit_test(unsupported_things_are_refused_by_name),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(generation_config_has_precedence),
        cmocka_unit_test(frequencies_are_those_of_transformers),
        cmocka_unit_test(parameters_are_counted),
        cmocka_unit_test(no_mutation_harms),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
