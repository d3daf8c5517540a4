/* split.c - lines of JSONL, and elements of an array by counting brackets outside strings.  Nothing is parsed here:
 * the whole array of a gigabyte never becomes a tree. */
#include "data/split.h"
#include "base/buffer.h"
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum layout { UNKNOWN, LINES, ARRAY, ENDED } layout;

struct row_splitter {
    byte_source *source;
    char *path;
    char *where; /* scratch for "path:line" */
    size_t where_size;
    const char *chunk; /* what was read and not yet used: chunk[at .. n-1] */
    size_t at, n;
    bool source_ended;
    layout layout;
    int64_t line; /* of chunk[at] */
    int64_t rows;
    buffer text;
};

static const char *where_at(row_splitter *s, int64_t line)
{
    snprintf(s->where, s->where_size, "%s:%lld", s->path, (long long)line);
    return s->where;
}

cudpo_status row_splitter_open(row_splitter **out, const char *path)
{
    *out = NULL;
    row_splitter *s = calloc(1, sizeof *s);
    if (s == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "row splitter");
    s->line = 1;
    s->where_size = strlen(path) + 32;
    s->where = malloc(s->where_size);
    s->path = strdup(path);
    cudpo_status status = CUDPO_OK;
    if (s->where == NULL || s->path == NULL) status = cudpo_fail(CUDPO_ENOMEM, path, "path");
    if (status == CUDPO_OK) status = byte_source_open(&s->source, path);
    if (status == CUDPO_OK) {
        *out = s;
        return CUDPO_OK;
    }
    row_splitter_close(s);
    return status;
}

bool row_splitter_array(const row_splitter *s)
{
    return s->layout == ARRAY;
}

double row_splitter_share(const row_splitter *s)
{
    return byte_source_share(s->source);
}

void row_splitter_close(row_splitter *s)
{
    if (s == NULL) return;
    byte_source_close(s->source);
    buffer_free(&s->text);
    free(s->path);
    free(s->where);
    free(s);
}

/* Make sure that chunk[at] exists; source_ended where the file has no more. */
static cudpo_status fill(row_splitter *s)
{
    if (s->at < s->n || s->source_ended) return CUDPO_OK;
    s->at = 0;
    CUDPO_TRY(byte_source_next(s->source, &s->chunk, &s->n, where_at(s, s->line)));
    s->source_ended = s->n == 0;
    return CUDPO_OK;
}

/* *c = the next byte, not taken; -1 at the end. */
static cudpo_status peek(row_splitter *s, int *c)
{
    CUDPO_TRY(fill(s));
    *c = s->source_ended ? -1 : (unsigned char)s->chunk[s->at];
    return CUDPO_OK;
}

/* Pass JSON's white space, counting lines; *c = the byte behind it, not taken, or -1. */
static cudpo_status pass_space(row_splitter *s, int *c)
{
    for (;;) {
        CUDPO_TRY(peek(s, c));
        if (*c != ' ' && *c != '\t' && *c != '\r' && *c != '\n') return CUDPO_OK;
        if (*c == '\n') s->line++;
        s->at++;
    }
}

/* Append chunk[at .. at+k-1] to the row that began at `line`, and take it. */
static cudpo_status take(row_splitter *s, size_t k, int64_t line)
{
    if (k > ROW_MAX_BYTES - s->text.size)
        return cudpo_fail(CUDPO_EDATA, where_at(s, line),
                          "this row is longer than %d MiB, the most that is read as one: is it a "
                          "whole file on one line?",
                          ROW_MAX_BYTES >> 20);
    CUDPO_TRY(buffer_append(&s->text, s->chunk + s->at, k));
    s->at += k;
    return CUDPO_OK;
}

/* A byte order mark is passed; then '[' begins an array, anything else lines. */
static cudpo_status find_layout(row_splitter *s)
{
    static const unsigned char mark[3] = {0xef, 0xbb, 0xbf};
    int c = 0;
    for (int i = 0; i < 3; i++) {
        CUDPO_TRY(peek(s, &c));
        if (c == mark[i]) {
            s->at++;
        } else if (i > 0) {
            return cudpo_fail(CUDPO_EDATA, where_at(s, 1), "not UTF-8 text");
        } else {
            break;
        }
    }
    CUDPO_TRY(pass_space(s, &c));
    s->layout = c == '[' ? ARRAY : LINES;
    if (c == '[') s->at++;
    return CUDPO_OK;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memchr(" \t\r", text[i], 3) == NULL) return false;
    }
    return true;
}

/* The next line that is not blank; its end stays out of the text, be it LF or CR LF. */
static cudpo_status next_line(row_splitter *s)
{
    do {
        buffer_clear(&s->text);
        for (bool ended = false; !ended;) {
            CUDPO_TRY(fill(s));
            if (s->source_ended) break;
            const char *from = s->chunk + s->at;
            const char *end = memchr(from, '\n', s->n - s->at);
            ended = end != NULL;
            CUDPO_TRY(take(s, ended ? (size_t)(end - from) : s->n - s->at, s->line));
            if (ended) s->at++; /* the LF, which is counted when the row is handed out */
        }
        s->line++;
    } while (!s->source_ended && is_blank(s->text.data, s->text.size));
    if (is_blank(s->text.data, s->text.size)) s->layout = ENDED;
    return CUDPO_OK;
}

/* Take the element that begins at chunk[at]: an object or list up to its closing bracket, another value up to
 * the comma or bracket behind it. */
static cudpo_status take_element(row_splitter *s)
{
    const int64_t line = s->line;
    int depth = 0; /* saturates far above the parser's limit */
    bool in_string = false, escaped = false;
    buffer_clear(&s->text);
    for (;;) {
        CUDPO_TRY(fill(s));
        if (s->source_ended)
            return cudpo_fail(CUDPO_EDATA, where_at(s, line),
                              "the file ends inside this row: it is cut off, copy it again");
        size_t i = s->at;
        bool ended = false;
        for (; i < s->n && !ended; i++) {
            const char c = s->chunk[i];
            if (c == '\n') s->line++;
            if (in_string) {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
            } else if (c == '"') {
                in_string = true;
            } else if (c == '{' || c == '[') {
                depth += depth < 1000000;
            } else if (depth > 0 && (c == '}' || c == ']')) {
                depth--;
                ended = depth == 0;
            } else if (depth == 0 && (c == ',' || c == ']')) {
                break;
            }
        }
        const bool stopped = ended || i < s->n;
        CUDPO_TRY(take(s, i - s->at, line));
        if (stopped) return CUDPO_OK;
    }
}

/* The next element of the array, or its end and then nothing but space. */
static cudpo_status next_element(row_splitter *s, int64_t *line)
{
    int c = 0;
    CUDPO_TRY(pass_space(s, &c));
    bool comma = false;
    if (s->rows > 0 && c == ',') {
        comma = true;
        s->at++;
        CUDPO_TRY(pass_space(s, &c));
    }
    const char *where = where_at(s, s->line);
    if (c == -1)
        return cudpo_fail(CUDPO_EDATA, where,
                          "the file ends without the array's ']': it is cut "
                          "off, copy it again");
    if (c == ',') return cudpo_fail(CUDPO_EDATA, where, "a comma without a row before it");
    if (c == ']' && comma) return cudpo_fail(CUDPO_EDATA, where, "a comma before the array's ']'");
    if (c == ']') {
        s->at++;
        CUDPO_TRY(pass_space(s, &c));
        if (c != -1)
            return cudpo_fail(CUDPO_EDATA, where_at(s, s->line),
                              "text behind the array's ']': a file is one array, or one object a "
                              "line");
        s->layout = ENDED;
        return CUDPO_OK;
    }
    if (s->rows > 0 && !comma)
        return cudpo_fail(CUDPO_EDATA, where, "expected ',' between two rows, or the array's ']'");
    *line = s->line;
    return take_element(s);
}

cudpo_status row_splitter_next(row_splitter *s, const char **text, size_t *n, int64_t *line,
                               bool *done)
{
    *text = NULL;
    *n = 0;
    *done = false;
    if (s->layout == UNKNOWN) CUDPO_TRY(find_layout(s));
    if (s->layout == ARRAY) {
        CUDPO_TRY(next_element(s, line));
    } else if (s->layout == LINES) {
        CUDPO_TRY(next_line(s));
        *line = s->line - 1;
    }
    if (s->layout == ENDED) {
        *done = true;
        return CUDPO_OK;
    }
    s->rows++;
    *text = s->text.data;
    *n = s->text.size;
    return CUDPO_OK;
}
