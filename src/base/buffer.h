/* buffer.h - a growing string of bytes, always NUL-terminated: messages, JSON and files are built in it. */
#ifndef CUDPO_BASE_BUFFER_H
#define CUDPO_BASE_BUFFER_H

#include "cudpo/status.h"

#include <stddef.h>
#include <stdint.h>

/* {0} is an empty buffer.  A failed append leaves the content as it was. */
typedef struct buffer {
    char *data; /* NULL only while nothing was appended */
    size_t size;
    size_t capacity;
} buffer;

CUDPO_MUST_USE cudpo_status buffer_reserve(buffer *b,
                                           size_t more); /* room for `more` bytes and the NUL */
CUDPO_MUST_USE cudpo_status buffer_append(buffer *b, const void *data, size_t n);
CUDPO_MUST_USE cudpo_status buffer_printf(buffer *b, const char *fmt, ...) CUDPO_PRINTF(2, 3);

/* `s` as a JSON string, quoted and escaped; bytes outside ASCII stay as they are. */
CUDPO_MUST_USE cudpo_status buffer_json_string(buffer *b, const char *s, size_t n);

/* The shortest of %.15g, %.16g, %.17g that reads back as the same double; null for NaN and Inf. */
CUDPO_MUST_USE cudpo_status buffer_json_number(buffer *b, double value);

void buffer_clear(buffer *b); /* empty, capacity kept */
void buffer_free(buffer *b);

#endif /* CUDPO_BASE_BUFFER_H */
