/* status.c - the per-thread error message. */
#include "cudpo/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[1024];

cudpo_status cudpo_fail(cudpo_status code, const char *where, const char *fmt, ...)
{
    if (message[0] != '\0') return code;
    const int used = snprintf(message, sizeof message, "%s: ", where);
    if (used >= 0 && (size_t)used < sizeof message) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(message + used, sizeof message - (size_t)used, fmt, args);
        va_end(args);
    }
    /* Names and values come from files: nothing of theirs may move a terminal's cursor. */
    for (char *c = message; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    return code;
}

const char *cudpo_error_message(void)
{
    return message;
}

void cudpo_error_clear(void)
{
    message[0] = '\0';
}

int cudpo_exit_code(cudpo_status status)
{
    switch (status) {
    case CUDPO_OK:
        return 0;
    case CUDPO_EUSAGE:
        return 64;
    case CUDPO_EDATA:
        return 65;
    case CUDPO_ENOINPUT:
        return 66;
    case CUDPO_EDEVICE:
    case CUDPO_EPEER:
        return 69;
    case CUDPO_EINVAL:
        return 70;
    case CUDPO_ENOMEM:
        return 71;
    case CUDPO_EWRITE:
        return 73;
    case CUDPO_ESTOPPED:
        return 75;
    case CUDPO_ERENDEZVOUS:
        return 76;
    case CUDPO_EPERM:
        return 77;
    case CUDPO_ECONFIG:
        return 78;
    case CUDPO_ENUMERIC:
        return 79;
    }
    return 70;
}
