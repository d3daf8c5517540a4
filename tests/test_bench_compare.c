/* test_bench_compare.c - two files of `cudpo bench`: what is said to have changed, and what is not. */
/* rooms: bench */
#include "test.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "cudpo/bench.h"
#include "scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RECORDED "tests/golden/bench/ops.json"

/* ---- noise, as it was recorded ---- */

static double number(const json *row, const char *key)
{
    return json_number(json_get(row, key));
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of as many calls as were timed, whose times are normal: four of five are within the recorded spread. */
static double median_of_calls(const json *row, uint64_t run, uint64_t n)
{
    enum { MOST = 8192 };
    static double time[MOST];
    const int64_t calls = (int64_t)number(row, "calls");
    assert_true(calls >= 1 && calls <= MOST);
    for (int64_t i = 0; i < calls; i++)
        time[i] = number(row, "median_us") +
                  number(row, "spread_us") / 1.2816 * rng_normal(run, n, (uint64_t)i);
    qsort(time, (size_t)calls, sizeof *time, by_value);
    return time[calls / 2];
}

typedef struct made_run {
    double factor; /* of all medians */
    uint64_t run;  /* which one: 0 is what was recorded */
    bool uncached; /* rows whose operands leave the cache alone */
} made_run;

/* A run of the recorded rows.  Returns how many there are. */
static int64_t write_run(const char *path, const made_run *made)
{
    static const char *const texts[] = {"op", "pass", "model", "shape", "dtype"};
    json *tree;
    buffer b = {0};
    int64_t rows = 0;
    CHECK_OK(json_load(&tree, RECORDED, 1 << 20));
    CHECK_OK(buffer_printf(&b, "{\"rows\": ["));
    for (const json *row = json_first(json_get(tree, "rows")); row != NULL; row = json_next(row)) {
        if (made->uncached && json_bool(json_get(row, "cached"))) continue;
        double median = number(row, "median_us");
        /* Pages and clock of a process are good for 2 % in either direction, and a quarter of what calls vary by. */
        if (made->run > 0) {
            const double most = 0.02 + 0.25 * number(row, "spread_us") / median;
            median = median_of_calls(row, made->run, (uint64_t)rows) *
                     (1 + most * (2 * rng_uniform(made->run, 1000, (uint64_t)rows) - 1));
        }
        CHECK_OK(buffer_printf(&b, "%s{", rows++ > 0 ? ",\n" : ""));
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            CHECK_OK(buffer_printf(&b, "\"%s\": \"%s\", ", texts[i],
                                   json_string(json_get(row, texts[i]))));
        CHECK_OK(buffer_printf(&b, "\"median_us\": %.9g, \"spread_us\": %.9g, \"calls\": %.0f}",
                               median * made->factor, number(row, "spread_us"),
                               number(row, "calls")));
    }
    CHECK_OK(buffer_printf(&b, "]}\n"));
    CHECK_OK(file_write(path, b.data, b.size));
    buffer_free(&b);
    json_free(tree);
    return rows;
}

/* A fifth more in every row, and a fifth less, of what was recorded and of runs that vary as it did. */
static void a_fifth_is_found_in_every_row(void **state)
{
    (void)state;
    char before[640], after[640], *text;
    int64_t changed;
    snprintf(before, sizeof before, "%s", scratch_path("before.json"));
    snprintf(after, sizeof after, "%s", scratch_path("after.json"));
    const int64_t rows = write_run(before, &(made_run){1, 0, true});
    assert_true(rows > 30);
    for (int back = 0; back < 2; back++) {
        write_run(after, &(made_run){back ? 1 / 1.2 : 1.2, 0, true});
        CHECK_OK(cudpo_bench_compare(&text, &changed, before, after));
        if (changed != rows) fail_msg("%lld of %lld found", (long long)changed, (long long)rows);
        assert_non_null(strstr(text, back ? "faster" : "slower"));
        assert_null(strstr(text, back ? "slower" : "faster"));
        free(text);
    }
}

static void two_runs_of_one_program_are_the_same(void **state)
{
    (void)state;
    enum { RUNS = 20 };
    char before[640], after[640], *text;
    int64_t changed;
    snprintf(before, sizeof before, "%s", scratch_path("before.json"));
    snprintf(after, sizeof after, "%s", scratch_path("after.json"));
    for (int run = 1; run <= RUNS; run++) {
        write_run(before, &(made_run){1, (uint64_t)(2 * run), false});
        write_run(after, &(made_run){1, (uint64_t)(2 * run + 1), false});
        CHECK_OK(cudpo_bench_compare(&text, &changed, before, after));
        if (changed != 0) fail_msg("run %d: %s", run, text);
        free(text);
    }
}

/* ---- two files ---- */

#define NAMES(op) \
    "\"op\": \"" op "\", \"pass\": \"\", \"model\": \"m\", \"shape\": \"s\", \"dtype\": \"f\", "
#define ROW(op, rest) "{" NAMES(op) "\"median_us\": 100, \"spread_us\": 1, \"calls\": 50" rest "}"
#define FILE_OF(head, rows) "{" head "\"rows\": [" rows "]}"

static char *compared(int64_t *changed, const char *before, const char *after)
{
    char *text = NULL;
    const char *a = scratch_text("before.json", before), *b = scratch_text("after.json", after);
    CHECK_OK(cudpo_bench_compare(&text, changed, a, b));
    return text;
}

static void refused(const char *before, const char *after, const char *what)
{
    char *text = NULL;
    int64_t changed;
    const char *a = scratch_text("before.json", before), *b = scratch_text("after.json", after);
    CHECK_FAILS(cudpo_bench_compare(&text, &changed, a, b), CUDPO_EDATA, what);
    assert_null(text);
}

/* The more calls, the better a median is known: of five calls that vary by a seventh a fifth is nothing, of five hundred it is. */
static void calls_count(void **state)
{
    (void)state;
    char before[400], after[400];
    for (int many = 0; many < 2; many++) {
        static const char row[] =
            FILE_OF("", "{" NAMES("add") "\"median_us\": %d, \"spread_us\": 15, \"calls\": %d}");
        int64_t changed;
        snprintf(before, sizeof before, row, 100, many ? 500 : 5);
        snprintf(after, sizeof after, row, 120, many ? 500 : 5);
        free(compared(&changed, before, after));
        assert_int_equal(changed, many);
    }
}

/* What is in the cache or not differs more from process to process. */
static void the_cache_counts(void **state)
{
    (void)state;
    static const char before[] = FILE_OF("", ROW("add", ", \"cached\": true"));
    char after[400];
    for (int time = 125; time <= 145; time += 20) {
        int64_t changed;
        snprintf(after, sizeof after,
                 FILE_OF("", "{" NAMES("add") "\"median_us\": %d, \"spread_us\": 1, \"calls\": 50, "
                                              "\"cached\": true}"),
                 time);
        free(compared(&changed, before, after));
        assert_int_equal(changed, time == 145);
    }
}

static void files_that_can_not_be_compared(void **state)
{
    (void)state;
    refused(FILE_OF("", ROW("add", "")), FILE_OF("", ROW("copy", "")), "no row in common");
    refused(FILE_OF("", ROW("add", "")), FILE_OF("", ""), "no row in common");
    refused(FILE_OF("", ROW("add", "") "," ROW("add", "")), FILE_OF("", ROW("add", "")),
            "before.json: row 1 (add, s) is there twice");
    refused(FILE_OF("", ROW("add", "")), FILE_OF("", ROW("add", "") "," ROW("add", "")),
            "after.json: row 1 (add, s) is there twice");
}

static void says(const char *before, const char *after, int64_t changed, const char *what)
{
    int64_t n;
    char *text = compared(&n, before, after);
    if (n != changed || strstr(text, what) == NULL)
        fail_msg("%lld changed, not %s: %s", (long long)n, what, text);
    free(text);
}

/* What is known of one file alone is no difference: older files lack it. */
static void what_is_no_time(void **state)
{
    (void)state;
    static const char right[] = FILE_OF("", ROW("add", ", \"wrong\": 0, \"cached\": false"));
    static const char wrong[] = FILE_OF("", ROW("add", ", \"wrong\": 5, \"cached\": false"));
    static const char cached[] = FILE_OF("", ROW("add", ", \"wrong\": 0, \"cached\": true"));
    static const char bare[] = FILE_OF("", ROW("add", ""));
    says(right, right, 0, "0 of 1 rows changed");
    says(right, wrong, 1, "wrong: 0 -> 5");
    says(wrong, right, 1, "wrong: 5 -> 0");
    says(bare, wrong, 1, "wrong: unknown -> 5");
    says(right, cached, 1, "operands were outside the cache and are in it");
    says(cached, right, 1, "operands were in the cache and are outside it");
    says(bare, cached, 0, "0 of 1 rows changed");
}

static void rows_of_one_file_are_named(void **state)
{
    (void)state;
    static const char both[] = FILE_OF("", ROW("add", "") "," ROW("copy", ""));
    static const char one[] = FILE_OF("", ROW("add", ""));
    int64_t changed;
    char *text = compared(&changed, both, one);
    assert_true(changed == 0 && strstr(text, "copy") != NULL);
    assert_true(strstr(text, "before.json alone") != NULL);
    assert_non_null(strstr(text, "0 of 1 rows changed; 1 are in the first file alone, 0 in"));
    free(text);
    text = compared(&changed, one, both);
    assert_true(strstr(text, "copy") != NULL && strstr(text, "after.json alone") != NULL);
    assert_non_null(strstr(text, "0 are in the first file alone, 1 in"));
    free(text);
}

static void other_machines_are_named(void **state)
{
    (void)state;
    static const char one[] =
        FILE_OF("\"device\": \"cpu\", \"processor\": \"A\", \"threads\": 2, ", ROW("add", ""));
    static const char other[] =
        FILE_OF("\"device\": \"cpu\", \"processor\": \"B\", \"threads\": 4, ", ROW("add", ""));
    static const char older[] = FILE_OF("\"device\": \"cpu\", ", ROW("add", ""));
    says(one, other, 0, "the processors are different: A, B\n");
    says(one, other, 0, "the numbers of threads are different: 2, 4\n");
    int64_t changed;
    char *text = compared(&changed, older, other);
    assert_null(strstr(text, "different"));
    free(text);
}

static void a_terminal_is_told_nothing(void **state)
{
    (void)state;
    static const char before[] =
        FILE_OF("\"device\": \"a\\u001b[2J\", ", ROW("add\\u001b[31m", ", \"wrong\": 0"));
    static const char after[] =
        FILE_OF("\"device\": \"b\\u0007\\u009b\", ",
                ROW("add\\u001b[31m", ", \"wrong\": 1") "," ROW("\\u007f", ""));
    int64_t changed;
    char *text = compared(&changed, before, after);
    assert_int_equal(changed, 1);
    assert_non_null(strstr(text, "add?[31m"));
    assert_non_null(strstr(text, "a?[2J, b??"));
    for (const char *c = text; *c != '\0'; c++)
        assert_true(((unsigned char)*c >= 0x20 && *c != 0x7f && (unsigned char)*c != 0x9b) ||
                    *c == '\n');
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fifth_is_found_in_every_row),
        cmocka_unit_test(two_runs_of_one_program_are_the_same),
        cmocka_unit_test(calls_count),
        cmocka_unit_test(the_cache_counts),
        cmocka_unit_test(files_that_can_not_be_compared),
        cmocka_unit_test(what_is_no_time),
        cmocka_unit_test(rows_of_one_file_are_named),
        cmocka_unit_test(other_machines_are_named),
        cmocka_unit_test(a_terminal_is_told_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
