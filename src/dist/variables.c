/* variables.c - an environment is written by scripts and templates: nothing of it is taken on trust. */
#include "dist/variables.h"

#include <string.h>

#define LARGEST ((int64_t)1 << 53)

const char *variables_get(const variables *v, const char *name)
{
    return v->get(v->context, name);
}

cudpo_status variables_parse(int64_t *out, const char *name, const char *text)
{
    int64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && value <= LARGEST; at++)
        value = value * 10 + (*at - '0');
    if (*at != '\0' || at == text || value > LARGEST)
        return cudpo_fail(CUDPO_ECONFIG, name,
                          "\"%.100s\" is no whole number of 0 or more: unset it, or set it right",
                          text);
    *out = value;
    return CUDPO_OK;
}

cudpo_status variables_number(int64_t *out, const variables *v, const char *name)
{
    const char *text = variables_get(v, name);
    *out = -1;
    return text == NULL ? CUDPO_OK : variables_parse(out, name, text);
}

cudpo_status variables_copy(char out[PLACEMENT_TEXT], const char *name, const char *text)
{
    const size_t n = text == NULL ? 0 : strlen(text);
    out[0] = '\0';
    if (n >= PLACEMENT_TEXT)
        return cudpo_fail(CUDPO_ECONFIG, name, "is of %zu characters; %d are the most", n,
                          PLACEMENT_TEXT - 1);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return cudpo_fail(CUDPO_ECONFIG, name,
                              "\"%s\" may hold letters, digits and signs of ASCII alone, no spaces",
                              text);
    if (n > 0) memcpy(out, text, n);
    out[n] = '\0';
    return CUDPO_OK;
}
