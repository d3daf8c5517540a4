/* config.h - what a config.json says of a decoder, whichever architecture and spelling it uses. */
#ifndef CUDPO_MODEL_CONFIG_H
#define CUDPO_MODEL_CONFIG_H

#include "cudpo/status.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 } rope_kind;

/* A layer is described by these fields, not by its architecture's name: what differs between Llama, Mistral, Qwen2 and
 * Qwen3 is data.  Fields keep transformers' names. */
typedef struct model_config {
    char model_type[32]; /* "llama", "mistral", "qwen2", "qwen3" */
    int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers;
    int64_t num_attention_heads, num_key_value_heads, head_dim;
    int64_t max_position_embeddings;
    float rms_norm_eps;
    bool tie_word_embeddings;
    bool qkv_bias, o_bias, mlp_bias; /* linear layers with a bias */
    bool qk_norm;                    /* RMSNorm of each head of q and k */
    int64_t sliding_window;          /* 0: none */
    int64_t first_window_layer; /* layers below it see everything (Qwen2's max_window_layers) */
    rope_kind rope;
    double rope_theta, rope_factor;
    double rope_low_freq_factor, rope_high_freq_factor; /* llama3 */
    int64_t rope_original_max_position;                 /* llama3 */
    dtype torch_dtype;                                  /* of the files */
    int32_t bos_token_id;                               /* -1: none */
    int32_t eos_token_id[8];                            /* config.json allows a list */
    int eos_count;                                      /* generation_config.json has precedence */
    double initializer_range;
} model_config;

/** Read config.json and, where present, generation_config.json of a model folder.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA naming file and key: an architecture, RoPE kind, activation or
 *           quantisation that is not supported is refused by name with the list of those that are. */
CUDPO_MUST_USE cudpo_status model_config_load(model_config *out, const char *folder);

/** Read a config.json alone, by its path.  Returns: as model_config_load(). */
CUDPO_MUST_USE cudpo_status model_config_read(model_config *out, const char *path);

/** A reference is run as its policy is, so all that decides the computation must be the same in both.
 *  Returns: CUDPO_OK; CUDPO_EDATA naming `folder`, the key and both values. */
CUDPO_MUST_USE cudpo_status model_config_same(const model_config *reference,
                                              const model_config *policy, const char *folder);

/* Of all that decides the computation, weights aside. */
uint64_t model_config_fingerprint(const model_config *c);

/* The window of layer l, 0 for none. */
int64_t model_config_window(const model_config *c, int64_t layer);

int64_t model_config_parameters(const model_config *c);

/* Rotation frequencies of j = 0 .. head_dim/2 - 1, in radians per position. */
void model_config_frequencies(const model_config *c, double *frequency);

#endif /* CUDPO_MODEL_CONFIG_H */
