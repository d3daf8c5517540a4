/* variables.h - variables of the environment, strictly read. */
#ifndef CUDPO_DIST_VARIABLES_H
#define CUDPO_DIST_VARIABLES_H

#include "cudpo/status.h"
#include "dist/placement.h"

#include <stddef.h>
#include <stdint.h>

/* An environment. */
typedef struct variables {
    placement_variable get;
    void *context;
} variables;

/* NULL where it is not set. */
const char *variables_get(const variables *v, const char *name);

/** A number of digits alone.
 *  Out:     out  -1 where the variable is not set.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG naming variable and value: not a whole number of 0 to 2^53, the empty text among them. */
CUDPO_MUST_USE cudpo_status variables_number(int64_t *out, const variables *v, const char *name);

/** The same of a text from elsewhere, such as an option's. */
CUDPO_MUST_USE cudpo_status variables_parse(int64_t *out, const char *name, const char *text);

/** Copy a value that becomes part of addresses, ids and messages; `text` NULL or "" gives "".
 *  Returns: CUDPO_OK; CUDPO_ECONFIG: longer than PLACEMENT_TEXT - 1, or not printable ASCII without spaces. */
CUDPO_MUST_USE cudpo_status variables_copy(char out[PLACEMENT_TEXT], const char *name,
                                           const char *text);

#endif /* CUDPO_DIST_VARIABLES_H */
