/* checkpoint_shards.c - runs of the block of all parameters, to files and back. */
#include "train/checkpoint_shards.h"
#include "base/file.h"
#include "model/weights_file.h"
#include "train/checkpoint_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[CHECKPOINT_TENSORS] = {"master", "exp_avg", "exp_avg_sq"};

void shard_name(char out[SHARD_NAME], int rank, int ranks)
{
    snprintf(out, SHARD_NAME, "optimizer-%05d-of-%05d.safetensors", rank, ranks);
}

bool shard_is_name(const char *name)
{
    int rank = 0, ranks = 0;
    char again[SHARD_NAME];
    if (sscanf(name, "optimizer-%5d-of-%5d", &rank, &ranks) != 2) return false;
    shard_name(again, rank, ranks);
    return strcmp(again, name) == 0;
}

static cudpo_status put_run(safetensors_writer *file, const checkpoint_shard *s, tensor run,
                            float *chunk)
{
    const model_weights w = {.be = s->be};
    const int64_t total = tensor_elements(run);
    for (int64_t at = 0; at < total; at += WEIGHTS_CHUNK) {
        const int64_t n = total - at < WEIGHTS_CHUNK ? total - at : WEIGHTS_CHUNK;
        CUDPO_TRY(weights_download(&w, run, at, chunk, n));
        CUDPO_TRY(safetensors_writer_put(file, chunk, n));
    }
    return CUDPO_OK;
}

static cudpo_status write_file(const checkpoint_shard *s, const char *path)
{
    char begin[24], all[24];
    const char *const metadata[] = {"begin", begin, "all", all, NULL};
    safetensors_plan plan[CHECKPOINT_TENSORS];
    tensor run[CHECKPOINT_TENSORS];
    safetensors_writer *file = NULL;
    int64_t count = 0;
    snprintf(begin, sizeof begin, "%lld", (long long)s->begin);
    snprintf(all, sizeof all, "%lld", (long long)s->all);
    for (int i = 0; i < CHECKPOINT_TENSORS; i++) {
        if (!tensor_present(s->run[i])) continue;
        plan[count] = (safetensors_plan){.name = names[i], .type = DTYPE_F32, .rank = 1};
        plan[count].shape[0] = tensor_elements(s->run[i]);
        run[count++] = s->run[i];
    }
    float *chunk = malloc(WEIGHTS_CHUNK * sizeof *chunk);
    if (chunk == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "chunk");
    cudpo_status status = safetensors_create(&file, path, plan, count, metadata);
    for (int64_t i; status == CUDPO_OK && (i = safetensors_writer_next(file)) >= 0;)
        status = put_run(file, s, run[i], chunk);
    if (status == CUDPO_OK) {
        status = safetensors_writer_commit(file);
        file = NULL;
    }
    safetensors_writer_abandon(file);
    free(chunk);
    return status;
}

cudpo_status shard_write(manifest_entry *entry, const checkpoint_shard *s, const char *folder)
{
    char name[SHARD_NAME];
    shard_name(name, s->rank, s->ranks);
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    const cudpo_status status = write_file(s, path);
    free(path);
    CUDPO_TRY(status);
    return manifest_measure(entry, folder, name);
}

/* A number that the file's metadata hold, or -1. */
static int64_t number_of(const safetensors *st, const char *key)
{
    const char *text = safetensors_metadata(st, key);
    char *end = NULL;
    if (text == NULL || *text < '0' || *text > '9') return -1;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    return errno != 0 || *end != '\0' ? -1 : (int64_t)value;
}

/* What a shard has of the run.  In/Out: next  the first element that no earlier shard has. */
static cudpo_status read_part(bool *found, int64_t *next, backend *be, tensor run, int64_t begin,
                              int64_t all, const char *name, const safetensors *st)
{
    const safetensors_entry *from = safetensors_find(st, name);
    const char *path = safetensors_path(st);
    *found = from != NULL;
    if (from == NULL) return CUDPO_OK;
    const int64_t place = number_of(st, "begin"), n = safetensors_elements(from);
    if (from->rank != 1 || !from->supported || from->type != DTYPE_F32)
        return weights_bad(path, name, "is not a run of float32");
    if (number_of(st, "all") != all)
        return weights_bad(path, name, "is not of the %lld parameters that this model has",
                           (long long)all);
    if (place != *next || n > all - place)
        return weights_bad(path, name, "does not begin where the shard before it ends");
    *next = place + n;
    const int64_t end = begin + tensor_elements(run);
    const int64_t a = place > begin ? place : begin, b = *next < end ? *next : end;
    return a < b ? weights_read_run(be, run, a - begin, st, from, a - place, b - a) : CUDPO_OK;
}

cudpo_status shard_read(bool *found, backend *be, tensor run, int64_t begin, int64_t all,
                        checkpoint_tensors which, const char *folder, int64_t shards)
{
    int64_t next = 0, holders = 0;
    *found = false;
    for (int64_t i = 0; i < shards; i++) {
        char name[SHARD_NAME];
        bool has = false;
        safetensors *st = NULL;
        shard_name(name, (int)i, (int)shards);
        char *path = path_join(folder, name);
        if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
        cudpo_status status = safetensors_open(&st, path);
        if (status == CUDPO_OK)
            status = read_part(&has, &next, be, run, begin, all, names[which], st);
        safetensors_close(st);
        free(path);
        CUDPO_TRY(status);
        holders += has;
    }
    *found = holders > 0;
    if (*found && next != all)
        return cudpo_fail(CUDPO_EDATA, folder, "its shards have %lld of %lld elements of %s",
                          (long long)next, (long long)all, names[which]);
    return CUDPO_OK;
}

cudpo_status checkpoint_restore(tensor run, int64_t begin, const model_weights *layout,
                                checkpoint_tensors which, const char *path, int64_t shards)
{
    const int64_t all = tensor_elements(layout->all);
    bool found = false;
    CUDPO_REQUIRE(begin >= 0 && begin + tensor_elements(run) <= all && tensor_dense(run));
    if (shards > 0) CUDPO_TRY(shard_read(&found, layout->be, run, begin, all, which, path, shards));
    if (found) return CUDPO_OK;
    char *file = path_join(path, checkpoint_files[which]);
    if (file == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    const cudpo_status status = model_weights_restore_run(run, begin, layout, file);
    free(file);
    return status;
}
