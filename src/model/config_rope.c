/* config_rope.c - which rotation frequencies a config asks for, and the frequencies.
 * Source: transformers 5.23 modeling_rope_utils.py: convert_rope_params_to_dict, standardize_rope_params,
 * _compute_llama3_parameters; Llama 3.1's own apply_scaling. */
#include "model/config_value.h"

#include <math.h>
#include <string.h>

static cudpo_status read_llama3(model_config *c, config_reader top, config_reader rope)
{
    static const char *const needed[] = {"low_freq_factor", "high_freq_factor"};
    double factors[2];
    for (int i = 0; i < 2; i++) {
        if (config_member(rope, needed[i]) == NULL) return config_bad(rope, needed[i], "missing");
        CUDPO_TRY(config_number(rope, needed[i], 0, 1e-3, 1e6, &factors[i]));
    }
    c->rope_low_freq_factor = factors[0];
    c->rope_high_freq_factor = factors[1];
    if (!((float)factors[1] > (float)factors[0]))
        return config_bad(rope, "high_freq_factor", "%g must be larger than low_freq_factor %g",
                          factors[1], factors[0]);
    const char *key = "original_max_position_embeddings";
    const config_reader r = config_member(top, key) != NULL ? top : rope; /* the top has priority */
    return config_integer(r, key, c->max_position_embeddings, 1, CONFIG_MAX_SIZE,
                          &c->rope_original_max_position);
}

/* The object that describes rope: rope_scaling (transformers 4) replaces rope_parameters (5) unless empty. */
static cudpo_status find_rope(config_reader *out, config_reader top)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    static const char *const prefixes[] = {"rope_scaling.", "rope_parameters."};
    *out = (config_reader){0};
    for (int i = 0; i < 2; i++) {
        const json *value = config_member(top, keys[i]);
        if (value == NULL) continue;
        if (json_type(value) != JSON_OBJECT)
            return config_bad(top, keys[i], "must be an object, not %s",
                              json_kind_name(json_type(value)));
        for (const json *m = json_first(value); m != NULL; m = json_next(m)) {
            if (json_type(m) == JSON_OBJECT)
                return config_bad(top, keys[i],
                                  "parameters per layer type (\"%.40s\") are not supported",
                                  json_key(m));
        }
        if (json_first(value) == NULL) continue;
        *out = (config_reader){value, top.path, prefixes[i]};
        return CUDPO_OK;
    }
    return CUDPO_OK;
}

static cudpo_status read_kind(model_config *c, config_reader top, config_reader rope)
{
    const char *kind = "default";
    const char *key = config_member(rope, "rope_type") != NULL ? "rope_type" : "type";
    CUDPO_TRY(config_string(rope, key, &kind));
    c->rope = ROPE_DEFAULT;
    c->rope_factor = 1;
    if (strcmp(kind, "default") == 0) return CUDPO_OK;
    if (strcmp(kind, "linear") != 0 && strcmp(kind, "llama3") != 0)
        return config_bad(
            rope, key, "\"%.40s\" is not supported; supported are default, linear, llama3", kind);
    if (config_member(rope, "factor") == NULL) return config_bad(rope, "factor", "missing");
    CUDPO_TRY(config_number(rope, "factor", 0, 1e-3, 1e6, &c->rope_factor));
    c->rope = kind[1] == 'i' ? ROPE_LINEAR : ROPE_LLAMA3;
    return c->rope == ROPE_LLAMA3 ? read_llama3(c, top, rope) : CUDPO_OK;
}

static cudpo_status refuse_partial(config_reader r)
{
    double share = 1;
    CUDPO_TRY(config_number(r, "partial_rotary_factor", 1, -1e6, 1e6, &share));
    if (share != 1)
        return config_bad(r, "partial_rotary_factor", "%g is not supported; supported is 1", share);
    return CUDPO_OK;
}

cudpo_status config_rope(model_config *c, config_reader r)
{
    config_reader rope = {0};
    CUDPO_TRY(find_rope(&rope, r));
    CUDPO_TRY(refuse_partial(r));
    CUDPO_TRY(config_number(r, "rope_theta", 10000, 1e-3, 1e30, &c->rope_theta));
    c->rope = ROPE_DEFAULT;
    c->rope_factor = 1;
    if (rope.object == NULL) return CUDPO_OK;
    CUDPO_TRY(refuse_partial(rope));
    CUDPO_TRY(config_number(rope, "rope_theta", c->rope_theta, 1e-3, 1e30, &c->rope_theta));
    return read_kind(c, r, rope);
}

/* Llama 3.1: long waves are slowed down by `factor`, short ones stay, those between are blended. */
static float llama3(const model_config *c, float inv)
{
    const double original = (double)c->rope_original_max_position;
    const float factor = (float)c->rope_factor, low = (float)c->rope_low_freq_factor;
    const float span = (float)(c->rope_high_freq_factor - c->rope_low_freq_factor);
    const float wave = (float)(2 * 3.14159265358979323846) / inv;
    if (wave < (float)(original / c->rope_high_freq_factor)) return inv;
    if (wave > (float)(original / c->rope_low_freq_factor)) return inv / factor;
    const float smooth = ((float)original / wave - low) / span;
    return (1 - smooth) * inv / factor + smooth * inv;
}

/* transformers computes these in float32 tensors, and at position 1000 a float32's rounding of the fastest wave is
 * an angle of 6e-5: so each operation here rounds to float32 where theirs does.  Their pow() is within one unit of
 * the last place of the one here, which is the correctly rounded one.  The same holds for the angle: position times
 * frequency in float32 is what they take the cosine of. */
void model_config_frequencies(const model_config *c, double *frequency)
{
    const int64_t half = c->head_dim / 2;
    for (int64_t j = 0; j < half; j++) {
        const float exponent = (float)(2 * j) / (float)c->head_dim;
        const float inv = 1.0f / (float)pow((double)(float)c->rope_theta, (double)exponent);
        float f = inv;
        if (c->rope == ROPE_LINEAR) f = inv / (float)c->rope_factor;
        if (c->rope == ROPE_LLAMA3) f = llama3(c, inv);
        frequency[j] = (double)f;
    }
}
