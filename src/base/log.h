/* log.h - diagnostics for a person, on stderr; results go to stdout and to files instead. */
#ifndef CUDPO_BASE_LOG_H
#define CUDPO_BASE_LOG_H

#include "cudpo/status.h"

#include <stdbool.h>

void log_info(const char *fmt, ...) CUDPO_PRINTF(1, 2);
void log_warn(const char *fmt, ...) CUDPO_PRINTF(1, 2); /* "warning: " before it */

/* From here on this process is one of several that say the same: rank 0 alone says what is no warning, and the others' warnings
 * begin with their rank. */
void log_as_rank(int rank);

/* While `alike`, the others say nothing at all: what is said then is the same on every rank. */
void log_alike(bool alike);

#endif /* CUDPO_BASE_LOG_H */
