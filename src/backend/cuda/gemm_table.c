/* gemm_table.c - algorithms by shape.  The file is text, a line each: the device where the file is of several, the shape in
 * words, then the 64 bytes of cublasLtMatmulAlgo_t in hex, which NVIDIA promises to be valid for the same version of the
 * library. */
#include "backend/cuda/gemm.h"
#include "base/file.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY = GEMM_DEVICE + 192, HEX = 2 * sizeof(cublasLtMatmulAlgo_t), MAX_FILE = 16 << 20 };

typedef struct entry {
    char key[KEY];
    cublasLtMatmulAlgo_t algorithm;
} entry;

struct gemm_table {
    char device[GEMM_DEVICE];
    char *path; /* NULL: kept nowhere */
    entry *entries;
    size_t count, room;
    bool warned;
};

/* n rounded up to one of eight sizes between powers of two. */
static int64_t bucket(int64_t n)
{
    int64_t step = 1;
    while (n > 16 * step)
        step *= 2;
    return (n + step - 1) / step * step;
}

static void key_of(char out[KEY], const gemm_table *t, const gemm_shape *s)
{
    snprintf(out, KEY,
             "%s%s%s>%s%s%s%s_%" PRId64 "x%" PRId64 "x%" PRId64 "_%" PRId64 ",%" PRId64 ",%" PRId64
             "_%u,%u,%u",
             t->device, t->device[0] != '\0' ? "/" : "", dtype_name(s->type), dtype_name(s->c_type),
             s->transpose_a ? "_ta" : "", s->transpose_b ? "_tb" : "", s->accumulate ? "_add" : "",
             bucket(s->M), bucket(s->N), bucket(s->K), s->a_stride, s->b_stride, s->c_stride,
             s->a_alignment, s->b_alignment, s->c_alignment);
}

static const entry *find(const gemm_table *t, const char *key)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->entries[i].key, key) == 0) return &t->entries[i];
    }
    return NULL;
}

static cudpo_status append(gemm_table *t, const char *key, const cublasLtMatmulAlgo_t *algorithm)
{
    if (t->count == t->room) {
        const size_t room = t->room == 0 ? 64 : 2 * t->room;
        entry *more = realloc(t->entries, room * sizeof *more);
        if (more == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "algorithms");
        t->entries = more;
        t->room = room;
    }
    snprintf(t->entries[t->count].key, KEY, "%s", key);
    t->entries[t->count++].algorithm = *algorithm;
    return CUDPO_OK;
}

static bool parse_hex(cublasLtMatmulAlgo_t *out, const char *hex)
{
    unsigned char *byte = (unsigned char *)out;
    for (size_t i = 0; i < sizeof *out; i++) {
        unsigned value;
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        char end;
        if (strspn(two, "0123456789abcdef") != 2 || sscanf(two, "%x%c", &value, &end) != 1)
            return false;
        byte[i] = (unsigned char)value;
    }
    return true;
}

static void warn(gemm_table *t, const char *what)
{
    if (!t->warned) log_warn("algorithms of products are not %s: %s", what, cudpo_error_message());
    t->warned = true;
    cudpo_error_clear();
}

/* A line of another form is passed over. */
cudpo_status gemm_table_read(gemm_table *t, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    cudpo_status status = file_read(&text, &n, path, MAX_FILE);
    if (status == CUDPO_ENOINPUT) { /* nothing was kept yet */
        cudpo_error_clear();
        return CUDPO_OK;
    }
    if (status != CUDPO_OK) {
        warn(t, "read");
        return CUDPO_OK;
    }
    char *rest = text;
    for (char *line; status == CUDPO_OK && (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        cublasLtMatmulAlgo_t algorithm;
        char *hex = strchr(line, ' ');
        if (hex == NULL || hex - line >= KEY || strlen(hex + 1) != HEX) continue;
        *hex++ = '\0';
        if (parse_hex(&algorithm, hex) && find(t, line) == NULL)
            status = append(t, line, &algorithm);
    }
    free(text);
    return status;
}

static cudpo_status write_all(const gemm_table *t)
{
    file_writer w = {0};
    CUDPO_TRY(file_writer_open(&w, t->path));
    for (size_t i = 0; i < t->count; i++) {
        const unsigned char *byte = (const unsigned char *)&t->entries[i].algorithm;
        fprintf(w.stream, "%s ", t->entries[i].key);
        for (size_t j = 0; j < sizeof(cublasLtMatmulAlgo_t); j++) {
            fprintf(w.stream, "%02x", byte[j]);
        }
        fputc('\n', w.stream);
    }
    const cudpo_status status = file_writer_commit(&w);
    file_writer_abandon(&w);
    return status;
}

static void save(gemm_table *t)
{
    if (t->path != NULL && write_all(t) != CUDPO_OK) warn(t, "kept");
}

cudpo_status gemm_table_open(gemm_table **out, const char *device)
{
    gemm_table *t = calloc(1, sizeof *t);
    *out = t;
    if (t == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "table of algorithms");
    snprintf(t->device, sizeof t->device, "%s", device);
    return CUDPO_OK;
}

cudpo_status gemm_table_keep(gemm_table *t, const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    free(t->path);
    t->path = copy;
    const bool some = t->count > 0;
    CUDPO_TRY(gemm_table_read(t, path));
    if (some) save(t);
    return CUDPO_OK;
}

void gemm_table_close(gemm_table *t)
{
    if (t == NULL) return;
    free(t->entries);
    free(t->path);
    free(t);
}

bool gemm_table_find(const gemm_table *t, const gemm_shape *shape, cublasLtMatmulAlgo_t *algorithm)
{
    char key[KEY];
    key_of(key, t, shape);
    const entry *e = find(t, key);
    if (e != NULL) *algorithm = e->algorithm;
    return e != NULL;
}

cudpo_status gemm_table_add(gemm_table *t, const gemm_shape *shape,
                            const cublasLtMatmulAlgo_t *algorithm)
{
    char key[KEY];
    key_of(key, t, shape);
    if (t->path != NULL) CUDPO_TRY(gemm_table_read(t, t->path));
    if (find(t, key) == NULL) CUDPO_TRY(append(t, key, algorithm));
    save(t);
    return CUDPO_OK;
}
