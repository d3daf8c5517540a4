/* json_scan.h - does a text keep to RFC 8259 and to our limits?  The part of json.c that cJSON is too lax for. */
#ifndef CUDPO_BASE_JSON_SCAN_H
#define CUDPO_BASE_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_MAX_NUMBER = 63 }; /* characters: cJSON cuts longer ones off */

/* True where the text is one JSON value in valid UTF-8, nested at most `max_depth` deep, without \u0000 or
 * lone surrogates, and its numbers are at most JSON_MAX_NUMBER characters long.  Otherwise *offset is where it stops being one, and *reason says why. */
bool json_scan(const char *text, size_t n, int max_depth, size_t *offset, const char **reason);

/* Bytes of the well-formed UTF-8 character at s (1 to 4), or 0. */
size_t utf8_length(const char *s, size_t n);

#endif /* CUDPO_BASE_JSON_SCAN_H */
