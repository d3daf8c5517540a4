/* config.c - configurations: read from JSON and from the command line, printed, explained. */
#include "cudpo/config.h"
#include "base/buffer.h"
#include "base/nearest.h"
#include "train/config_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX_BYTES = 1 << 20 };

static void *field(cudpo_config *c, const config_key *k)
{
    return (char *)c + k->offset;
}

static const void *field_of(const cudpo_config *c, const config_key *k)
{
    return (const char *)c + k->offset;
}

static bool is_text(config_type type)
{
    return type == CONFIG_TEXT || type == CONFIG_CHOICE || type == CONFIG_LOSS ||
           type == CONFIG_RESUME;
}

static cudpo_status wrong(const char *where, const char *needed, const json *value)
{
    char given[CONFIG_VALUE_TEXT];
    config_value_text(given, value);
    return cudpo_fail(CUDPO_ECONFIG, where, "must be %s, not %s", needed, given);
}

static cudpo_status put_text(cudpo_config *c, const config_key *k, const char *text)
{
    char **at = field(c, k);
    char *copy = NULL;
    if (text != NULL) {
        copy = strdup(text);
        if (copy == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%s", k->name);
    }
    free(*at);
    *at = copy;
    return CUDPO_OK;
}

static cudpo_status put_choice(cudpo_config *c, const config_key *k, const json *value,
                               const char *where)
{
    int64_t n = 0;
    const char *text = json_type(value) == JSON_STRING ? json_string(value) : NULL;
    for (; k->choices[n] != NULL; n++)
        if (text != NULL && strcmp(k->choices[n], text) == 0) return put_text(c, k, text);
    char list[256];
    size_t used = 0;
    for (int64_t i = 0; i < n && used < sizeof list; i++) {
        const char *between = i == 0 ? "" : i + 1 < n ? ", " : " or ";
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s\"%s\"", between, k->choices[i]);
    }
    const char *meant = text == NULL ? NULL : nearest_name(text, k->choices, n);
    if (meant == NULL) return wrong(where, list, value);
    char given[CONFIG_VALUE_TEXT];
    config_value_text(given, value);
    return cudpo_fail(CUDPO_ECONFIG, where, "must be %s, not %s; did you mean \"%s\"?", list, given,
                      meant);
}

static cudpo_status put_number(cudpo_config *c, const config_key *k, const json *value,
                               const char *where)
{
    int64_t integer = 0;
    char needed[128];
    const bool whole = k->type == CONFIG_INTEGER;
    snprintf(needed, sizeof needed, "%s %s%s", whole ? "an integer" : "a number", k->range,
             isnan(k->null) ? "" : " (or null)");
    if (json_type(value) != JSON_NUMBER || (whole && !json_integer(value, &integer)))
        return wrong(where, needed, value);
    const double number = json_number(value);
    if (number > k->most && k->most == CONFIG_WHOLE)
        snprintf(needed, sizeof needed, "at most %.0f", k->most);
    if (!(number >= k->least && number <= k->most)) return wrong(where, needed, value);
    if (whole)
        *(int64_t *)field(c, k) = integer;
    else
        *(double *)field(c, k) = number;
    return CUDPO_OK;
}

/* lr_scheduler_kwargs fills min_lr and min_lr_rate, which stand one after the other. */
static cudpo_status put_scheduler(cudpo_config *c, const json *value, const char *where)
{
    if (json_type(value) != JSON_OBJECT)
        return wrong(where, "an object such as {\"min_lr\": 1e-7}, or null", value);
    double min_lr = -1, min_lr_rate = -1;
    for (const json *v = json_first(value); v != NULL; v = json_next(v)) {
        const bool rate = strcmp(json_key(v), "min_lr_rate") == 0;
        if (!rate && strcmp(json_key(v), "min_lr") != 0)
            return cudpo_fail(CUDPO_ECONFIG, where,
                              "%s: unknown key; there are min_lr and min_lr_rate", json_key(v));
        if (json_type(v) == JSON_NULL) continue;
        if (json_type(v) != JSON_NUMBER || json_number(v) < 0 || (rate && json_number(v) > 1))
            return wrong(where,
                         rate ? "{\"min_lr_rate\": a number from 0 to 1}"
                              : "{\"min_lr\": a number of 0 or more}",
                         v);
        *(rate ? &min_lr_rate : &min_lr) = json_number(v);
    }
    c->min_lr = min_lr;
    c->min_lr_rate = min_lr_rate;
    return CUDPO_OK;
}

static cudpo_status put_null(cudpo_config *c, const config_key *k, const json *value,
                             const char *where)
{
    if (k->type == CONFIG_SCHEDULER) {
        c->min_lr = c->min_lr_rate = -1;
        return CUDPO_OK;
    }
    if (isnan(k->null))
        return wrong(where, k->type == CONFIG_BOOL ? "true or false" : "given", value);
    if (is_text(k->type)) return put_text(c, k, NULL);
    if (k->type == CONFIG_INTEGER || k->type == CONFIG_MAYBE)
        *(int64_t *)field(c, k) = (int64_t)k->null;
    else
        *(double *)field(c, k) = k->null;
    return CUDPO_OK;
}

/* Nothing is changed on failure. */
static cudpo_status put(cudpo_config *c, const config_key *k, const json *value, const char *where)
{
    const json_kind kind = json_type(value);
    if (kind == JSON_NULL) return put_null(c, k, value, where);
    switch (k->type) {
    case CONFIG_TEXT:
        if (kind != JSON_STRING || json_string(value)[0] == '\0')
            return wrong(where, "a path", value);
        return put_text(c, k, json_string(value));
    case CONFIG_LOSS:
        if (kind == JSON_ARRAY && json_count(value) > 1)
            return cudpo_fail(CUDPO_ECONFIG, where,
                              "sums of several losses are not supported: give one");
        if (kind == JSON_ARRAY && json_count(value) == 1)
            return put_choice(c, k, json_first(value), where);
        return put_choice(c, k, value, where);
    case CONFIG_CHOICE:
        return put_choice(c, k, value, where);
    case CONFIG_RESUME:
        if (kind == JSON_BOOL) return put_text(c, k, json_bool(value) ? "true" : NULL);
        if (kind != JSON_STRING || json_string(value)[0] == '\0')
            return wrong(where, "true, false or the folder of a checkpoint", value);
        return put_text(c, k, json_string(value));
    case CONFIG_REAL:
    case CONFIG_INTEGER:
        return put_number(c, k, value, where);
    case CONFIG_BOOL:
        if (kind != JSON_BOOL) return wrong(where, "true or false", value);
        *(bool *)field(c, k) = json_bool(value);
        return CUDPO_OK;
    case CONFIG_MAYBE:
        if (kind != JSON_BOOL) return wrong(where, "true, false or null", value);
        *(int64_t *)field(c, k) = json_bool(value);
        return CUDPO_OK;
    case CONFIG_SCHEDULER:
        return put_scheduler(c, value, where);
    }
    return CUDPO_OK;
}

cudpo_status cudpo_config_create(cudpo_config *c)
{
    int64_t n;
    const config_key *keys = config_keys(&n);
    *c = (cudpo_config){0};
    for (int64_t i = 0; i < n; i++) {
        json *value = NULL;
        cudpo_status status =
            json_parse(&value, keys[i].standard, strlen(keys[i].standard), keys[i].name);
        if (status == CUDPO_OK) status = put(c, &keys[i], value, keys[i].name);
        json_free(value);
        if (status != CUDPO_OK) {
            cudpo_config_free(c);
            return status;
        }
    }
    return CUDPO_OK;
}

cudpo_status config_copy(cudpo_config *out, const cudpo_config *c)
{
    int64_t n;
    const config_key *keys = config_keys(&n);
    *out = *c;
    out->source = c->source != NULL ? strdup(c->source) : NULL;
    bool whole = c->source == NULL || out->source != NULL;
    for (int64_t i = 0; i < n; i++) {
        if (!is_text(keys[i].type)) continue;
        char *const *from = field_of(c, &keys[i]);
        char **to = field(out, &keys[i]);
        *to = *from != NULL ? strdup(*from) : NULL;
        whole = whole && (*from == NULL || *to != NULL);
    }
    if (whole) return CUDPO_OK;
    cudpo_config_free(out);
    return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "configuration");
}

void cudpo_config_free(cudpo_config *c)
{
    int64_t n;
    const config_key *keys = config_keys(&n);
    if (c == NULL) return;
    for (int64_t i = 0; i < n; i++)
        if (is_text(keys[i].type)) free(*(char **)field(c, &keys[i]));
    free(c->source);
    *c = (cudpo_config){0};
}

static cudpo_status put_named(cudpo_config *c, const char *name, const json *value,
                              const char *where, bool by_hand)
{
    const config_key *k = config_find(name);
    if (k == NULL) return config_foreign(name, value, where);
    CUDPO_TRY(put(c, k, value, where));
    const uint64_t bit = UINT64_C(1) << config_line(k);
    c->by_hand = by_hand ? c->by_hand | bit : c->by_hand & ~bit;
    return CUDPO_OK;
}

cudpo_status cudpo_config_load(cudpo_config *c, const char *path)
{
    json *tree = NULL;
    buffer where = {0};
    cudpo_status status = json_load(&tree, path, CONFIG_MAX_BYTES);
    if (status == CUDPO_EDATA) status = CUDPO_ECONFIG; /* the message stands */
    if (status == CUDPO_OK && json_type(tree) != JSON_OBJECT)
        status = cudpo_fail(CUDPO_ECONFIG, path, "must be an object of keys, not %s",
                            json_kind_name(json_type(tree)));
    if (status == CUDPO_OK) {
        char *source = strdup(path);
        if (source == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%s", path);
        if (source != NULL) {
            free(c->source);
            c->source = source;
        }
    }
    const json *keys = status == CUDPO_OK ? tree : NULL;
    if (keys != NULL && json_get(keys, "cudpo") != NULL && json_get(keys, "config") != NULL)
        keys = json_get(keys, "config"); /* run.json of an earlier run */
    if (keys != NULL && json_type(keys) != JSON_OBJECT)
        status = cudpo_fail(CUDPO_ECONFIG, path, "config: must be an object of keys");
    const json *v = status == CUDPO_OK ? json_first(keys) : NULL;
    for (; v != NULL && status == CUDPO_OK; v = json_next(v)) {
        buffer_clear(&where);
        status = buffer_printf(&where, "%s: %s", path, json_key(v));
        if (status == CUDPO_OK) status = put_named(c, json_key(v), v, where.data, false);
    }
    buffer_free(&where);
    json_free(tree);
    return status;
}

/* What stands on a command line, as JSON: bare words are strings, and for text everything is that is not null or quoted. */
static cudpo_status parse_word(json **out, const config_key *k, const char *value)
{
    static const char *const python[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    for (int i = 0; i < 3; i++)
        if (strcmp(value, python[i][0]) == 0) value = python[i][1];
    const bool word =
        k != NULL && is_text(k->type) && strcmp(value, "null") != 0 && value[0] != '"' &&
        value[0] != '[' &&
        !(k->type == CONFIG_RESUME && (strcmp(value, "true") == 0 || strcmp(value, "false") == 0));
    if (!word && json_parse(out, value, strlen(value), "value") == CUDPO_OK) return CUDPO_OK;
    cudpo_error_clear();
    buffer quoted = {0};
    cudpo_status status = buffer_json_string(&quoted, value, strlen(value));
    if (status == CUDPO_OK) status = json_parse(out, quoted.data, quoted.size, "value");
    buffer_free(&quoted);
    return status;
}

cudpo_status cudpo_config_set(cudpo_config *c, const char *key, const char *value)
{
    const config_key *k = config_find(key);
    json *parsed = NULL;
    buffer where = {0};
    cudpo_status status = buffer_printf(&where, "--%s", key);
    if (status == CUDPO_OK && value == NULL && k != NULL && k->type != CONFIG_BOOL &&
        k->type != CONFIG_MAYBE && k->type != CONFIG_RESUME)
        status = cudpo_fail(CUDPO_ECONFIG, where.data, "needs a value: %s", k->meaning);
    if (status == CUDPO_OK) status = parse_word(&parsed, k, value == NULL ? "true" : value);
    if (status == CUDPO_OK) status = put_named(c, key, parsed, where.data, true);
    json_free(parsed);
    buffer_free(&where);
    return status == CUDPO_EDATA ? CUDPO_ECONFIG : status;
}

static cudpo_status print_scheduler(buffer *b, const cudpo_config *c)
{
    const char *between = "";
    if (c->min_lr < 0 && c->min_lr_rate < 0) return buffer_printf(b, "null");
    CUDPO_TRY(buffer_printf(b, "{"));
    if (c->min_lr >= 0) {
        CUDPO_TRY(buffer_printf(b, "\"min_lr\": "));
        CUDPO_TRY(buffer_json_number(b, c->min_lr));
        between = ", ";
    }
    if (c->min_lr_rate >= 0) {
        CUDPO_TRY(buffer_printf(b, "%s\"min_lr_rate\": ", between));
        CUDPO_TRY(buffer_json_number(b, c->min_lr_rate));
    }
    return buffer_printf(b, "}");
}

static cudpo_status print_value(buffer *b, const cudpo_config *c, const config_key *k)
{
    const void *at = field_of(c, k);
    if (k->type == CONFIG_SCHEDULER) return print_scheduler(b, c);
    if (k->type == CONFIG_BOOL) return buffer_printf(b, "%s", *(const bool *)at ? "true" : "false");
    if (k->type == CONFIG_MAYBE) {
        const int64_t value = *(const int64_t *)at;
        return buffer_printf(b, "%s", value < 0 ? "null" : value > 0 ? "true" : "false");
    }
    if (is_text(k->type)) {
        const char *text = *(char *const *)at;
        if (text == NULL) return buffer_printf(b, "null");
        if (k->type == CONFIG_RESUME && strcmp(text, "true") == 0) return buffer_printf(b, "true");
        return buffer_json_string(b, text, strlen(text));
    }
    const double number =
        k->type == CONFIG_INTEGER ? (double)*(const int64_t *)at : *(const double *)at;
    if (number == k->null) return buffer_printf(b, "null");
    return buffer_json_number(b, number);
}

static cudpo_status print_all(buffer *b, const cudpo_config *c)
{
    int64_t n;
    const config_key *keys = config_keys(&n);
    for (int64_t i = 0; i < n; i++) {
        CUDPO_TRY(buffer_printf(b, "%s  \"%s\": ", i == 0 ? "{\n" : ",\n", keys[i].name));
        CUDPO_TRY(print_value(b, c, &keys[i]));
    }
    return buffer_printf(b, "\n}\n");
}

char *cudpo_config_print(const cudpo_config *c)
{
    buffer b = {0};
    if (print_all(&b, c) != CUDPO_OK) {
        buffer_free(&b);
        return NULL;
    }
    return b.data;
}

void cudpo_config_describe(void (*line)(void *context, const char *key, const char *value,
                                        const char *meaning),
                           void *context)
{
    int64_t n;
    const config_key *keys = config_keys(&n);
    for (int64_t i = 0; i < n; i++) {
        char meaning[512];
        size_t used = (size_t)snprintf(meaning, sizeof meaning, "%s", keys[i].meaning);
        for (int64_t k = 0; keys[i].choices != NULL && keys[i].choices[k] != NULL; k++)
            if (used < sizeof meaning)
                used += (size_t)snprintf(meaning + used, sizeof meaning - used, "%s%s",
                                         k == 0 ? ": " : ", ", keys[i].choices[k]);
        line(context, keys[i].name, keys[i].standard, meaning);
    }
}
