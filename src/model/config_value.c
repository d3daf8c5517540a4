/* config_value.c - typed reading of one JSON object of a configuration. */
#include "model/config_value.h"

#include <stdarg.h>
#include <stdio.h>

cudpo_status config_bad(config_reader r, const char *key, const char *fmt, ...)
{
    char where[700], reason[300];
    snprintf(where, sizeof where, "%.500s: %s%s", r.path, r.prefix, key);
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason, sizeof reason, fmt, args);
    va_end(args);
    return cudpo_fail(CUDPO_EDATA, where, "%s", reason);
}

const json *config_member(config_reader r, const char *key)
{
    const json *value = json_get(r.object, key);
    return value == NULL || json_type(value) == JSON_NULL ? NULL : value;
}

cudpo_status config_integer(config_reader r, const char *key, int64_t absent, int64_t least,
                            int64_t most, int64_t *out)
{
    const json *value = config_member(r, key);
    int64_t n = absent;
    if (value == NULL && absent == CONFIG_REQUIRED) return config_bad(r, key, "missing");
    if (value != NULL && !json_integer(value, &n))
        return config_bad(r, key, "must be an integer, not %s",
                          json_type(value) == JSON_NUMBER ? "a fraction or over 2^53"
                                                          : json_kind_name(json_type(value)));
    if (n < least || n > most)
        return config_bad(r, key, "%lld is outside %lld .. %lld", (long long)n, (long long)least,
                          (long long)most);
    *out = n;
    return CUDPO_OK;
}

cudpo_status config_number(config_reader r, const char *key, double absent, double least,
                           double most, double *out)
{
    const json *value = config_member(r, key);
    if (value != NULL && json_type(value) != JSON_NUMBER)
        return config_bad(r, key, "must be a number, not %s", json_kind_name(json_type(value)));
    const double x = value != NULL ? json_number(value) : absent;
    if (!(x >= least && x <= most))
        return config_bad(r, key, "%g is outside %g .. %g", x, least, most);
    *out = x;
    return CUDPO_OK;
}

cudpo_status config_bool(config_reader r, const char *key, bool absent, bool *out)
{
    const json *value = config_member(r, key);
    if (value != NULL && json_type(value) != JSON_BOOL)
        return config_bad(r, key, "must be true or false, not %s",
                          json_kind_name(json_type(value)));
    *out = value != NULL ? json_bool(value) : absent;
    return CUDPO_OK;
}

cudpo_status config_string(config_reader r, const char *key, const char **out)
{
    const json *value = config_member(r, key);
    if (value == NULL) return CUDPO_OK;
    if (json_type(value) != JSON_STRING)
        return config_bad(r, key, "must be a string, not %s", json_kind_name(json_type(value)));
    *out = json_string(value);
    return CUDPO_OK;
}
