/* environment.h - the variables that a rank is started with. */
#ifndef CUDPO_LAUNCH_ENVIRONMENT_H
#define CUDPO_LAUNCH_ENVIRONMENT_H

#include "cudpo/status.h"

#include <stddef.h>

/* {0} holds nothing. */
typedef struct environment {
    char **variables; /* "NAME=value", ended by NULL: as execve() takes it */
    size_t n, capacity;
} environment;

/** All variables of this process.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status environment_copy(environment *e);

/** Set one, in place of another value.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM: nothing changed. */
CUDPO_MUST_USE cudpo_status environment_set(environment *e, const char *name, const char *fmt, ...)
    CUDPO_PRINTF(3, 4);

void environment_remove(environment *e, const char *name);
void environment_free(environment *e);

#endif /* CUDPO_LAUNCH_ENVIRONMENT_H */
