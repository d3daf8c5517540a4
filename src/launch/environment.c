/* environment.c - a list of strings of its own, so that nothing of this process changes. */
#include "launch/environment.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* Takes the string over, also where it fails. */
static cudpo_status add(environment *e, char *variable)
{
    if (variable != NULL && e->n + 2 > e->capacity) {
        const size_t capacity = e->capacity == 0 ? 64 : 2 * e->capacity;
        char **more = realloc(e->variables, capacity * sizeof *more);
        if (more == NULL) {
            free(variable);
            variable = NULL;
        } else {
            e->variables = more;
            e->capacity = capacity;
        }
    }
    if (variable == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "variable %zu", e->n);
    e->variables[e->n++] = variable;
    e->variables[e->n] = NULL;
    return CUDPO_OK;
}

cudpo_status environment_copy(environment *e)
{
    *e = (environment){0};
    for (char **v = environ; v != NULL && *v != NULL; v++) {
        const cudpo_status status = add(e, strdup(*v));
        if (status == CUDPO_OK) continue;
        environment_free(e);
        return status;
    }
    return CUDPO_OK;
}

void environment_remove(environment *e, const char *name)
{
    const size_t length = strlen(name);
    size_t kept = 0;
    for (size_t i = 0; i < e->n; i++) {
        if (strncmp(e->variables[i], name, length) == 0 && e->variables[i][length] == '=')
            free(e->variables[i]);
        else
            e->variables[kept++] = e->variables[i];
    }
    e->n = kept;
    if (e->variables != NULL) e->variables[kept] = NULL;
}

cudpo_status environment_set(environment *e, const char *name, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int value = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    const size_t length = strlen(name), size = length + (size_t)(value < 0 ? 0 : value) + 2;
    char *variable = malloc(size);
    if (variable == NULL) return cudpo_fail(CUDPO_ENOMEM, name, "%zu bytes", size);
    memcpy(variable, name, length);
    variable[length] = '=';
    va_start(args, fmt);
    vsnprintf(variable + length + 1, size - length - 1, fmt, args);
    va_end(args);
    environment_remove(e, name);
    return add(e, variable);
}

void environment_free(environment *e)
{
    for (size_t i = 0; i < e->n; i++)
        free(e->variables[i]);
    free(e->variables);
    *e = (environment){0};
}
