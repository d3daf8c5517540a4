/* tokenizer_load.c - tokenizer.json and its companions to a struct tokenizer. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "text/load.h"
#include "text/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TOKENIZER_BYTES = 256 * 1024 * 1024, /* 17 MB is the largest of the well-known ones */
    MAX_CONFIG_BYTES = 16 * 1024 * 1024,
    MAX_WHERE = 4096,
};

/* "file: part", cut where the path is absurdly long. */
static const char *part_of(char where[MAX_WHERE], const char *path, const char *part)
{
    snprintf(where, MAX_WHERE, "%s: %s", path, part);
    return where;
}

/* Only BPE; very old files have no type. */
static cudpo_status check_model_type(const json *model, const char *where)
{
    static const char *const names[] = {"BPE"};
    const char *type;
    int choice;
    CUDPO_TRY(load_string(&type, model, "type", NULL, where));
    if (type == NULL && json_get(model, "merges") != NULL) return CUDPO_OK;
    return load_choice(&choice, type != NULL ? type : "(none)", names, 1, "type", where);
}

/* The vocabulary, the added tokens, which may lengthen it, and the merges. */
static cudpo_status load_tokens(tokenizer *t, const json *root, const char *path)
{
    char where[MAX_WHERE];
    const json *model, *tokens, *added = json_get(root, "added_tokens");
    CUDPO_TRY(load_member(&model, root, "model", JSON_OBJECT, path));
    part_of(where, path, "model");
    CUDPO_TRY(check_model_type(model, where));
    CUDPO_TRY(load_member(&tokens, model, "vocab", JSON_OBJECT, where));

    part_of(where, path, "added_tokens");
    if (added != NULL && json_type(added) == JSON_NULL) added = NULL;
    int64_t added_count = 0, added_size = 0;
    if (added != NULL) {
        CUDPO_TRY(load_member(&added, root, "added_tokens", JSON_ARRAY, path));
        CUDPO_TRY(added_tokens_measure(&added_count, &added_size, added, where));
    }
    CUDPO_TRY(vocab_load(&t->tokens, tokens, added_count, added_size,
                         part_of(where, path, "model: vocab")));
    CUDPO_TRY(bpe_load(&t->model, model, &t->tokens, part_of(where, path, "model")));
    return added_tokens_load(&t->added, added, &t->tokens, &t->normal,
                             part_of(where, path, "added_tokens"));
}

static cudpo_status load_parts(tokenizer *t, const json *root, const char *path)
{
    char where[MAX_WHERE];
    if (json_type(root) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, path, "holds %s, not an object",
                          json_kind_name(json_type(root)));
    CUDPO_TRY(normalizer_load(&t->normal, json_get(root, "normalizer"),
                              part_of(where, path, "normalizer")));
    CUDPO_TRY(load_tokens(t, root, path));
    CUDPO_TRY(pre_tokenizer_load(&t->pre, json_get(root, "pre_tokenizer"),
                                 part_of(where, path, "pre_tokenizer")));
    CUDPO_TRY(post_processor_load(&t->post, json_get(root, "post_processor"), t->tokens.size,
                                  part_of(where, path, "post_processor")));
    return decoder_load(&t->decode, json_get(root, "decoder"), part_of(where, path, "decoder"));
}

static cudpo_status load_file(tokenizer *t, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    json *root = NULL;
    CUDPO_TRY(file_read(&text, &n, path, MAX_TOKENIZER_BYTES));
    t->fingerprint = hash_bytes(text, n);
    cudpo_status status = json_parse(&root, text, n, path);
    free(text);
    if (status == CUDPO_OK) status = load_parts(t, root, path);
    json_free(root);
    return status;
}

/* The id of a token by its text, added tokens first; -1: none. */
static int32_t id_of(const tokenizer *t, const char *text)
{
    const size_t n = strlen(text);
    const int32_t id = vocab_find(&t->tokens, text, n);
    if (id >= 0) return id;
    for (int32_t i = 0; i < t->tokens.size; i++) { /* an added token: once for a load */
        size_t length;
        const char *known = vocab_text(&t->tokens, i, &length);
        if (known != NULL && length == n && memcmp(known, text, n) == 0) return i;
    }
    return -1;
}

/* A special token, "text" or {"content": "text"}.  `*id` is left alone where the file has none. */
static cudpo_status load_special(int32_t *id, const tokenizer *t, const json *config,
                                 const char *key, const char *path)
{
    const json *value = json_get(config, key);
    if (*id >= 0 || value == NULL || json_type(value) == JSON_NULL) return CUDPO_OK;
    char where[MAX_WHERE];
    const char *text = NULL;
    if (json_type(value) == JSON_OBJECT) {
        CUDPO_TRY(load_string(&text, value, "content", NULL, part_of(where, path, key)));
    } else {
        CUDPO_TRY(load_string(&text, config, key, NULL, path));
    }
    if (text == NULL) return cudpo_fail(CUDPO_EDATA, path, "%s has no content", key);
    *id = id_of(t, text);
    if (*id >= 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, path, "%s \"%.60s\" is no token of tokenizer.json", key, text);
}

/* tokenizer.json's post_processor decides which ids are added; a reader of the config may expect otherwise. */
static cudpo_status compare_flags(const tokenizer *t, const json *config, const char *path)
{
    const bool begins = t->post.n > 1 && t->post.ids[0] == t->bos;
    const bool ends = t->post.n > 1 && t->post.ids[t->post.n - 1] == t->eos;
    bool add_bos, add_eos;
    CUDPO_TRY(load_bool(&add_bos, config, "add_bos_token", begins, path));
    CUDPO_TRY(load_bool(&add_eos, config, "add_eos_token", ends, path));
    if (add_bos != begins && t->bos >= 0)
        log_warn("%s: add_bos_token is %s, but the post_processor of tokenizer.json %s, and it "
                 "decides",
                 path, add_bos ? "true" : "false", begins ? "adds it" : "adds none");
    if (add_eos != ends && t->eos >= 0)
        log_warn("%s: add_eos_token is %s, but the post_processor of tokenizer.json %s, and it "
                 "decides",
                 path, add_eos ? "true" : "false", ends ? "adds it" : "adds none");
    return CUDPO_OK;
}

/* One of the small files beside tokenizer.json; it need not exist. */
static cudpo_status load_config(tokenizer *t, const char *folder, const char *name)
{
    json *config = NULL;
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "no memory");
    cudpo_status status = CUDPO_OK;
    if (!file_is_regular(path)) goto out;
    status = json_load(&config, path, MAX_CONFIG_BYTES);
    if (status == CUDPO_OK && json_type(config) != JSON_OBJECT)
        status = cudpo_fail(CUDPO_EDATA, path, "holds %s, not an object",
                            json_kind_name(json_type(config)));
    if (status == CUDPO_OK) status = load_special(&t->bos, t, config, "bos_token", path);
    if (status == CUDPO_OK) status = load_special(&t->eos, t, config, "eos_token", path);
    if (status == CUDPO_OK) status = load_special(&t->pad, t, config, "pad_token", path);
    if (status == CUDPO_OK) status = compare_flags(t, config, path);
out:
    json_free(config);
    free(path);
    return status;
}

static cudpo_status load_folder(tokenizer *t, const char *folder)
{
    char *path = path_join(folder, "tokenizer.json");
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "no memory");
    cudpo_status status = load_file(t, path);
    free(path);
    if (status == CUDPO_OK) status = load_config(t, folder, "tokenizer_config.json");
    if (status == CUDPO_OK) status = load_config(t, folder, "special_tokens_map.json");
    return status;
}

static cudpo_status add_to_fingerprint(tokenizer *t)
{
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    hash_add_int(h, (int64_t)t->fingerprint.high);
    hash_add_int(h, (int64_t)t->fingerprint.low);
    hash_add_int(h, t->bos);
    hash_add_int(h, t->eos);
    hash_add_int(h, t->pad);
    t->fingerprint = hash_end(h);
    return CUDPO_OK;
}

cudpo_status tokenizer_load(tokenizer **out, const char *path)
{
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "no memory");
    t->bos = t->eos = t->pad = -1;
    cudpo_status status = file_is_folder(path) ? load_folder(t, path) : load_file(t, path);
    if (t->pad < 0) t->pad = t->eos;
    if (status == CUDPO_OK) status = add_to_fingerprint(t);
    if (status != CUDPO_OK) {
        tokenizer_free(t);
        return status;
    }
    *out = t;
    return CUDPO_OK;
}

void tokenizer_free(tokenizer *t)
{
    if (t == NULL) return;
    decoder_free(&t->decode);
    token_list_free(&t->post);
    bpe_free(&t->model);
    pre_tokenizer_free(&t->pre);
    added_tokens_free(&t->added);
    normalizer_free(&t->normal);
    vocab_free(&t->tokens);
    free(t);
}
