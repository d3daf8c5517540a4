/* config_same.c - what of a configuration decides the computation, to tell whether two models compute the same. */
#include "base/hash.h"
#include "model/config.h"

#define SAME_FIELDS(X)       \
    X(vocab_size)            \
    X(hidden_size)           \
    X(intermediate_size)     \
    X(num_hidden_layers)     \
    X(num_attention_heads)   \
    X(num_key_value_heads)   \
    X(head_dim)              \
    X(rms_norm_eps)          \
    X(tie_word_embeddings)   \
    X(qkv_bias)              \
    X(o_bias)                \
    X(mlp_bias)              \
    X(qk_norm)               \
    X(sliding_window)        \
    X(rope)                  \
    X(rope_theta)            \
    X(rope_factor)           \
    X(rope_low_freq_factor)  \
    X(rope_high_freq_factor) \
    X(rope_original_max_position)

#define NAME(field) #field,
static const char *const names[] = {"max_window_layers", SAME_FIELDS(NAME)};
#undef NAME

enum { FIELDS = sizeof names / sizeof names[0] };

static void values_of(double values[FIELDS], const model_config *c)
{
    /* The first layer with a window means nothing where there is none. */
    *values++ = c->sliding_window > 0 ? (double)c->first_window_layer : 0.0;
#define VALUE(field) *values++ = (double)c->field;
    SAME_FIELDS(VALUE)
#undef VALUE
}

cudpo_status model_config_same(const model_config *reference, const model_config *policy,
                               const char *folder)
{
    double a[FIELDS], b[FIELDS];
    values_of(a, reference);
    values_of(b, policy);
    for (int i = 0; i < FIELDS; i++)
        if (a[i] != b[i])
            return cudpo_fail(CUDPO_EDATA, folder,
                              "%s is %.15g, the policy's is %.15g: a reference must be of the same "
                              "architecture and shape",
                              names[i], a[i], b[i]);
    return CUDPO_OK;
}

uint64_t model_config_fingerprint(const model_config *c)
{
    double values[FIELDS];
    values_of(values, c);
    return hash64_bytes(values, sizeof values);
}
