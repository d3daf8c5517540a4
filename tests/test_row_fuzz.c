/* test_row_fuzz.c - every truncation and every one-byte change of small valid files: an answer or a message, never a
 * crash (run it under the sanitizers), and what can be told to be cut off is told. */
/* rooms: data base */
#include "test.h"
#include "scratch.h"
#include "base/buffer.h"
#include "data/row.h"

#include <zlib.h>

static const char jsonl[] =
    "{\"prompt\":\"a \\u00e9\",\"chosen\":\"\\ud83d\\ude00b\",\"rejected\":\"\xc3\xa9\\\\\"}\r\n"
    "\n{\"x\":[1,{\"y\":-2.5e3}],\"rejected\":\"d\",\"chosen\":\"e\",\"prompt\":\"\"}";
static const char array[] = "\xef\xbb\xbf[ {\"chosen\":\"ab c\",\"rejected\":\"ab d\"},\n"
                            "{\"chosen\":\"\\\"]\",\"rejected\":\"}\",\"z\":null}\n ]\n";
static const char labelled[] = "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":true}\n"
                               "{\"prompt\":\"c\",\"completion\":\"d\",\"label\":false}\n";

/* Rows read before the end (*ok) or before the first failure.  A message names the file. */
static int read_rows(bool *ok, const void *data, size_t n)
{
    const char *path = scratch_write("fuzz", data, n);
    row_reader *r = NULL;
    int rows = 0;
    cudpo_error_clear();
    cudpo_status status = row_reader_open(&r, path);
    for (bool done = false; status == CUDPO_OK && !done;) {
        preference_row row;
        status = row_reader_next(r, &row, &done);
        if (status != CUDPO_OK || done) break;
        rows++;
        /* Every text is read to its NUL, so that a sanitizer sees where it lies. */
        assert_true(strlen(row.prompt) + strlen(row.chosen) <= 4 * n);
        if (row.rejected != NULL) assert_true(strlen(row.rejected) <= 4 * n);
    }
    row_reader_close(r);
    *ok = status == CUDPO_OK;
    if (!*ok) {
        assert_int_equal(status, CUDPO_EDATA);
        assert_int_equal(strncmp(cudpo_error_message(), path, strlen(path)), 0);
    }
    cudpo_error_clear();
    return rows;
}

static void truncate_everywhere(const void *data, size_t n, int whole_rows, bool must_fail)
{
    bool ok = false;
    assert_int_equal(read_rows(&ok, data, n), whole_rows);
    assert_true(ok);
    for (size_t k = 0; k < n; k++) {
        const int rows = read_rows(&ok, data, k);
        assert_true(rows <= whole_rows);
        if (must_fail && ok) fail_msg("cut to %zu of %zu bytes, and nobody noticed", k, n);
    }
}

static void change_every_byte(const void *data, size_t n)
{
    static const char telling[] = "{}[],:\"\\\n\r 0\x01\x7f\x80\xc3\xff";
    unsigned char *copy = malloc(n);
    assert_non_null(copy);
    bool ok = false;
    for (size_t k = 0; k < n; k++) {
        memcpy(copy, data, n);
        for (size_t i = 0; i < sizeof telling; i++) { /* with the NUL */
            copy[k] = (unsigned char)telling[i];
            (void)read_rows(&ok, copy, n);
        }
        for (int bit = 0; bit < 8; bit++) {
            copy[k] = (unsigned char)(((const unsigned char *)data)[k] ^ (1U << bit));
            (void)read_rows(&ok, copy, n);
        }
    }
    free(copy);
}

static void lines(void **state)
{
    (void)state;
    truncate_everywhere(jsonl, sizeof jsonl - 1, 2, false);
    truncate_everywhere(labelled, sizeof labelled - 1, 2, false);
    change_every_byte(jsonl, sizeof jsonl - 1);
    change_every_byte(labelled, sizeof labelled - 1);
}

static void arrays(void **state)
{
    (void)state;
    truncate_everywhere(array, sizeof array - 2, 2,
                        true); /* without the space behind the bracket */
    change_every_byte(array, sizeof array - 1);
}

static void archives(void **state)
{
    (void)state;
    unsigned char packed[512];
    z_stream z = {.next_in = (Bytef *)(uintptr_t)jsonl, .avail_in = sizeof jsonl - 1};
    z.next_out = packed;
    z.avail_out = sizeof packed;
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    const size_t n = z.total_out;
    deflateEnd(&z);
    truncate_everywhere(packed, n, 2, true);
    change_every_byte(packed, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(arrays),
        cmocka_unit_test(archives),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
