/* report.c - a line from its parts. */
#include "base/report.h"

#include <stdarg.h>
#include <stdio.h>

void report_say(const report *r, const char *name, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    r->line(r->context, name, text);
}
