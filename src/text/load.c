/* load.c - see load.h. */
#include "text/load.h"

#include "base/buffer.h"

#include <string.h>

static cudpo_status wrong_kind(const json *value, const char *key, const char *want,
                               const char *where)
{
    return cudpo_fail(CUDPO_EDATA, where, "%s must be %s, not %s", key, want,
                      json_kind_name(json_type(value)));
}

static cudpo_status need_object(const json *value, const char *where)
{
    if (json_type(value) == JSON_OBJECT) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, where, "must be an object, not %s",
                      json_kind_name(json_type(value)));
}

cudpo_status load_member(const json **out, const json *object, const char *key, json_kind kind,
                         const char *where)
{
    *out = json_get(object, key);
    if (*out == NULL) return cudpo_fail(CUDPO_EDATA, where, "%s is missing", key);
    if (json_type(*out) != kind) return wrong_kind(*out, key, json_kind_name(kind), where);
    return CUDPO_OK;
}

cudpo_status load_string(const char **out, const json *object, const char *key,
                         const char *otherwise, const char *where)
{
    *out = otherwise;
    const json *value = json_get(object, key);
    if (value == NULL || json_type(value) == JSON_NULL) return CUDPO_OK;
    if (json_type(value) != JSON_STRING) return wrong_kind(value, key, "a string", where);
    *out = json_string(value);
    return CUDPO_OK;
}

cudpo_status load_bool(bool *out, const json *object, const char *key, bool otherwise,
                       const char *where)
{
    *out = otherwise;
    const json *value = json_get(object, key);
    if (value == NULL || json_type(value) == JSON_NULL) return CUDPO_OK;
    if (json_type(value) != JSON_BOOL) return wrong_kind(value, key, "true or false", where);
    *out = json_bool(value);
    return CUDPO_OK;
}

cudpo_status load_integer(int64_t *out, const json *object, const char *key, int64_t low,
                          int64_t high, const char *where)
{
    const json *value;
    CUDPO_TRY(load_member(&value, object, key, JSON_NUMBER, where));
    if (json_integer(value, out) && *out >= low && *out <= high) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, where, "%s is %.17g; it must be an integer in %lld .. %lld", key,
                      json_number(value), (long long)low, (long long)high);
}

cudpo_status load_type(const char **out, const json *component, const char *where)
{
    CUDPO_TRY(need_object(component, where));
    const json *type;
    CUDPO_TRY(load_member(&type, component, "type", JSON_STRING, where));
    *out = json_string(type);
    return CUDPO_OK;
}

cudpo_status load_choice(int *out, const char *name, const char *const names[], int n,
                         const char *what, const char *where)
{
    for (*out = 0; *out < n; ++*out) {
        if (strcmp(name, names[*out]) == 0) return CUDPO_OK;
    }
    buffer list = {0};
    for (int i = 0; i < n; i++)
        CUDPO_TRY(buffer_printf(&list, "%s%s", i == 0 ? "" : ", ", names[i]));
    const cudpo_status status =
        cudpo_fail(CUDPO_EDATA, where, "%s \"%.40s\" is not supported; supported are: %s", what,
                   name, list.data);
    buffer_free(&list);
    return status;
}

cudpo_status load_pattern(regex **out, const json *component, const char *where)
{
    const json *pattern;
    CUDPO_TRY(load_member(&pattern, component, "pattern", JSON_OBJECT, where));
    const char *literal, *expression;
    CUDPO_TRY(load_string(&literal, pattern, "String", NULL, where));
    CUDPO_TRY(load_string(&expression, pattern, "Regex", NULL, where));
    if ((literal == NULL) == (expression == NULL))
        return cudpo_fail(CUDPO_EDATA, where, "pattern needs either \"String\" or \"Regex\"");
    return literal != NULL ? regex_compile_literal(out, literal, where)
                           : regex_compile(out, expression, where);
}

static cudpo_status walk(void *state, const json *component, const char *members, load_one one,
                         int *count, const char *where)
{
    const char *type;
    CUDPO_TRY(load_type(&type, component, where));
    if (strcmp(type, "Sequence") != 0) {
        if (++*count > LOAD_MAX_COMPONENTS)
            return cudpo_fail(CUDPO_EDATA, where, "over %d components", LOAD_MAX_COMPONENTS);
        return one(state, component, type, where);
    }
    const json *list;
    CUDPO_TRY(load_member(&list, component, members, JSON_ARRAY, where));
    for (const json *member = json_first(list); member != NULL; member = json_next(member))
        CUDPO_TRY(
            walk(state, member, members, one, count, where)); /* as deep as the JSON: bounded */
    return CUDPO_OK;
}

cudpo_status load_components(void *state, const json *component, const char *members, load_one one,
                             const char *where)
{
    int count = 0;
    if (component == NULL || json_type(component) == JSON_NULL) return CUDPO_OK;
    return walk(state, component, members, one, &count, where);
}
