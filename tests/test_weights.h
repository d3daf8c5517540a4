/* test_weights.h - the small models that tests of weights and of their folders share. */
#ifndef CUDPO_TESTS_WEIGHTS_H
#define CUDPO_TESTS_WEIGHTS_H

#include "scratch.h"
#include "cudpo/model.h"
#include "model/weights.h"

static const model_config llama = {.model_type = "llama",
                                   .vocab_size = 11,
                                   .hidden_size = 8,
                                   .intermediate_size = 6,
                                   .num_hidden_layers = 2,
                                   .num_attention_heads = 4,
                                   .num_key_value_heads = 2,
                                   .head_dim = 2,
                                   .initializer_range = 0.02};

static inline model_config everything(void)
{
    model_config c = llama;
    c.qkv_bias = c.o_bias = c.mlp_bias = c.qk_norm = true;
    c.head_dim = 6; /* Q = 24 differs from the width */
    return c;
}

static inline float *values(const model_weights *w) /* of the CPU backend: host memory */
{
    return tensor_f32(w->all);
}

#endif /* CUDPO_TESTS_WEIGHTS_H */
