/* buffer.c - grows by doubling. */
#include "base/buffer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cudpo_status buffer_reserve(buffer *b, size_t more)
{
    if (more >= PTRDIFF_MAX - b->size) /* no object is larger */
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu bytes", more);
    const size_t need = b->size + more + 1;
    if (need <= b->capacity) return CUDPO_OK;
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity < need)
        capacity = capacity > PTRDIFF_MAX / 2 ? need : capacity * 2;
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

static cudpo_status append_escaped(buffer *b, unsigned char c)
{
    if (c == '"') return buffer_append(b, "\\\"", 2);
    if (c == '\\') return buffer_append(b, "\\\\", 2);
    if (c == '\n') return buffer_append(b, "\\n", 2);
    return buffer_printf(b, "\\u%04x", c);
}

cudpo_status buffer_json_string(buffer *b, const char *s, size_t n)
{
    const size_t before = b->size;
    cudpo_status status = buffer_append(b, "\"", 1);
    size_t begin = 0; /* of the run that needs no escapes */
    for (size_t i = 0; i < n && status == CUDPO_OK; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        status = buffer_append(b, s + begin, i - begin);
        if (status == CUDPO_OK) status = append_escaped(b, c);
        begin = i + 1;
    }
    if (status == CUDPO_OK) status = buffer_append(b, s + begin, n - begin);
    if (status == CUDPO_OK) status = buffer_append(b, "\"", 1);
    if (status != CUDPO_OK && b->data != NULL) {
        b->size = before;
        b->data[before] = '\0';
    }
    return status;
}

/* A program around this library may have set a locale with another decimal point than JSON's. */
static void set_decimal_point(char *text)
{
    const size_t at = strspn(text, "-0123456789");
    if (text[at] == '\0' || text[at] == '.' || text[at] == 'e') return;
    const size_t width = strcspn(text + at, "0123456789");
    text[at] = '.';
    memmove(text + at + 1, text + at + width, strlen(text + at + width) + 1);
}

cudpo_status buffer_json_number(buffer *b, double value)
{
    if (!isfinite(value)) return buffer_append(b, "null", 4);
    char text[40];
    if (fabs(value) < 1e15 && value == floor(value) && !(value == 0.0 && signbit(value))) {
        /* What %.15g prints of integers, and most numbers of a log are; it needs no reading back. */
        snprintf(text, sizeof text, "%lld", (long long)value);
        return buffer_append(b, text, strlen(text));
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    set_decimal_point(text);
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
