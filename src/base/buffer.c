/* buffer.c - grows by doubling. */
#include "base/buffer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cudpo_status buffer_reserve(buffer *b, size_t more)
{
    if (more >= SIZE_MAX - b->size) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu bytes", more);
    const size_t need = b->size + more + 1;
    if (need <= b->capacity) return CUDPO_OK;
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity < need)
        capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    char *data = realloc(b->data, capacity);
    if (data == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu bytes", capacity);
    if (b->data == NULL) data[0] = '\0';
    b->data = data;
    b->capacity = capacity;
    return CUDPO_OK;
}

cudpo_status buffer_append(buffer *b, const void *data, size_t n)
{
    CUDPO_TRY(buffer_reserve(b, n));
    if (n > 0) memcpy(b->data + b->size, data, n);
    b->size += n;
    b->data[b->size] = '\0';
    return CUDPO_OK;
}

cudpo_status buffer_printf(buffer *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "bad format %s", fmt);
    CUDPO_TRY(buffer_reserve(b, (size_t)n));
    va_start(args, fmt);
    vsnprintf(b->data + b->size, (size_t)n + 1, fmt, args);
    va_end(args);
    b->size += (size_t)n;
    return CUDPO_OK;
}

cudpo_status buffer_json_string(buffer *b, const char *s, size_t n)
{
    CUDPO_TRY(buffer_append(b, "\"", 1));
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            const char escaped[2] = {'\\', (char)c};
            CUDPO_TRY(buffer_append(b, escaped, 2));
        } else if (c == '\n') {
            CUDPO_TRY(buffer_append(b, "\\n", 2));
        } else if (c < 0x20) {
            CUDPO_TRY(buffer_printf(b, "\\u%04x", c));
        } else {
            CUDPO_TRY(buffer_append(b, &s[i], 1));
        }
    }
    return buffer_append(b, "\"", 1);
}

cudpo_status buffer_json_number(buffer *b, double value)
{
    if (!isfinite(value)) return buffer_append(b, "null", 4);
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    return buffer_append(b, text, strlen(text));
}

void buffer_clear(buffer *b)
{
    b->size = 0;
    if (b->data != NULL) b->data[0] = '\0';
}

void buffer_free(buffer *b)
{
    free(b->data);
    *b = (buffer){0};
}
