/* config.c - config.json in the spellings of transformers 4 and 5, with the defaults of its configuration classes.
 * Source: transformers 5.23 models/{llama,mistral,qwen2,qwen3}/configuration_*.py and modeling_rope_utils.py. */
#include "model/config.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/config_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 16 << 20, MAX_LAYERS = 1 << 14, MAX_HEAD_DIM = 256 };
static const int64_t max_parameters = INT64_C(1) << 48;

/* What differs between the architectures: their defaults, and which switches of config.json they read. */
static const struct architecture {
    const char *model_type, *class_name;
    int64_t max_position_embeddings;
    int64_t kv_heads;              /* where the key is absent; 0: as many as heads */
    int64_t head_dim;              /* where the key is absent; 0: hidden_size / heads */
    bool qkv_bias;                 /* always, without a switch */
    bool attention_bias, mlp_bias; /* switches */
    bool qk_norm;
    bool always_window; /* sliding_window holds for every layer, and its default is 4096 */
    bool window_switch; /* use_sliding_window, max_window_layers, layer_types */
} architectures[] = {
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .max_position_embeddings = 2048,
     .attention_bias = true,
     .mlp_bias = true},
    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .max_position_embeddings = 131072,
     .kv_heads = 8,
     .always_window = true},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .max_position_embeddings = 32768,
     .kv_heads = 32,
     .qkv_bias = true,
     .window_switch = true},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .max_position_embeddings = 32768,
     .kv_heads = 32,
     .head_dim = 128,
     .attention_bias = true,
     .qk_norm = true,
     .window_switch = true},
};
enum { ARCHITECTURES = sizeof architectures / sizeof architectures[0] };
static const char supported[] =
    "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM";

/* The one that both model_type and architectures name; either may be absent, not both. */
static cudpo_status find_architecture(const struct architecture **out, config_reader r)
{
    const char *type = NULL, *class_name = NULL;
    CUDPO_TRY(config_string(r, "model_type", &type));
    const json *list = config_member(r, "architectures");
    if (list != NULL) {
        const json *first = json_type(list) == JSON_ARRAY ? json_first(list) : NULL;
        if (first == NULL || json_type(first) != JSON_STRING)
            return config_bad(r, "architectures", "must be a list of names");
        class_name = json_string(first);
    }
    if (type == NULL && class_name == NULL)
        return config_bad(r, "architectures", "missing, and model_type too; supported are %s",
                          supported);
    for (int i = 0; i < ARCHITECTURES; i++) {
        const struct architecture *a = &architectures[i];
        if (type != NULL && strcmp(type, a->model_type) != 0) continue;
        if (class_name != NULL && strcmp(class_name, a->class_name) != 0) continue;
        *out = a;
        return CUDPO_OK;
    }
    return config_bad(r, class_name != NULL ? "architectures" : "model_type",
                      "\"%.60s\"%s%.60s%s is not supported; supported are %s",
                      class_name != NULL ? class_name : type,
                      type != NULL && class_name != NULL ? " of model_type \"" : "",
                      type != NULL && class_name != NULL ? type : "",
                      type != NULL && class_name != NULL ? "\"" : "", supported);
}

/* Things that change the arithmetic and that are not built here. */
static cudpo_status refuse_unsupported(config_reader r)
{
    static const char *const experts[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                          "moe_intermediate_size"};
    for (size_t i = 0; i < sizeof experts / sizeof experts[0]; i++) {
        if (config_member(r, experts[i]) != NULL)
            return config_bad(r, experts[i],
                              "mixture-of-experts models are not supported; supported are %s",
                              supported);
    }
    if (config_member(r, "quantization_config") != NULL)
        return config_bad(r, "quantization_config",
                          "quantised models are not supported; supported are float32, bfloat16 "
                          "and float16 weights");
    const char *act = "silu";
    CUDPO_TRY(config_string(r, "hidden_act", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) /* two names of one function */
        return config_bad(r, "hidden_act", "\"%.60s\" is not supported; supported is silu", act);
    return CUDPO_OK;
}

static cudpo_status read_sizes(model_config *c, config_reader r, const struct architecture *a)
{
    const int64_t most = CONFIG_MAX_SIZE;
    CUDPO_TRY(config_integer(r, "vocab_size", CONFIG_REQUIRED, 1, most, &c->vocab_size));
    CUDPO_TRY(config_integer(r, "hidden_size", CONFIG_REQUIRED, 1, most, &c->hidden_size));
    CUDPO_TRY(
        config_integer(r, "intermediate_size", CONFIG_REQUIRED, 1, most, &c->intermediate_size));
    CUDPO_TRY(config_integer(r, "num_hidden_layers", CONFIG_REQUIRED, 1, MAX_LAYERS,
                             &c->num_hidden_layers));
    CUDPO_TRY(config_integer(r, "num_attention_heads", CONFIG_REQUIRED, 1, most,
                             &c->num_attention_heads));
    /* null means as many as heads; an absent key is the class's default, which may be another number. */
    const bool absent = json_get(r.object, "num_key_value_heads") == NULL;
    const int64_t kv_heads = absent && a->kv_heads > 0 ? a->kv_heads : c->num_attention_heads;
    CUDPO_TRY(config_integer(r, "num_key_value_heads", kv_heads, 1, most, &c->num_key_value_heads));
    if (c->num_attention_heads % c->num_key_value_heads != 0)
        return config_bad(r, "num_key_value_heads", "%lld does not divide %lld heads",
                          (long long)c->num_key_value_heads, (long long)c->num_attention_heads);
    int64_t head_dim = a->head_dim;
    if (head_dim == 0) head_dim = c->hidden_size / c->num_attention_heads;
    const bool derived = config_member(r, "head_dim") == NULL && a->head_dim == 0;
    if (derived && c->hidden_size % c->num_attention_heads != 0)
        return config_bad(r, "num_attention_heads", "%lld heads do not divide hidden_size %lld",
                          (long long)c->num_attention_heads, (long long)c->hidden_size);
    CUDPO_TRY(config_integer(r, "head_dim", head_dim, 1, most, &c->head_dim));
    if (c->head_dim % 2 != 0 || c->head_dim > MAX_HEAD_DIM)
        return config_bad(r, "head_dim", "%lld; even sizes up to %d are supported",
                          (long long)c->head_dim, MAX_HEAD_DIM);
    return config_integer(r, "max_position_embeddings", a->max_position_embeddings, 1, most,
                          &c->max_position_embeddings);
}

static int64_t layer_parameters(const model_config *c)
{
    const int64_t q = c->num_attention_heads * c->head_dim;
    const int64_t kv = c->num_key_value_heads * c->head_dim;
    const int64_t hidden = c->hidden_size, ffn = c->intermediate_size;
    int64_t n = (q + 2 * kv) * hidden + hidden * q + 3 * ffn * hidden + 2 * hidden;
    if (c->qkv_bias) n += q + 2 * kv;
    if (c->o_bias) n += hidden;
    if (c->qk_norm) n += 2 * c->head_dim;
    if (c->mlp_bias) n += 2 * ffn + hidden;
    return n;
}

int64_t model_config_parameters(const model_config *c)
{
    const int64_t table = c->vocab_size * c->hidden_size;
    return table * (c->tie_word_embeddings ? 1 : 2) + c->num_hidden_layers * layer_parameters(c) +
           c->hidden_size;
}

/* With sizes up to 2^24 and heads of 2^8, one layer stays below 2^59 and a table at 2^48: none of the products
 * above overflows once this has passed. */
static cudpo_status check_total(const model_config *c, config_reader r)
{
    if (c->vocab_size * c->hidden_size > max_parameters / 2 ||
        layer_parameters(c) > max_parameters / 2 / c->num_hidden_layers)
        return config_bad(r, "hidden_size", "the sizes make more than 2^48 parameters");
    return CUDPO_OK;
}

/* layer_types must be full layers and then sliding ones: where the sliding ones begin. */
static cudpo_status read_layer_types(model_config *c, config_reader r, const json *types)
{
    if (json_type(types) != JSON_ARRAY || json_count(types) != c->num_hidden_layers)
        return config_bad(r, "layer_types", "must be a list of num_hidden_layers = %lld names",
                          (long long)c->num_hidden_layers);
    int64_t full = 0, sliding = 0;
    for (const json *t = json_first(types); t != NULL; t = json_next(t)) {
        const char *name = json_type(t) == JSON_STRING ? json_string(t) : "";
        if (strcmp(name, "full_attention") == 0 && sliding == 0) {
            full++;
        } else if (strcmp(name, "sliding_attention") == 0) {
            sliding++;
        } else {
            return config_bad(r, "layer_types",
                              "entry %lld, \"%.40s\", is not supported; supported are "
                              "\"full_attention\", followed by \"sliding_attention\"",
                              (long long)(full + sliding), name);
        }
    }
    if (sliding > 0 && c->sliding_window == 0)
        return config_bad(r, "layer_types", "has sliding_attention, but there is no window");
    c->first_window_layer = full;
    if (sliding == 0) c->sliding_window = 0;
    return CUDPO_OK;
}

static cudpo_status read_window(model_config *c, config_reader r, const struct architecture *a)
{
    if (!a->always_window && !a->window_switch) return CUDPO_OK;
    bool use = a->always_window;
    if (a->window_switch) CUDPO_TRY(config_bool(r, "use_sliding_window", false, &use));
    const json *value = json_get(r.object, "sliding_window");
    if (use && (value == NULL || json_type(value) != JSON_NULL)) /* null: none; absent: 4096 */
        CUDPO_TRY(
            config_integer(r, "sliding_window", 4096, 1, CONFIG_MAX_SIZE, &c->sliding_window));
    if (!a->window_switch) return CUDPO_OK;
    const json *types = config_member(r, "layer_types");
    if (types != NULL) return read_layer_types(c, r, types);
    if (c->sliding_window == 0) return CUDPO_OK;
    return config_integer(r, "max_window_layers", 28, 0, CONFIG_MAX_SIZE, &c->first_window_layer);
}

static cudpo_status read_dtype(model_config *c, config_reader r)
{
    const char *name = "float32",
               *key = config_member(r, "dtype") != NULL ? "dtype" : "torch_dtype";
    CUDPO_TRY(config_string(r, key, &name));
    if (strncmp(name, "torch.", 6) == 0) name += 6;
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, dtype_name(types[i])) != 0) continue;
        c->torch_dtype = types[i];
        return CUDPO_OK;
    }
    return config_bad(r, key,
                      "\"%.40s\" is not supported; supported are float32, bfloat16, float16", name);
}

/* One token id; transformers merely warns of an id outside the vocabulary, and so do we. */
static cudpo_status read_token(int32_t *out, const model_config *c, config_reader r,
                               const char *key, const json *value)
{
    int64_t id = 0;
    if (!json_integer(value, &id)) return config_bad(r, key, "must be a token id");
    *out = -1;
    if (id >= 0 && id < c->vocab_size) {
        *out = (int32_t)id;
    } else {
        log_warn("%s: %s: %lld is not in the vocabulary of %lld and is ignored", r.path, key,
                 (long long)id, (long long)c->vocab_size);
    }
    return CUDPO_OK;
}

/* bos_token_id and eos_token_id, where this file has them; eos may be a list. */
static cudpo_status read_tokens(model_config *c, config_reader r)
{
    const json *bos = config_member(r, "bos_token_id"), *eos = config_member(r, "eos_token_id");
    if (bos != NULL) CUDPO_TRY(read_token(&c->bos_token_id, c, r, "bos_token_id", bos));
    if (eos == NULL) return CUDPO_OK;
    const bool list = json_type(eos) == JSON_ARRAY;
    const int64_t most = sizeof c->eos_token_id / sizeof c->eos_token_id[0];
    if (list && json_count(eos) > most)
        return config_bad(r, "eos_token_id", "has more than %lld ids", (long long)most);
    c->eos_count = 0;
    for (const json *v = list ? json_first(eos) : eos; v != NULL; v = list ? json_next(v) : NULL) {
        int32_t id = -1;
        CUDPO_TRY(read_token(&id, c, r, "eos_token_id", v));
        if (id >= 0) c->eos_token_id[c->eos_count++] = id;
    }
    return CUDPO_OK;
}

static cudpo_status read_config(model_config *c, config_reader r)
{
    const struct architecture *a = NULL;
    if (json_type(r.object) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, r.path, "must be an object");
    CUDPO_TRY(find_architecture(&a, r));
    CUDPO_TRY(refuse_unsupported(r));
    snprintf(c->model_type, sizeof c->model_type, "%s", a->model_type);
    CUDPO_TRY(read_sizes(c, r, a));
    double epsilon = 0;
    CUDPO_TRY(config_number(r, "rms_norm_eps", 1e-6, 1e-30, 1, &epsilon));
    c->rms_norm_eps = (float)epsilon;
    CUDPO_TRY(config_number(r, "initializer_range", 0.02, 0, 1, &c->initializer_range));
    CUDPO_TRY(config_bool(r, "tie_word_embeddings", false, &c->tie_word_embeddings));
    bool bias = false;
    if (a->attention_bias) CUDPO_TRY(config_bool(r, "attention_bias", false, &bias));
    c->qkv_bias = a->qkv_bias || bias;
    c->o_bias = bias;
    if (a->mlp_bias) CUDPO_TRY(config_bool(r, "mlp_bias", false, &c->mlp_bias));
    c->qk_norm = a->qk_norm;
    CUDPO_TRY(check_total(c, r));
    CUDPO_TRY(read_window(c, r, a));
    CUDPO_TRY(config_rope(c, r));
    CUDPO_TRY(read_dtype(c, r));
    double dropout = 0;
    CUDPO_TRY(config_number(r, "attention_dropout", 0, 0, 1, &dropout));
    if (dropout > 0) log_warn("%s: attention_dropout %g is not applied", r.path, dropout);
    c->bos_token_id = -1;
    return read_tokens(c, r);
}

/* Read a file with `read`. */
static cudpo_status read_path(model_config *c, const char *path,
                              cudpo_status (*read)(model_config *c, config_reader r))
{
    json *root = NULL;
    cudpo_status status = json_load(&root, path, MAX_BYTES);
    if (status == CUDPO_OK) status = read(c, (config_reader){root, path, ""});
    json_free(root);
    return status;
}

/* The same of one of the folder's files. */
static cudpo_status read_file(model_config *c, const char *folder, const char *name, bool optional,
                              cudpo_status (*read)(model_config *c, config_reader r))
{
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    const cudpo_status status =
        optional && !file_is_regular(path) ? CUDPO_OK : read_path(c, path, read);
    free(path);
    return status;
}

static cudpo_status read_generation(model_config *c, config_reader r)
{
    if (json_type(r.object) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, r.path, "must be an object");
    return read_tokens(c, r);
}

cudpo_status model_config_read(model_config *out, const char *path)
{
    *out = (model_config){0};
    return read_path(out, path, read_config);
}

cudpo_status model_config_load(model_config *out, const char *folder)
{
    *out = (model_config){0};
    if (!file_is_folder(folder))
        return cudpo_fail(
            CUDPO_ENOINPUT, folder,
            "no such folder: a model is a Hugging Face folder on this machine; nothing "
            "is downloaded");
    CUDPO_TRY(read_file(out, folder, "config.json", false, read_config));
    return read_file(out, folder, "generation_config.json", true, read_generation);
}

int64_t model_config_window(const model_config *c, int64_t layer)
{
    return layer >= c->first_window_layer ? c->sliding_window : 0;
}
