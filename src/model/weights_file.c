/* weights_file.c - parameters from and to safetensors files. */
#include "model/weights_file.h"
#include "model/half.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *element(tensor view, int64_t first)
{
    return (char *)view.data + (size_t)first * dtype_size(view.type);
}

/* Where a view of the block begins in it. */
static int64_t place_of(const model_weights *w, tensor view)
{
    return ((const char *)view.data - (const char *)w->all.data) / (int64_t)dtype_size(view.type);
}

cudpo_status weights_upload(const model_weights *w, tensor view, int64_t first, const float *host,
                            int64_t n)
{
    if (w->store != NULL)
        return w->store->put(w->store->context, host, place_of(w, view) + first, n);
    if (view.type == DTYPE_F32) {
        CUDPO_TRY(w->be->copy_in(w->be, element(view, first), host, (size_t)n * sizeof *host));
        return w->be->sync(w->be); /* copy_in may still be reading `host` */
    }
    uint16_t *half = malloc((size_t)n * sizeof *half);
    if (half == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "chunk");
    for (int64_t i = 0; i < n; i++)
        half[i] = bf16_from_float(host[i]);
    cudpo_status status =
        w->be->copy_in(w->be, element(view, first), half, (size_t)n * sizeof *half);
    if (status == CUDPO_OK) status = w->be->sync(w->be);
    free(half);
    return status;
}

cudpo_status weights_download(const model_weights *w, tensor view, int64_t first, float *host,
                              int64_t n)
{
    if (w->store != NULL)
        return w->store->get(w->store->context, host, place_of(w, view) + first, n);
    if (view.type == DTYPE_F32)
        return w->be->copy_out(w->be, host, element(view, first), (size_t)n * sizeof *host);
    uint16_t *half = malloc((size_t)n * sizeof *half);
    if (half == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "chunk");
    const cudpo_status status =
        w->be->copy_out(w->be, half, element(view, first), (size_t)n * sizeof *half);
    for (int64_t i = 0; i < n && status == CUDPO_OK; i++)
        host[i] = float_from_bf16(half[i]);
    free(half);
    return status;
}

cudpo_status weights_bad(const char *path, const char *name, const char *fmt, ...)
{
    char where[700], reason[300];
    snprintf(where, sizeof where, "%.500s: %.120s", path, name);
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason, sizeof reason, fmt, args);
    va_end(args);
    return cudpo_fail(CUDPO_EDATA, where, "%s", reason);
}

static void shape_text(char *out, size_t size, const int64_t *shape, int rank)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, i == 0 ? "%lld" : ",%lld",
                                 (long long)shape[i]);
    if (used < size) snprintf(out + used, size - used, "]");
}

static cudpo_status check_shape(const weight_name *to, const safetensors *st,
                                const safetensors_entry *from)
{
    const int64_t vector[1] = {to->view.cols}, matrix[2] = {to->view.rows, to->view.cols};
    const int64_t *want = to->rank == 1 ? vector : matrix;
    bool same = from->rank == to->rank;
    for (int i = 0; same && i < from->rank; i++)
        same = from->shape[i] == want[i];
    if (same) return CUDPO_OK;
    char is[100], should[100];
    shape_text(is, sizeof is, from->shape, from->rank);
    shape_text(should, sizeof should, want, to->rank);
    return weights_bad(safetensors_path(st), from->name, "has shape %s; by config.json it is %s",
                       is, should);
}

static cudpo_status check_finite(const float *x, int64_t n, int64_t first, const char *path,
                                 const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return weights_bad(
                path, name, "element %lld is %g, and nothing that is computed with it is a number",
                (long long)(first + i), (double)x[i]);
    return CUDPO_OK;
}

cudpo_status weights_read(model_weights *w, const weight_name *to, const safetensors *st,
                          const safetensors_entry *from, bool finite, hash_state *fingerprint)
{
    CUDPO_TRY(check_shape(to, st, from));
    const int64_t total = tensor_elements(to->view);
    const int64_t most = total < WEIGHTS_CHUNK ? total : WEIGHTS_CHUNK;
    float *chunk = malloc((size_t)most * sizeof *chunk);
    if (chunk == NULL) return cudpo_fail(CUDPO_ENOMEM, safetensors_path(st), "chunk");
    cudpo_status status = CUDPO_OK;
    for (int64_t at = 0; at < total && status == CUDPO_OK; at += most) {
        const int64_t n = total - at < most ? total - at : most;
        status = safetensors_read(st, from, chunk, at, n);
        if (status == CUDPO_OK && finite)
            status = check_finite(chunk, n, at, safetensors_path(st), from->name);
        if (status == CUDPO_OK && fingerprint != NULL)
            hash_add(fingerprint, chunk, (size_t)n * sizeof *chunk);
        if (status == CUDPO_OK) status = weights_upload(w, to->view, at, chunk, n);
    }
    free(chunk);
    return status;
}

cudpo_status weights_read_run(backend *be, tensor run, int64_t at, const safetensors *st,
                              const safetensors_entry *from, int64_t first, int64_t n)
{
    const model_weights own = {.be = be};
    float *chunk = malloc(WEIGHTS_CHUNK * sizeof *chunk);
    if (chunk == NULL) return cudpo_fail(CUDPO_ENOMEM, safetensors_path(st), "chunk");
    cudpo_status status = CUDPO_OK;
    for (int64_t done = 0; done < n && status == CUDPO_OK; done += WEIGHTS_CHUNK) {
        const int64_t m = n - done < WEIGHTS_CHUNK ? n - done : WEIGHTS_CHUNK;
        status = safetensors_read(st, from, chunk, first + done, m);
        if (status == CUDPO_OK) status = weights_upload(&own, run, at + done, chunk, m);
    }
    free(chunk);
    return status;
}

static int by_name(const void *pa, const void *pb)
{
    const weight_name *const *a = pa, *const *b = pb;
    return strcmp((*a)->name, (*b)->name);
}

cudpo_status weights_sorted(const weight_name ***out, const model_weights *w)
{
    const weight_name **sorted = malloc((size_t)w->count * sizeof *sorted);
    *out = sorted;
    if (sorted == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld", (long long)w->count);
    for (int64_t i = 0; i < w->count; i++)
        sorted[i] = &w->names[i];
    qsort(sorted, (size_t)w->count, sizeof *sorted, by_name);
    return CUDPO_OK;
}

static int compare_name(const void *key, const void *item)
{
    const weight_name *const *n = item;
    return strcmp(key, (*n)->name);
}

const weight_name *weights_find(const weight_name *const *sorted, int64_t count, const char *name)
{
    const weight_name *const *found =
        bsearch(name, sorted, (size_t)count, sizeof *sorted, compare_name);
    return found == NULL ? NULL : *found;
}

/* All values by name, which is the order of a file whose tensors are of one type.  In: file  NULL: they are dropped. */
static cudpo_status put_all(safetensors_writer *file, const model_weights *w, float *chunk)
{
    const weight_name **sorted;
    cudpo_status status = weights_sorted(&sorted, w);
    for (int64_t i = 0; i < w->count && status == CUDPO_OK; i++) {
        const tensor view = sorted[i]->view;
        const int64_t total = tensor_elements(view);
        assert(file == NULL || safetensors_writer_next(file) == sorted[i] - w->names);
        for (int64_t at = 0; at < total && status == CUDPO_OK; at += WEIGHTS_CHUNK) {
            const int64_t n = total - at < WEIGHTS_CHUNK ? total - at : WEIGHTS_CHUNK;
            status = weights_download(w, view, at, chunk, n);
            if (status == CUDPO_OK && file != NULL) status = safetensors_writer_put(file, chunk, n);
        }
    }
    free(sorted);
    return status;
}

cudpo_status model_weights_pass(const model_weights *w)
{
    CUDPO_REQUIRE(w->store != NULL);
    float *chunk = malloc(WEIGHTS_CHUNK * sizeof *chunk);
    if (chunk == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "chunk");
    const cudpo_status status = put_all(NULL, w, chunk);
    free(chunk);
    return status;
}

cudpo_status model_weights_save(const model_weights *w, const char *path, dtype type)
{
    static const char *const metadata[] = {"format", "pt", NULL}; /* transformers demands it */
    CUDPO_REQUIRE(type != DTYPE_I32 && w->offload == NULL);
    safetensors_plan *plan = calloc((size_t)w->count, sizeof *plan);
    float *chunk = malloc(WEIGHTS_CHUNK * sizeof *chunk);
    safetensors_writer *file = NULL;
    cudpo_status status = CUDPO_OK;
    if (plan == NULL || chunk == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, path, "%lld tensors", (long long)w->count);
        goto out;
    }
    for (int64_t i = 0; i < w->count; i++) {
        const weight_name *n = &w->names[i];
        plan[i] = (safetensors_plan){.name = n->name, .type = type, .rank = n->rank};
        plan[i].shape[0] = n->rank == 1 ? n->view.cols : n->view.rows;
        if (n->rank == 2) plan[i].shape[1] = n->view.cols;
    }
    status = safetensors_create(&file, path, plan, w->count, metadata);
    if (status == CUDPO_OK) status = put_all(file, w, chunk);
    if (status == CUDPO_OK) {
        status = safetensors_writer_commit(file);
        file = NULL;
    }
out:
    safetensors_writer_abandon(file);
    free(chunk);
    free(plan);
    return status;
}

/* What of one parameter is in the run, which begins at element `begin` of the block. */
static cudpo_status restore_part(tensor run, int64_t begin, const model_weights *layout,
                                 const weight_name *to, const safetensors *st)
{
    const char *path = safetensors_path(st);
    const safetensors_entry *from = safetensors_find(st, to->name);
    if (from == NULL) return weights_bad(path, to->name, "missing");
    if (!from->supported || from->type != DTYPE_F32)
        return weights_bad(path, to->name, "is %s; F32 was written", from->type_name);
    CUDPO_TRY(check_shape(to, st, from));
    const int64_t place = place_of(layout, to->view), end = place + tensor_elements(to->view);
    const int64_t run_end = begin + tensor_elements(run);
    const int64_t a = place > begin ? place : begin, b = end < run_end ? end : run_end;
    if (a >= b) return CUDPO_OK;
    /* Moments may overflow: what is no number is taken, too. */
    return weights_read_run(layout->be, run, a - begin, st, from, a - place, b - a);
}

cudpo_status model_weights_restore_run(tensor run, int64_t begin, const model_weights *layout,
                                       const char *path)
{
    safetensors *st = NULL;
    CUDPO_REQUIRE(layout->offload == NULL && tensor_dense(run) && begin >= 0);
    CUDPO_REQUIRE(begin + tensor_elements(run) <= tensor_elements(layout->all));
    CUDPO_TRY(safetensors_open(&st, path));
    cudpo_status status = CUDPO_OK;
    if (safetensors_count(st) != layout->count)
        status = cudpo_fail(CUDPO_EDATA, path, "has %lld tensors; the model has %lld",
                            (long long)safetensors_count(st), (long long)layout->count);
    for (int64_t i = 0; i < layout->count && status == CUDPO_OK; i++)
        status = restore_part(run, begin, layout, &layout->names[i], st);
    safetensors_close(st);
    return status;
}

cudpo_status model_weights_restore(model_weights *w, const char *path)
{
    CUDPO_REQUIRE(w->offload == NULL);
    return model_weights_restore_run(w->all, 0, w, path);
}
