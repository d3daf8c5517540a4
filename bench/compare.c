/* compare.c - what changed from one run to another, beyond what two runs of one program differ by. */
#include "base/buffer.h"
#include "bench/rows.h"
#include "cudpo/bench.h"

#include <math.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20 };

static const char *const keys[] = {"op", "pass", "model", "shape", "dtype"};
enum { KEYS = sizeof keys / sizeof *keys };

/* Two files and what was found so far. */
typedef struct comparison {
    buffer *out;
    const char *path[2];
    json *tree[2];
    const json *rows[2];
    int64_t common, changed, alone[2];
} comparison;

static const json *same_row(const json *rows, const json *wanted)
{
    for (const json *row = json_first(rows); row != NULL; row = json_next(row)) {
        bool same = true;
        for (int i = 0; i < KEYS; i++)
            same = same && strcmp(row_text(row, keys[i]), row_text(wanted, keys[i])) == 0;
        if (same) return row;
    }
    return NULL;
}

static cudpo_status check_row(const json *row, int64_t n, const char *path)
{
    for (int i = 0; i < KEYS; i++) {
        if (row_text(row, keys[i]) == NULL)
            return cudpo_fail(CUDPO_EDATA, path, "row %lld has no \"%s\"", (long long)n, keys[i]);
    }
    if (!(row_number(row, "median_us") > 0) || !(row_number(row, "spread_us") >= 0))
        return cudpo_fail(CUDPO_EDATA, path, "row %lld has no time above 0", (long long)n);
    return CUDPO_OK;
}

/* The rows of a file, each with what is read of it below, and each once. */
static cudpo_status load(comparison *c, int i, const char *path)
{
    c->path[i] = path;
    CUDPO_TRY(json_load(&c->tree[i], path, MOST_BYTES));
    const json *rows = json_type(c->tree[i]) == JSON_OBJECT ? json_get(c->tree[i], "rows") : NULL;
    if (rows == NULL || json_type(rows) != JSON_ARRAY)
        return cudpo_fail(CUDPO_EDATA, path,
                          "has no list \"rows\": it is no file of `cudpo bench`");
    int64_t n = 0;
    for (const json *row = json_first(rows); row != NULL; row = json_next(row))
        CUDPO_TRY(check_row(row, n++, path));
    n = 0;
    for (const json *row = json_first(rows); row != NULL; row = json_next(row), n++) {
        if (same_row(rows, row) != row)
            return cudpo_fail(CUDPO_EDATA, path,
                              "row %lld (%s, %s) is there twice: which one counts?", (long long)n,
                              row_text(row, "op"), row_text(row, "shape"));
    }
    c->rows[i] = rows;
    return CUDPO_OK;
}

/* A text of a file, filled up with spaces; nothing of it reaches a terminal as a command. */
static cudpo_status put(buffer *b, const char *text, int width)
{
    int n = 0;
    for (; text[n] != '\0'; n++) {
        const unsigned char c = (unsigned char)text[n], next = (unsigned char)text[n + 1];
        const bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0; /* U+0080 to U+009F in UTF-8 */
        CUDPO_TRY(buffer_append(b, c1 || c < 0x20 || c == 0x7f ? "?" : &text[n], 1));
        n += c1;
    }
    return n < width ? buffer_printf(b, "%*s", width - n, "") : CUDPO_OK;
}

static cudpo_status put_name(buffer *b, const json *row)
{
    static const int width[KEYS] = {16, 8, 14, 40, 8};
    for (int i = 0; i < KEYS; i++) {
        CUDPO_TRY(put(b, row_text(row, keys[i]), width[i]));
        CUDPO_TRY(buffer_append(b, " ", 1));
    }
    return CUDPO_OK;
}

/* ---- rows ---- */

static double spread_of(const json *row)
{
    return row_number(row, "spread_us") / row_number(row, "median_us");
}

/* The standard error of a median as a share of it.  Four of five calls are within `spread` of the middle, so the median of n
 * calls is off by 1.25 spread / sqrt(n) if their times are spread evenly, and by 0.98 of that if they are normal: its order
 * statistics' density is 1 / (2 f sqrt(n)), f that of the times in the middle. */
static double error_of(const json *row)
{
    const double calls = row_number(row, "calls"); /* unknown: one */
    return 1.25 * spread_of(row) / sqrt(calls > 1 ? calls : 1);
}

/* What medians of two processes differ by, as a share, although nothing changed: their pages and the clock are others, and the
 * more calls differ, the more do processes.  Of three runs of 32 ops one after another, on two shared cores, each with each,
 * 94 of 96 rows kept to this; what others do on the same cores meanwhile, it doesn't cover. */
static double process_error(const json *old, const json *later)
{
    const bool cached = row_flag(old, "cached") == 1 || row_flag(later, "cached") == 1;
    const double varied = 0.05 + fmax(spread_of(old), spread_of(later)) / 2;
    return cached ? fmax(varied, 0.30) : varied;
}

/* Beyond three standard errors, and what processes differ by. */
static bool is_other_time(const json *old, const json *later)
{
    const double change = log(row_number(later, "median_us") / row_number(old, "median_us"));
    const double chance = 3 * hypot(error_of(old), error_of(later));
    return fabs(change) > hypot(chance, process_error(old, later));
}

static cudpo_status put_time(buffer *b, const json *old, const json *later)
{
    const double before = row_number(old, "median_us"), after = row_number(later, "median_us");
    return buffer_printf(b, " %10.1f -> %10.1f us  %+6.1f %%  %s", before, after,
                         100 * (after - before) / before, after > before ? "slower" : "faster");
}

/* NaN: not looked at. */
static cudpo_status put_wrong(buffer *b, double before, double after)
{
    CUDPO_TRY(isnan(before) ? buffer_printf(b, "  wrong: unknown")
                            : buffer_printf(b, "  wrong: %g", before));
    return isnan(after) ? buffer_printf(b, " -> unknown") : buffer_printf(b, " -> %g", after);
}

static cudpo_status compare_row(comparison *c, const json *old, const json *later)
{
    const double before = row_number(old, "wrong"), after = row_number(later, "wrong");
    const bool time = is_other_time(old, later);
    const bool wrong = (before > 0 || after > 0) && before != after;
    const bool cached =
        row_flag(old, "cached") + row_flag(later, "cached") == 1; /* one is, one is not */
    if (!time && !wrong && !cached) return CUDPO_OK;
    c->changed++;
    CUDPO_TRY(put_name(c->out, old));
    if (time) CUDPO_TRY(put_time(c->out, old, later));
    if (wrong) CUDPO_TRY(put_wrong(c->out, before, after));
    if (cached)
        CUDPO_TRY(buffer_printf(c->out, "  operands were %s the cache and are %s it",
                                row_flag(old, "cached") ? "in" : "outside",
                                row_flag(old, "cached") ? "outside" : "in"));
    return buffer_printf(c->out, "\n");
}

/* Rows of the first that the second has too are compared; those that it lacks are named. */
static cudpo_status compare_rows(comparison *c, int first)
{
    for (const json *row = json_first(c->rows[first]); row != NULL; row = json_next(row)) {
        const json *other = same_row(c->rows[!first], row);
        if (other != NULL) {
            c->common += first == 0;
            if (first == 0) CUDPO_TRY(compare_row(c, row, other));
            continue;
        }
        c->alone[first]++;
        CUDPO_TRY(put_name(c->out, row));
        CUDPO_TRY(buffer_printf(c->out, "  is in %s alone\n", c->path[first]));
    }
    return CUDPO_OK;
}

/* ---- the whole ---- */

static cudpo_status put_value(buffer *b, const json *value)
{
    return json_type(value) == JSON_STRING ? put(b, json_string(value), 0)
                                           : buffer_printf(b, "%g", json_number(value));
}

/* What times depend on beside the program.  A file that lacks it says nothing of it. */
static cudpo_status compare_machines(const comparison *c)
{
    static const char *const facts[][2] = {
        {"device", "devices"}, {"processor", "processors"}, {"threads", "numbers of threads"}};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const json *a = json_get(c->tree[0], facts[i][0]), *b = json_get(c->tree[1], facts[i][0]);
        if (a == NULL || b == NULL || json_type(a) != json_type(b)) continue;
        const bool text = json_type(a) == JSON_STRING;
        if (!text && json_type(a) != JSON_NUMBER) continue;
        if (text ? strcmp(json_string(a), json_string(b)) == 0 : json_number(a) == json_number(b))
            continue;
        CUDPO_TRY(buffer_printf(c->out, "the %s are different: ", facts[i][1]));
        CUDPO_TRY(put_value(c->out, a));
        CUDPO_TRY(buffer_printf(c->out, ", "));
        CUDPO_TRY(put_value(c->out, b));
        CUDPO_TRY(buffer_printf(c->out, "\n"));
    }
    return CUDPO_OK;
}

static cudpo_status compare(comparison *c)
{
    CUDPO_TRY(compare_machines(c));
    for (int first = 0; first < 2; first++)
        CUDPO_TRY(compare_rows(c, first));
    if (c->common == 0)
        return cudpo_fail(CUDPO_EDATA, c->path[1],
                          "has no row in common with %s: ops, models, shapes or types are others",
                          c->path[0]);
    return buffer_printf(c->out,
                         "%lld of %lld rows changed; %lld are in the first file alone, %lld in "
                         "the second\n",
                         (long long)c->changed, (long long)c->common, (long long)c->alone[0],
                         (long long)c->alone[1]);
}

cudpo_status cudpo_bench_compare(char **text, int64_t *changed, const char *before,
                                 const char *after)
{
    buffer b = {0};
    comparison c = {.out = &b};
    CUDPO_REQUIRE(text != NULL && changed != NULL && before != NULL && after != NULL);
    *text = NULL;
    *changed = 0;
    cudpo_status status = load(&c, 0, before);
    if (status == CUDPO_OK) status = load(&c, 1, after);
    if (status == CUDPO_OK) status = compare(&c);
    json_free(c.tree[1]);
    json_free(c.tree[0]);
    if (status != CUDPO_OK) {
        buffer_free(&b);
        return status;
    }
    *text = b.data;
    *changed = c.changed;
    return CUDPO_OK;
}
