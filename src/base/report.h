/* report.h - facts in words, one line each, to whoever asks. */
#ifndef CUDPO_BASE_REPORT_H
#define CUDPO_BASE_REPORT_H

#include "cudpo/status.h"

/* Where the lines of a report go. */
typedef struct report {
    void (*line)(void *context, const char *name, const char *value);
    void *context;
} report;

/** One line; 511 characters of it at most. */
void report_say(const report *r, const char *name, const char *fmt, ...) CUDPO_PRINTF(3, 4);

#endif /* CUDPO_BASE_REPORT_H */
