/* random_model.h - model folders of any shape, with random weights and the golden Llama's tokenizer. */
#ifndef CUDPO_TESTS_RANDOM_MODEL_H
#define CUDPO_TESTS_RANDOM_MODEL_H

#include "scratch.h"
#include "cudpo/model.h"

typedef struct model_shape {
    int hidden, layers, heads, kv_heads, head_dim, ffn, vocabulary;
    const char *type; /* of the weights in the file */
} model_shape;

/* The golden Llama's. */
static const model_shape random_model_small = {.hidden = 32,
                                               .layers = 2,
                                               .heads = 4,
                                               .kv_heads = 2,
                                               .head_dim = 16,
                                               .ffn = 64,
                                               .vocabulary = 304,
                                               .type = "bfloat16"};

/* Make a Llama of that shape in a folder of the scratch folder. */
static inline void random_model_make(const char *name, const model_shape *s, uint64_t seed)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    char folder[640], from[128], to[800];
    snprintf(folder, sizeof folder, "%s", scratch_path(name));
    CHECK_OK(file_make_folder(folder));
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "tests/golden/models/llama3/%s", files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        CHECK_OK(file_copy(to, from));
    }
    snprintf(to, sizeof to, "%s/config.json", folder);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    fprintf(f,
            "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
            "\"hidden_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
            "\"num_key_value_heads\": %d, \"head_dim\": %d, \"intermediate_size\": %d, "
            "\"vocab_size\": %d, \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, "
            "\"rope_theta\": 500000.0, \"hidden_act\": \"silu\", \"eos_token_id\": 299, "
            "\"tie_word_embeddings\": true, \"dtype\": \"%s\"}\n",
            s->hidden, s->layers, s->heads, s->kv_heads, s->head_dim, s->ffn, s->vocabulary,
            s->type);
    assert_int_equal(fclose(f), 0);
    CHECK_OK(cudpo_model_randomise(folder, seed));
}

#endif /* CUDPO_TESTS_RANDOM_MODEL_H */
