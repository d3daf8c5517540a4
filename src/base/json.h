/* json.h - strict reading of JSON that we did not write: the only place that sees cJSON.
 *
 * Accepted is RFC 8259 in UTF-8, and nothing else: no duplicate keys, no invalid UTF-8, no \u0000, no lone
 * surrogates, no raw control characters, no leading zeros, no NaN, no trailing text, no nesting over
 * JSON_MAX_DEPTH, numbers of at most 63 characters and within the range of a double.  A byte order mark before
 * the text is skipped.  Values are views owned by the parsed tree. */
#ifndef CUDPO_BASE_JSON_H
#define CUDPO_BASE_JSON_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_MAX_DEPTH = 64 };

typedef struct cJSON json; /* opaque outside json.c */

typedef enum json_kind {
    JSON_NULL,
    JSON_BOOL,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
} json_kind;

/** Parse `n` bytes of text.
 *  Out:     out    the tree, to be freed with json_free(); NULL on failure.
 *  In:      where  what the text is, for the message: a path or "path:line".
 *  Returns: CUDPO_OK; CUDPO_EDATA with `where`, the byte offset and the reason; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status json_parse(json **out, const char *text, size_t n, const char *where);

/** Read and parse a whole file of at most `max_bytes`.
 *  Returns: as json_parse(); CUDPO_ENOINPUT if there is no such file. */
CUDPO_MUST_USE cudpo_status json_load(json **out, const char *path, size_t max_bytes);

void json_free(json *tree);

json_kind json_type(const json *value);
const char *json_kind_name(json_kind kind);

/* Children of an array or object, in order: for (const json *v = json_first(a); v; v = json_next(v)). */
const json *json_first(const json *parent);
const json *json_next(const json *value);
int64_t json_count(const json *parent);
const char *json_key(const json *member); /* of a member of an object */

/* The member of that name, or NULL.  Linear in the number of members: iterate over large objects instead. */
const json *json_get(const json *object, const char *key);

/* The value, which must be of that kind (assert).  Strings are NUL-terminated and hold no other NUL. */
bool json_bool(const json *value);
double json_number(const json *value);
const char *json_string(const json *value);

/* True where the value is a number that is an integer of magnitude below 2^53, so that no other integer in the text could
 * have been rounded to it; only then *out is set. */
CUDPO_MUST_USE bool json_integer(const json *value, int64_t *out);

#endif /* CUDPO_BASE_JSON_H */
