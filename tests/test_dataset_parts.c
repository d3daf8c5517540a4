/* test_dataset_parts.c - parts of a data set, put together, are byte for byte what one process makes; damaged ones are refused. */
/* rooms: data base */
#include "test.h"
#include "dataset_rows.h"
#include "data/build.h"
#include "data/dataset.h"
#include "data/part.h"

#include <signal.h>
#include <sys/wait.h>

enum { PARTS = 5 };

static const hash128 key = {12, 34};

static tokenizer *load(void)
{
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, "tests/golden/models/llama"));
    return t;
}

/* ---- parts one after another ---- */

static buffer build_alone(const char *file, const tokenizer *t, const dataset_options *o)
{
    const char *path = scratch_path("alone");
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    CHECK_OK(dataset_build(stream, file, t, o, path, key));
    assert_int_equal(fclose(stream), 0);
    return rows_read(path);
}

/* Returns how many rows the part has. */
static int64_t write_part(part_file *to, const char *file, const tokenizer *t,
                          const dataset_options *o, int32_t part, int32_t parts)
{
    block_reader *r = NULL;
    int64_t rows = 0;
    CHECK_OK(block_reader_open(&r, file, t, o, part, parts));
    for (bool done = false; !done;) {
        const built_row *row = NULL;
        int n = 0;
        CHECK_OK(block_reader_next(r, &row, &n, &done));
        for (int i = 0; i < n; i++)
            CHECK_OK(part_put(to, &row[i]));
        rows += n;
    }
    CHECK_OK(part_finish(to, block_reader_progress(r).rows));
    block_reader_close(r);
    return rows;
}

static void put_together(part_join *j, const char *path, const char *file, const dataset_options *o)
{
    FILE *stream = fopen(path, "wb");
    cache_build b = {0};
    assert_non_null(stream);
    CHECK_OK(cache_build_begin(&b, stream, path, file, o));
    for (;;) {
        built_row row;
        bool done;
        CHECK_OK(part_join_next(j, &row, &done));
        if (done) break;
        CHECK_OK(cache_build_put(&b, &row));
    }
    CHECK_OK(cache_build_finish(&b, key));
    cache_build_abandon(&b);
    assert_int_equal(fclose(stream), 0);
}

/* Returns how many parts have rows. */
static int check_parts(const char *file, const tokenizer *t, const dataset_options *o,
                       int32_t parts, const buffer *want)
{
    part_file part[PARTS] = {0};
    char name[PARTS][700], *path[PARTS];
    part_join *j = NULL;
    int used = 0;
    for (int32_t p = 0; p < parts; p++) {
        snprintf(name[p], sizeof name[p], "%s-%d", scratch_path("part"), (int)p);
        path[p] = name[p];
        CHECK_OK(part_create(&part[p], path[p]));
        used += write_part(&part[p], file, t, o, p, parts) > 0;
    }
    CHECK_OK(part_join_open(&j, path, parts, tokenizer_size(t)));
    put_together(j, scratch_path("together"), file, o);
    part_join_close(j);
    for (int32_t p = 0; p < parts; p++) {
        part_remove(&part[p]);
        assert_false(file_is_regular(path[p]));
    }
    buffer got = rows_read(scratch_path("together"));
    assert_int_equal(got.size, want->size);
    assert_memory_equal(got.data, want->data, got.size);
    buffer_free(&got);
    return used;
}

static void parts_give_the_same_bytes(void **state)
{
    (void)state;
    const struct {
        void (*append)(buffer *, int);
        int rows, used; /* used: of PARTS parts */
        rows_layout layout;
        dataset_options options;
    } cases[] = {
        {rows_pair, 1300, PARTS, BLANKS, {.kind = ROW_PAIR, .max_length = 96}},
        {rows_pair, 1300, PARTS, GZIP, {.kind = ROW_PAIR, .rules = RULES_ORPO}},
        {rows_pair, 2300, PARTS, ARRAY, {.kind = ROW_LABEL, .max_length = 96}}, /* unpaired */
        {rows_label, 600, PARTS, LINES, {.kind = ROW_LABEL, .max_length = 64, .keep_end = 1}},
        {rows_label, 600, PARTS, LINES, {.chosen_only = true}},
        {rows_pair, 3, 1, LINES, {.kind = ROW_PAIR}},
        {rows_pair, 130, 2, LINES, {.kind = ROW_PAIR}},
    };
    tokenizer *t = load();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const dataset_options *o = &cases[i].options;
        char file[640];
        snprintf(file, sizeof file, "%s",
                 rows_write("rows", cases[i].append, cases[i].rows, cases[i].layout));
        buffer want = build_alone(file, t, o);
        int used = 0;
        for (int32_t parts = 1; parts <= PARTS; parts++)
            used = check_parts(file, t, o, parts, &want);
        if (used != cases[i].used) fail_msg("case %zu: %d parts have rows", i, used);
        buffer_free(&want);
    }
    tokenizer_free(t);
}

/* Which row is bad is known by its index, also where reading has gone on behind it. */
static void a_bad_row_has_an_index(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_PAIR};
    const struct {
        const char *text;
        int64_t index;
    } cases[] = {
        {"{\"prompt\":\"a\",\"completion\":\"b\"}\n", 0},
        {"\n{\"chosen\":\"a\",\"rejected\":\"b\"}\n\n{}\n", 1},
        {"[]", 0},
        {"[{\"chosen\":\"a\",\"rejected\":\"b\"}, {\"chosen\":\"a\",\"rejected\":\"b\"}", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        block_reader *r = NULL;
        const built_row *rows;
        int n;
        bool done;
        CHECK_OK(block_reader_open(&r, scratch_text("bad", cases[i].text), t, &o, 0, 2));
        assert_int_equal(block_reader_next(r, &rows, &n, &done), CUDPO_EDATA);
        assert_int_equal(block_reader_progress(r).rows, cases[i].index);
        cudpo_error_clear();
        block_reader_close(r);
    }
    tokenizer_free(t);
}

/* ---- parts that are not what was written ---- */

/* Puts together what there is; the status of the failure, if any. */
static cudpo_status try_to_join(char *const *path, int32_t n, int64_t vocabulary)
{
    part_join *j = NULL;
    built_row row;
    cudpo_status status = part_join_open(&j, path, n, vocabulary);
    for (bool done = false; status == CUDPO_OK && !done;)
        status = part_join_next(j, &row, &done);
    part_join_close(j);
    return status;
}

static void damaged_parts_are_refused(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_LABEL};
    char file[640], name[2][640], *path[] = {name[0], name[1]};
    part_file part[2];
    snprintf(file, sizeof file, "%s", rows_write("rows", rows_pair, 4, LINES));
    for (int p = 0; p < 2; p++) {
        snprintf(name[p], sizeof name[p], "%s", scratch_path(p == 0 ? "part-0" : "part-1"));
        CHECK_OK(part_create(&part[p], path[p]));
        (void)write_part(&part[p], file, t, &o, p, 2);
    }
    CHECK_OK(try_to_join(path, 2, tokenizer_size(t)));
    CHECK_FAILS(try_to_join(path, 2, 5), CUDPO_EWRITE, "an id is outside the vocabulary");
    char *const twice[] = {path[0], path[0]}, *const second[] = {path[1]};
    CHECK_OK(try_to_join(path, 1, tokenizer_size(t))); /* which has all four */
    CHECK_FAILS(try_to_join(second, 1, tokenizer_size(t)), CUDPO_EWRITE, "rows are missing");
    CHECK_FAILS(try_to_join(twice, 2, tokenizer_size(t)), CUDPO_EWRITE, "rows are missing");
    buffer good = rows_read(path[0]);
    for (size_t cut = 0; cut < good.size; cut++) {
        scratch_write("part-0", good.data, cut);
        assert_int_equal(try_to_join(path, 2, tokenizer_size(t)), CUDPO_EWRITE);
        cudpo_error_clear();
    }
    for (size_t at = 0; at < good.size; at++) {
        good.data[at] ^= (char)(1 << at % 8);
        scratch_write("part-0", good.data, good.size);
        assert_int_equal(try_to_join(path, 2, tokenizer_size(t)), CUDPO_EWRITE);
        cudpo_error_clear();
        good.data[at] ^= (char)(1 << at % 8);
    }
    for (int p = 0; p < 2; p++)
        part_remove(&part[p]);
    buffer_free(&good);
    tokenizer_free(t);
}

/* A process that was killed leaves its part, which the next one removes; not that of a process that lives.  This comes before the
 * process has started a thread: see test_dataset.c. */
static void leftovers_are_swept(void **state)
{
    (void)state;
    CHECK_OK(file_make_folder(scratch_path("swept")));
    char path[700];
    int ready[2];
    snprintf(path, sizeof path, "%s/tokens-1.part-2-0", scratch_path("swept"));
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        part_file part;
        alarm(60); /* where the test fails before it ends this process */
        if (part_create(&part, path) != CUDPO_OK || write(ready[1], "", 1) != 1) _exit(1);
        for (;;)
            pause();
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    rows_age(path);
    part_sweep(scratch_path("swept"), NULL);
    assert_true(file_is_regular(path));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    scratch_text("swept/tokens-1.bin", "x");
    scratch_text("swept/other.part-2-0", "x");
    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0); /* now */
    part_sweep(scratch_path("swept"), NULL);
    assert_true(file_is_regular(path)); /* it may be alive where locks are not known of */
    rows_age(path);
    part_sweep(scratch_path("swept"), "part-2");
    assert_true(file_is_regular(path));
    part_sweep(scratch_path("swept"), NULL);
    assert_false(file_is_regular(path));
    assert_int_equal(rows_count(scratch_path("swept"), "tokens-1.bin"), 1);
    assert_int_equal(rows_count(scratch_path("swept"), "other.part-2-0"), 1);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leftovers_are_swept),
        cmocka_unit_test(parts_give_the_same_bytes),
        cmocka_unit_test(a_bad_row_has_an_index),
        cmocka_unit_test(damaged_parts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
