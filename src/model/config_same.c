/* config_same.c - may one model be the reference of another? */
#include "model/config.h"

typedef struct difference {
    const char *key;
    double reference, policy;
} difference;

/* It means nothing where there is no window. */
static double first_window(const model_config *c)
{
    return c->sliding_window > 0 ? (double)c->first_window_layer : 0.0;
}

cudpo_status model_config_same(const model_config *reference, const model_config *policy,
                               const char *folder)
{
#define PAIR(field)                                             \
    {                                                           \
#field, (double)reference->field, (double)policy->field \
    }
    const difference pairs[] = {
        PAIR(vocab_size),
        PAIR(hidden_size),
        PAIR(intermediate_size),
        PAIR(num_hidden_layers),
        PAIR(num_attention_heads),
        PAIR(num_key_value_heads),
        PAIR(head_dim),
        PAIR(rms_norm_eps),
        PAIR(tie_word_embeddings),
        PAIR(qkv_bias),
        PAIR(o_bias),
        PAIR(mlp_bias),
        PAIR(qk_norm),
        PAIR(sliding_window),
        {"max_window_layers", first_window(reference), first_window(policy)},
        PAIR(rope),
        PAIR(rope_theta),
        PAIR(rope_factor),
        PAIR(rope_low_freq_factor),
        PAIR(rope_high_freq_factor),
        PAIR(rope_original_max_position),
    };
#undef PAIR
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (pairs[i].reference != pairs[i].policy)
            return cudpo_fail(CUDPO_EDATA, folder,
                              "%s is %.15g, the policy's is %.15g: a reference must be of the same "
                              "architecture and shape",
                              pairs[i].key, pairs[i].reference, pairs[i].policy);
    return CUDPO_OK;
}
