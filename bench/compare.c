/* compare.c - what changed from one run to another, beyond what times vary by within each. */
#include "base/buffer.h"
#include "base/json.h"
#include "cudpo/bench.h"

#include <math.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20 };
#define LEAST_CHANGE 0.05 /* runs of one program differ by that much from day to day */

static const char *const keys[] = {"op", "pass", "model", "shape", "dtype"};
enum { KEYS = sizeof keys / sizeof *keys };

static const char *text_of(const json *row, const char *key)
{
    const json *value = json_get(row, key);
    return value != NULL && json_type(value) == JSON_STRING ? json_string(value) : NULL;
}

static double number_of(const json *row, const char *key)
{
    const json *value = json_get(row, key);
    return value != NULL && json_type(value) == JSON_NUMBER ? json_number(value) : (double)NAN;
}

/* The rows of a file, each with what is read of it below. */
static cudpo_status load(json **tree, const json **rows, const char *path)
{
    CUDPO_TRY(json_load(tree, path, MOST_BYTES));
    *rows = json_type(*tree) == JSON_OBJECT ? json_get(*tree, "rows") : NULL;
    if (*rows == NULL || json_type(*rows) != JSON_ARRAY)
        return cudpo_fail(CUDPO_EDATA, path,
                          "has no list \"rows\": it is no file of `cudpo bench`");
    int64_t n = 0;
    for (const json *row = json_first(*rows); row != NULL; row = json_next(row), n++) {
        const bool object = json_type(row) == JSON_OBJECT;
        for (int i = 0; i < KEYS; i++) {
            if (!object || text_of(row, keys[i]) == NULL)
                return cudpo_fail(CUDPO_EDATA, path, "row %lld has no \"%s\"", (long long)n,
                                  keys[i]);
        }
        if (!(number_of(row, "median_us") > 0) || !(number_of(row, "spread_us") >= 0))
            return cudpo_fail(CUDPO_EDATA, path, "row %lld has no time above 0", (long long)n);
    }
    return CUDPO_OK;
}

static const json *same_row(const json *rows, const json *wanted)
{
    for (const json *row = json_first(rows); row != NULL; row = json_next(row)) {
        bool same = true;
        for (int i = 0; i < KEYS; i++)
            same = same && strcmp(text_of(row, keys[i]), text_of(wanted, keys[i])) == 0;
        if (same) return row;
    }
    return NULL;
}

static cudpo_status compare_row(buffer *b, int64_t *changed, const json *old, const json *new_row)
{
    const double before = number_of(old, "median_us"), after = number_of(new_row, "median_us");
    const double spread = number_of(old, "spread_us") + number_of(new_row, "spread_us");
    const double change = after - before;
    if (!(fabs(change) > spread && fabs(change) > LEAST_CHANGE * before)) return CUDPO_OK;
    ++*changed;
    return buffer_printf(b, "%-16s %-8s %-14s %-40s %10.1f -> %10.1f us  %+6.1f %%  %s\n",
                         text_of(old, "op"), text_of(old, "pass"), text_of(old, "model"),
                         text_of(old, "shape"), before, after, 100 * change / before,
                         change > 0 ? "slower" : "faster");
}

static const char *device_of(const json *tree)
{
    const char *device = text_of(tree, "device");
    return device == NULL ? "?" : device;
}

static cudpo_status compare(buffer *b, int64_t *changed, const json *first, const json *second,
                            const json *old, const json *later)
{
    int64_t both = 0, gone = 0;
    if (strcmp(device_of(first), device_of(second)) != 0)
        CUDPO_TRY(buffer_printf(b, "the devices are different: %s, %s\n", device_of(first),
                                device_of(second)));
    for (const json *row = json_first(old); row != NULL; row = json_next(row)) {
        const json *other = same_row(later, row);
        if (other == NULL) {
            gone++;
            continue;
        }
        both++;
        CUDPO_TRY(compare_row(b, changed, row, other));
    }
    return buffer_printf(b,
                         "%lld of %lld rows changed; %lld are in the first file alone, %lld in "
                         "the second\n",
                         (long long)*changed, (long long)both, (long long)gone,
                         (long long)(json_count(later) - both));
}

cudpo_status cudpo_bench_compare(char **text, int64_t *changed, const char *before,
                                 const char *after)
{
    json *first = NULL, *second = NULL;
    const json *old, *later;
    buffer b = {0};
    CUDPO_REQUIRE(text != NULL && changed != NULL && before != NULL && after != NULL);
    *text = NULL;
    *changed = 0;
    cudpo_status status = load(&first, &old, before);
    if (status == CUDPO_OK) status = load(&second, &later, after);
    if (status == CUDPO_OK) status = compare(&b, changed, first, second, old, later);
    json_free(second);
    json_free(first);
    if (status == CUDPO_OK)
        *text = b.data;
    else
        buffer_free(&b);
    return status;
}
