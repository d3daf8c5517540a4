/* safetensors_write.c - a file in the layout that huggingface/safetensors writes: tensors by falling alignment and
 * then by name, the header padded with spaces to a multiple of 8. */
#include "model/safetensors.h"
#include "base/buffer.h"
#include "base/file.h"
#include "model/half.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, CHUNK = 1 << 14 };

/* One tensor in the order of the file. */
typedef struct part {
    const safetensors_plan *plan;
    int64_t index;    /* of the caller's list */
    int64_t elements; /* in all */
} part;

struct safetensors_writer {
    file_writer file;
    char *path;
    part *parts;
    int64_t count;
    int64_t at;   /* the part being written */
    int64_t done; /* its elements written so far */
};

static const char *type_name(dtype type)
{
    assert(type != DTYPE_I32);
    return type == DTYPE_F32 ? "F32" : type == DTYPE_BF16 ? "BF16" : "F16";
}

static int by_alignment_and_name(const void *pa, const void *pb)
{
    const part *a = pa, *b = pb;
    const size_t size_a = dtype_size(a->plan->type), size_b = dtype_size(b->plan->type);
    if (size_a != size_b) return size_a > size_b ? -1 : 1;
    if (a->plan->type != b->plan->type) return a->plan->type < b->plan->type ? -1 : 1;
    return strcmp(a->plan->name, b->plan->name);
}

static cudpo_status header_metadata(buffer *b, const char *const *metadata)
{
    CUDPO_TRY(buffer_printf(b, "\"__metadata__\":{"));
    for (const char *const *pair = metadata; pair[0] != NULL; pair += 2) {
        if (pair != metadata) CUDPO_TRY(buffer_append(b, ",", 1));
        CUDPO_TRY(buffer_json_string(b, pair[0], strlen(pair[0])));
        CUDPO_TRY(buffer_append(b, ":", 1));
        CUDPO_TRY(buffer_json_string(b, pair[1], strlen(pair[1])));
    }
    return buffer_append(b, "}", 1);
}

static cudpo_status header_text(buffer *b, const safetensors_writer *w, const char *const *metadata)
{
    CUDPO_TRY(buffer_append(b, "{", 1));
    const bool described = metadata != NULL && metadata[0] != NULL;
    if (described) CUDPO_TRY(header_metadata(b, metadata));
    uint64_t offset = 0;
    for (int64_t i = 0; i < w->count; i++) {
        const safetensors_plan *plan = w->parts[i].plan;
        if (i > 0 || described) CUDPO_TRY(buffer_append(b, ",", 1));
        CUDPO_TRY(buffer_json_string(b, plan->name, strlen(plan->name)));
        CUDPO_TRY(buffer_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", type_name(plan->type)));
        for (int d = 0; d < plan->rank; d++)
            CUDPO_TRY(buffer_printf(b, d == 0 ? "%lld" : ",%lld", (long long)plan->shape[d]));
        const uint64_t end = offset + (uint64_t)w->parts[i].elements * dtype_size(plan->type);
        CUDPO_TRY(buffer_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                                (unsigned long long)end));
        offset = end;
    }
    CUDPO_TRY(buffer_append(b, "}", 1));
    while (b->size % 8 != 0)
        CUDPO_TRY(buffer_append(b, " ", 1));
    return CUDPO_OK;
}

static cudpo_status check_plan(const safetensors_plan *tensors, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        CUDPO_REQUIRE(tensors[i].name != NULL && tensors[i].type != DTYPE_I32);
        CUDPO_REQUIRE(tensors[i].rank >= 0 && tensors[i].rank <= SAFETENSORS_MAX_RANK);
        for (int d = 0; d < tensors[i].rank; d++)
            CUDPO_REQUIRE(tensors[i].shape[d] >= 0);
    }
    return CUDPO_OK;
}

/* Step over parts that are complete, those without elements too. */
static void settle(safetensors_writer *w)
{
    while (w->at < w->count && w->done == w->parts[w->at].elements) {
        w->at++;
        w->done = 0;
    }
}

static cudpo_status begin(safetensors_writer *w, const safetensors_plan *tensors,
                          const char *const *metadata)
{
    for (int64_t i = 0; i < w->count; i++) {
        w->parts[i] = (part){&tensors[i], i, 1};
        for (int d = 0; d < tensors[i].rank; d++)
            w->parts[i].elements *= tensors[i].shape[d];
    }
    qsort(w->parts, (size_t)w->count, sizeof *w->parts, by_alignment_and_name);
    buffer header = {0};
    cudpo_status status = header_text(&header, w, metadata);
    if (status == CUDPO_OK && header.size > MAX_HEADER)
        status = cudpo_fail(CUDPO_EWRITE, w->path, "header of %zu bytes; readers accept %d",
                            header.size, MAX_HEADER);
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((uint64_t)header.size >> 8 * i);
    if (status == CUDPO_OK) status = file_writer_open(&w->file, w->path);
    if (status == CUDPO_OK) status = file_writer_put(&w->file, prefix, sizeof prefix);
    if (status == CUDPO_OK) status = file_writer_put(&w->file, header.data, header.size);
    buffer_free(&header);
    settle(w);
    return status;
}

cudpo_status safetensors_create(safetensors_writer **out, const char *path,
                                const safetensors_plan *tensors, int64_t count,
                                const char *const *metadata)
{
    *out = NULL;
    CUDPO_REQUIRE(count >= 0);
    CUDPO_TRY(check_plan(tensors, count));
    safetensors_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "write");
    w->path = strdup(path);
    w->count = count;
    w->parts = calloc((size_t)count + 1, sizeof *w->parts);
    cudpo_status status = CUDPO_OK;
    if (w->path == NULL || w->parts == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, path, "%lld tensors", (long long)count);
    if (status == CUDPO_OK) status = begin(w, tensors, metadata);
    if (status != CUDPO_OK) {
        safetensors_writer_abandon(w);
        return status;
    }
    *out = w;
    return CUDPO_OK;
}

int64_t safetensors_writer_next(const safetensors_writer *w)
{
    return w->at < w->count ? w->parts[w->at].index : -1;
}

/* Convert n <= CHUNK elements; false where a finite one became Inf. */
static bool narrow(uint16_t *out, const float *data, int64_t n, dtype type)
{
    bool fits = true;
    for (int64_t i = 0; i < n; i++) {
        out[i] = type == DTYPE_BF16 ? bf16_from_float(data[i]) : f16_from_float(data[i]);
        const float back = type == DTYPE_BF16 ? float_from_bf16(out[i]) : float_from_f16(out[i]);
        fits &= !isinf(back) || isinf(data[i]);
    }
    return fits;
}

static cudpo_status put_narrow(safetensors_writer *w, const float *data, int64_t n)
{
    const safetensors_plan *plan = w->parts[w->at].plan;
    uint16_t chunk[CHUNK];
    for (int64_t begin_at = 0; begin_at < n; begin_at += CHUNK) {
        const int64_t m = n - begin_at < CHUNK ? n - begin_at : CHUNK;
        if (!narrow(chunk, data + begin_at, m, plan->type)) {
            char where[700];
            snprintf(where, sizeof where, "%.500s: %.120s", w->path, plan->name);
            return cudpo_fail(CUDPO_ENUMERIC, where, "has a value beyond the range of %s",
                              dtype_name(plan->type));
        }
        CUDPO_TRY(file_writer_put(&w->file, chunk, (size_t)m * sizeof *chunk));
    }
    return CUDPO_OK;
}

cudpo_status safetensors_writer_put(safetensors_writer *w, const float *data, int64_t n)
{
    if (n == 0) return CUDPO_OK;
    CUDPO_REQUIRE(w->at < w->count && n > 0 && n <= w->parts[w->at].elements - w->done);
    if (w->parts[w->at].plan->type == DTYPE_F32) {
        CUDPO_TRY(file_writer_put(&w->file, data, (size_t)n * sizeof *data));
    } else {
        CUDPO_TRY(put_narrow(w, data, n));
    }
    w->done += n;
    settle(w);
    return CUDPO_OK;
}

cudpo_status safetensors_writer_commit(safetensors_writer *w)
{
    const bool complete = w->at == w->count;
    cudpo_status status = complete ? file_writer_commit(&w->file)
                                   : cudpo_fail(CUDPO_EINVAL, w->path, "tensors are missing");
    safetensors_writer_abandon(w);
    return status;
}

void safetensors_writer_abandon(safetensors_writer *w)
{
    if (w == NULL) return;
    file_writer_abandon(&w->file);
    free(w->parts);
    free(w->path);
    free(w);
}
