/* models.c - the config.json of public models, as the fields that it is read into.
 * Sources: huggingface.co/Qwen/Qwen2.5-0.5B, meta-llama/Llama-3.2-1B, meta-llama/Llama-3.1-8B: config.json. */
#include "bench/models.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/nearest.h"

#include <string.h>

typedef struct known_model {
    const char *name;
    model_config config;
} known_model;

static const known_model known[] = {
    {"Qwen2.5-0.5B",
     {.model_type = "qwen2",
      .vocab_size = 151936,
      .hidden_size = 896,
      .intermediate_size = 4864,
      .num_hidden_layers = 24,
      .num_attention_heads = 14,
      .num_key_value_heads = 2,
      .head_dim = 64,
      .max_position_embeddings = 32768,
      .rms_norm_eps = 1e-6f,
      .tie_word_embeddings = true,
      .qkv_bias = true,
      .rope = ROPE_DEFAULT,
      .rope_theta = 1e6,
      .rope_factor = 1,
      .torch_dtype = DTYPE_BF16,
      .bos_token_id = -1,
      .initializer_range = 0.02}},
    {"Llama-3.2-1B",
     {.model_type = "llama",
      .vocab_size = 128256,
      .hidden_size = 2048,
      .intermediate_size = 8192,
      .num_hidden_layers = 16,
      .num_attention_heads = 32,
      .num_key_value_heads = 8,
      .head_dim = 64,
      .max_position_embeddings = 131072,
      .rms_norm_eps = 1e-5f,
      .tie_word_embeddings = true,
      .rope = ROPE_LLAMA3,
      .rope_theta = 5e5,
      .rope_factor = 32,
      .rope_low_freq_factor = 1,
      .rope_high_freq_factor = 4,
      .rope_original_max_position = 8192,
      .torch_dtype = DTYPE_BF16,
      .bos_token_id = -1,
      .initializer_range = 0.02}},
    {"Llama-3.1-8B",
     {.model_type = "llama",
      .vocab_size = 128256,
      .hidden_size = 4096,
      .intermediate_size = 14336,
      .num_hidden_layers = 32,
      .num_attention_heads = 32,
      .num_key_value_heads = 8,
      .head_dim = 128,
      .max_position_embeddings = 131072,
      .rms_norm_eps = 1e-5f,
      .rope = ROPE_LLAMA3,
      .rope_theta = 5e5,
      .rope_factor = 8,
      .rope_low_freq_factor = 1,
      .rope_high_freq_factor = 4,
      .rope_original_max_position = 8192,
      .torch_dtype = DTYPE_BF16,
      .bos_token_id = -1,
      .initializer_range = 0.02}},
};
enum { KNOWN = sizeof known / sizeof known[0] };

const char *bench_model_name(int64_t i)
{
    return i < KNOWN ? known[i].name : NULL;
}

static cudpo_status unknown(const char *name)
{
    const char *names[KNOWN];
    buffer list = {0};
    cudpo_status status = CUDPO_OK;
    for (int i = 0; i < KNOWN; i++) {
        names[i] = known[i].name;
        if (status == CUDPO_OK) status = buffer_printf(&list, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    const char *near = nearest_name(name, names, KNOWN);
    if (status == CUDPO_OK)
        status = cudpo_fail(CUDPO_EUSAGE, name,
                            "is no config.json, no model folder, and none of the models that are "
                            "known by name (%s)%s%s%s",
                            list.data, near == NULL ? "" : "; did you mean ",
                            near == NULL ? "" : near, near == NULL ? "" : "?");
    buffer_free(&list);
    return status;
}

cudpo_status bench_model(model_config *out, const char *name)
{
    CUDPO_REQUIRE(name != NULL);
    for (int i = 0; i < KNOWN; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        *out = known[i].config;
        return CUDPO_OK;
    }
    if (file_is_folder(name)) return model_config_load(out, name);
    return file_is_regular(name) ? model_config_read(out, name) : unknown(name);
}
