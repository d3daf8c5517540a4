/* failure.c - cudpo_fail() puts "WHERE: " before a message, so one is cut there again: at whichever ": ", the whole is the same. */
#include "base/failure.h"

#include <stdio.h>
#include <string.h>

failure failure_take(cudpo_status status)
{
    failure f = {.status = status};
    if (status == CUDPO_OK) return f;
    snprintf(f.message, sizeof f.message, "%s", cudpo_error_message());
    cudpo_error_clear();
    return f;
}

cudpo_status failure_give(const failure *f)
{
    if (f->status == CUDPO_OK) return CUDPO_OK;
    char where[sizeof f->message];
    snprintf(where, sizeof where, "%s", f->message);
    char *cut = strstr(where, ": ");
    if (cut == NULL) return cudpo_fail(f->status, "failed", "%s", f->message);
    *cut = '\0';
    return cudpo_fail(f->status, where, "%s", cut + 2);
}
