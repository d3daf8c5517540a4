/* rows.h - fields of the files that `cudpo bench` and `cudpo plan` write, as far as they are there. */
#ifndef CUDPO_BENCH_ROWS_H
#define CUDPO_BENCH_ROWS_H

#include "base/json.h"

#include <math.h>
#include <stdbool.h>

/* NULL where `object` is none, or has no text of that name. */
static inline const char *row_text(const json *object, const char *key)
{
    const json *value = json_type(object) == JSON_OBJECT ? json_get(object, key) : NULL;
    return value != NULL && json_type(value) == JSON_STRING ? json_string(value) : NULL;
}

/* NaN where there is no such number. */
static inline double row_number(const json *object, const char *key)
{
    const json *value = json_type(object) == JSON_OBJECT ? json_get(object, key) : NULL;
    return value != NULL && json_type(value) == JSON_NUMBER ? json_number(value) : (double)NAN;
}

/* -1 where it is neither true nor false. */
static inline int row_flag(const json *object, const char *key)
{
    const json *value = json_type(object) == JSON_OBJECT ? json_get(object, key) : NULL;
    return value != NULL && json_type(value) == JSON_BOOL ? json_bool(value) : -1;
}

#endif /* CUDPO_BENCH_ROWS_H */
