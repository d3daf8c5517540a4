/* log.h - diagnostics for a person, on stderr; results go to stdout and to files instead. */
#ifndef CUDPO_BASE_LOG_H
#define CUDPO_BASE_LOG_H

#include "cudpo/status.h"

void log_info(const char *fmt, ...) CUDPO_PRINTF(1, 2);
void log_warn(const char *fmt, ...) CUDPO_PRINTF(1, 2); /* "warning: " before it */

#endif /* CUDPO_BASE_LOG_H */
