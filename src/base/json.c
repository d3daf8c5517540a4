/* json.c - the strict wrapper around cJSON.
 *
 * cJSON is lax: it keeps duplicate keys, cuts strings at \u0000, lets invalid UTF-8, raw control characters,
 * "01" and trailing text pass.  So json_scan() recognises the text first, and the tree is checked after. */
#include "base/json.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_scan.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fails where two members share a name: sorting would lose the order, so a table of hashes it is. */
static cudpo_status check_keys(const json *object, const char *where)
{
    const size_t count = (size_t)json_count(object);
    if (count < 2) return CUDPO_OK;
    size_t slots = 4;
    while (slots < 2 * count)
        slots *= 2;
    const json **table = calloc(slots, sizeof *table);
    if (table == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "%zu keys", count);
    cudpo_status status = CUDPO_OK;
    for (const json *m = object->child; m != NULL && status == CUDPO_OK; m = m->next) {
        size_t slot = hash64_bytes(m->string, strlen(m->string)) & (slots - 1);
        while (table[slot] != NULL && strcmp(table[slot]->string, m->string) != 0)
            slot = (slot + 1) & (slots - 1);
        if (table[slot] != NULL)
            status = cudpo_fail(CUDPO_EDATA, where, "key \"%.60s\" stands twice in one object",
                                m->string);
        table[slot] = m;
    }
    free(table);
    return status;
}

/* Depth is bounded by json_scan(). */
static cudpo_status check_tree(const json *value, const char *where)
{
    if (cJSON_IsNumber(value) && !isfinite(value->valuedouble))
        return cudpo_fail(CUDPO_EDATA, where, "%s%sa number is too large for a double",
                          value->string == NULL ? "" : value->string,
                          value->string == NULL ? "" : ": ");
    if (cJSON_IsObject(value)) CUDPO_TRY(check_keys(value, where));
    for (const json *child = value->child; child != NULL; child = child->next)
        CUDPO_TRY(check_tree(child, where));
    return CUDPO_OK;
}

/* What is no JSON, by its line where the text is a whole file: its line and the byte in that line, both from 1. */
static cudpo_status malformed(const char *text, size_t offset, const char *reason,
                              const char *where, bool file)
{
    if (!file)
        return cudpo_fail(CUDPO_EDATA, where, "not valid JSON at byte %zu: %s", offset, reason);
    size_t line = 1, begin = 0;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] != '\n') continue;
        line++;
        begin = i + 1;
    }
    char place[4200];
    snprintf(place, sizeof place, "%s:%zu", where, line);
    return cudpo_fail(CUDPO_EDATA, place, "not valid JSON at byte %zu of the line: %s",
                      offset - begin + 1, reason);
}

static cudpo_status parse(json **out, const char *text, size_t n, const char *where, bool file)
{
    *out = NULL;
    size_t offset = 0;
    const char *reason = NULL;
    /* A byte order mark, as some editors write. */
    const size_t mark = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    if (!json_scan(text + mark, n - mark, JSON_MAX_DEPTH, &offset, &reason))
        return malformed(text, mark + offset, reason, where, file);
    text += mark;
    n -= mark;
    const char *end = NULL;
    json *tree = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (tree == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory to parse %zu bytes", n);
    const cudpo_status status = check_tree(tree, where);
    if (status != CUDPO_OK) {
        cJSON_Delete(tree);
        return status;
    }
    *out = tree;
    return CUDPO_OK;
}

cudpo_status json_parse(json **out, const char *text, size_t n, const char *where)
{
    return parse(out, text, n, where, false);
}

cudpo_status json_load(json **out, const char *path, size_t max_bytes)
{
    *out = NULL;
    char *text = NULL;
    size_t n = 0;
    CUDPO_TRY(file_read(&text, &n, path, max_bytes));
    const cudpo_status status = parse(out, text, n, path, true);
    free(text);
    return status;
}

void json_free(json *tree)
{
    cJSON_Delete(tree);
}

json_kind json_type(const json *value)
{
    switch (value->type & 0xff) {
    case cJSON_False:
    case cJSON_True:
        return JSON_BOOL;
    case cJSON_Number:
        return JSON_NUMBER;
    case cJSON_String:
        return JSON_STRING;
    case cJSON_Array:
        return JSON_ARRAY;
    case cJSON_Object:
        return JSON_OBJECT;
    default:
        return JSON_NULL;
    }
}

const char *json_kind_name(json_kind kind)
{
    static const char *const names[] = {"null",     "true or false", "a number",
                                        "a string", "a list",        "an object"};
    return names[kind];
}

const json *json_first(const json *parent)
{
    return parent->child;
}

const json *json_next(const json *value)
{
    return value->next;
}

int64_t json_count(const json *parent)
{
    int64_t count = 0;
    for (const json *child = parent->child; child != NULL; child = child->next)
        count++;
    return count;
}

const char *json_key(const json *member)
{
    return member->string;
}

const json *json_get(const json *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

bool json_bool(const json *value)
{
    assert(json_type(value) == JSON_BOOL);
    return cJSON_IsTrue(value);
}

double json_number(const json *value)
{
    assert(json_type(value) == JSON_NUMBER);
    return value->valuedouble;
}

const char *json_string(const json *value)
{
    assert(json_type(value) == JSON_STRING);
    return value->valuestring;
}

bool json_integer(const json *value, int64_t *out)
{
    if (json_type(value) != JSON_NUMBER) return false;
    const double d = value->valuedouble;
    if (!(fabs(d) < 0x1p53) || d != floor(d)) return false;
    *out = (int64_t)d;
    return true;
}
