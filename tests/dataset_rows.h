/* dataset_rows.h - files of rows whose data sets are made in parts, and what is left of that. */
#ifndef CUDPO_TESTS_DATASET_ROWS_H
#define CUDPO_TESTS_DATASET_ROWS_H

#include "scratch.h"
#include "base/buffer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <zlib.h>

static inline buffer rows_read(const char *path)
{
    buffer b = {0};
    CHECK_OK(file_read(&b.data, &b.size, path, (size_t)1 << 26));
    b.capacity = b.size + 1;
    return b;
}

/* How many files of the folder have `part` in their names. */
static inline int rows_count(const char *folder, const char *part)
{
    int found = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        found += strstr(e->d_name, part) != NULL;
    closedir(d);
    return found;
}

/* Two hours older than it is. */
static inline void rows_age(const char *path)
{
    const time_t then = time(NULL) - 7200;
    const struct timespec times[2] = {{.tv_sec = then}, {.tv_sec = then}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* Pairs of very different lengths, some of equal texts, some that merge at the prompt's end, and some too long for max_length. */
static inline void rows_pair(buffer *b, int i)
{
    CHECK_OK(buffer_printf(b, "{\"prompt\":\"Question %d", i));
    for (int k = 0; k < i * 7 % 40 * (i % 97 == 0 ? 20 : 1); k++)
        CHECK_OK(buffer_printf(b, " and %d", k));
    CHECK_OK(buffer_printf(b, "%s\",\"chosen\":\"yes %d\",\"rejected\":\"%s %d\"}",
                           i % 3 == 0 ? "\\n" : " ", i, i % 11 == 0 ? "yes" : "no", i));
}

static inline void rows_label(buffer *b, int i)
{
    CHECK_OK(buffer_printf(b, "{\"prompt\":\"Question %d\\n\",\"completion\":\"", i));
    for (int k = 0; k < i * 5 % 60; k++)
        CHECK_OK(buffer_printf(b, "word %d ", k));
    CHECK_OK(buffer_printf(b, "\",\"label\":%s}", i % 2 == 0 ? "true" : "false"));
}

typedef enum rows_layout { LINES, BLANKS, ARRAY, GZIP } rows_layout;

static inline const char *rows_write(const char *name, void (*append)(buffer *, int), int rows,
                                     rows_layout l)
{
    buffer b = {0};
    if (l == ARRAY) CHECK_OK(buffer_append(&b, "[", 1));
    for (int i = 0; i < rows; i++) {
        if (l == ARRAY && i > 0) CHECK_OK(buffer_append(&b, ",\n", 2));
        append(&b, i);
        if (l == BLANKS) CHECK_OK(buffer_printf(&b, "%s", i % 5 == 0 ? "\r\n\n  \r\n" : "\r\n"));
        if (l == LINES || l == GZIP) CHECK_OK(buffer_append(&b, "\n", 1));
    }
    if (l == ARRAY) CHECK_OK(buffer_append(&b, "]", 1));
    const char *path = scratch_write(name, b.data, b.size);
    if (l == GZIP) {
        gzFile gz = gzopen(path, "wb");
        assert_int_equal(gzwrite(gz, b.data, (unsigned)b.size), (int)b.size);
        assert_int_equal(gzclose(gz), Z_OK);
    }
    buffer_free(&b);
    return path;
}

#endif /* CUDPO_TESTS_DATASET_ROWS_H */
