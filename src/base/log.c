/* log.c - one write per line, so that lines of several processes do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

/* stderr belongs to the whole process, and so does who it says that it is. */
static int own_rank;
static bool ranks_alike;

void log_as_rank(int rank)
{
    own_rank = rank;
}

static void print(const char *prefix, const char *fmt, va_list args)
{
    char line[2048];
    const int used = snprintf(line, sizeof line, "%s", prefix);
    vsnprintf(line + used, sizeof line - (size_t)used, fmt, args);
    for (char *c = line; *c != '\0'; c++) {
        if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f) *c = '?'; /* see status.c */
    }
    fprintf(stderr, "%s\n", line);
}

void log_alike(bool alike)
{
    ranks_alike = alike;
}

void log_info(const char *fmt, ...)
{
    va_list args;
    if (own_rank > 0) return;
    va_start(args, fmt);
    print("", fmt, args);
    va_end(args);
}

void log_warn(const char *fmt, ...)
{
    va_list args;
    char prefix[40] = "warning: ";
    if (own_rank > 0 && ranks_alike) return;
    if (own_rank > 0) snprintf(prefix, sizeof prefix, "warning: rank %d: ", own_rank);
    va_start(args, fmt);
    print(prefix, fmt, args);
    va_end(args);
}
