/* folder_load.c - a model's weights from a Hugging Face folder: one file, or shards that an index names.
 *
 * The index is input like any other: the files that it names are single path components of a small alphabet, so it
 * can't lead outside the folder.  Symbolic links are followed, because in the Hugging Face cache every file of a
 * snapshot, shards included, is a link into ../../blobs; links are made by whoever owns the folder, not by the
 * text of a file in it. */
#include "model/weights.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/weights_file.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX_BYTES = 64 << 20 };
static const char head_name[] = "lm_head.weight";

/* One entry of the index: a tensor and the file that should hold it. */
typedef struct mapped {
    const char *file, *tensor;
} mapped;

/* Where values stand; entry NULL: nowhere. */
typedef struct source {
    const safetensors *file;
    const safetensors_entry *entry;
} source;

typedef struct loader {
    model_weights *w;
    bool tied;
    const weight_name **sorted; /* [w->count] */
    source *from;               /* [w->count], by the index in w->names */
    source head;                /* of a head though the head is tied */
    safetensors **files;        /* [file_count], open until all is read */
    int64_t file_count;
    int64_t unused;       /* tensors that the model has no use for */
    char unused_name[96]; /* one of them */
} loader;

static bool ends_with(const char *s, const char *suffix)
{
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* Old checkpoints store rope's frequencies, which are computed from config.json. */
static bool is_buffer(const char *name)
{
    return ends_with(name, ".rotary_emb.inv_freq");
}

static void note_tensor(loader *l, const safetensors *st, const safetensors_entry *e)
{
    const weight_name *to = weights_find(l->sorted, l->w->count, e->name);
    if (to != NULL)
        l->from[to - l->w->names] = (source){st, e};
    else if (l->tied && strcmp(e->name, head_name) == 0)
        l->head = (source){st, e};
    else if (!is_buffer(e->name) && l->unused++ == 0)
        snprintf(l->unused_name, sizeof l->unused_name, "%s", e->name);
}

static int by_file_and_tensor(const void *pa, const void *pb)
{
    const mapped *a = pa, *b = pb;
    const int order = strcmp(a->file, b->file);
    return order != 0 ? order : strcmp(a->tensor, b->tensor);
}

/* The index and the file must agree on what is in the file. */
static cudpo_status check_shard(const safetensors *st, const mapped *map, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (safetensors_find(st, map[i].tensor) == NULL)
            return weights_bad(safetensors_path(st), map[i].tensor,
                               "missing, though the index places it in this file");
    }
    for (int64_t i = 0; i < safetensors_count(st); i++) {
        const mapped key = {map[0].file, safetensors_at(st, i)->name};
        if (bsearch(&key, map, (size_t)count, sizeof *map, by_file_and_tensor) == NULL)
            return weights_bad(safetensors_path(st), key.tensor,
                               "is here, but the index does not place it in this file");
    }
    return CUDPO_OK;
}

/* `map` is what the index places in this file; NULL where there is no index. */
static cudpo_status open_file(loader *l, const char *path, const mapped *map, int64_t count)
{
    safetensors **files = realloc(l->files, ((size_t)l->file_count + 1) * sizeof *files);
    if (files == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "file");
    l->files = files;
    safetensors *st = NULL;
    CUDPO_TRY(safetensors_open(&st, path));
    files[l->file_count++] = st;
    if (map != NULL) CUDPO_TRY(check_shard(st, map, count));
    for (int64_t i = 0; i < safetensors_count(st); i++)
        note_tensor(l, st, safetensors_at(st, i));
    return CUDPO_OK;
}

static bool is_shard_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const size_t n = strlen(name);
    return n <= NAME_MAX && name[0] != '.' && strspn(name, allowed) == n &&
           ends_with(name, ".safetensors");
}

/* The entries of weight_map, sorted by file, in new memory; their strings belong to `root`. */
static cudpo_status read_index(mapped **out, int64_t *count, const json *root, const char *path)
{
    const json *map = json_type(root) == JSON_OBJECT ? json_get(root, "weight_map") : NULL;
    if (map == NULL || json_type(map) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, path, "needs an object \"weight_map\"");
    *count = 0;
    *out = malloc(((size_t)json_count(map) + 1) * sizeof **out);
    if (*out == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "weight_map");
    for (const json *m = json_first(map); m != NULL; m = json_next(m)) {
        if (json_type(m) != JSON_STRING)
            return weights_bad(path, json_key(m), "the file must be a string, not %s",
                               json_kind_name(json_type(m)));
        if (!is_shard_name(json_string(m)))
            return weights_bad(path, json_key(m),
                               "\"%.100s\" is not the name of a .safetensors file in this folder",
                               json_string(m));
        (*out)[(*count)++] = (mapped){json_string(m), json_key(m)};
    }
    qsort(*out, (size_t)*count, sizeof **out, by_file_and_tensor);
    return CUDPO_OK;
}

static cudpo_status open_shards(loader *l, const char *folder, const char *index_path)
{
    json *root = NULL;
    mapped *map = NULL;
    int64_t count = 0;
    cudpo_status status = json_load(&root, index_path, MAX_INDEX_BYTES);
    if (status == CUDPO_OK) status = read_index(&map, &count, root, index_path);
    for (int64_t begin = 0, end; begin < count && status == CUDPO_OK; begin = end) {
        for (end = begin + 1; end < count && strcmp(map[end].file, map[begin].file) == 0;)
            end++;
        char *path = path_join(folder, map[begin].file);
        status = path == NULL ? cudpo_fail(CUDPO_ENOMEM, folder, "path")
                              : open_file(l, path, map + begin, end - begin);
        free(path);
    }
    free(map);
    json_free(root);
    return status;
}

/* The head of a model whose config ties it: the same values as the embedding, or the config is wrong. */
static cudpo_status check_tied_head(const loader *l)
{
    const weight_name *name = weights_find(l->sorted, l->w->count, "model.embed_tokens.weight");
    const source embed = l->from[name - l->w->names], head = l->head;
    const char *path = safetensors_path(head.file);
    const int64_t total = tensor_elements(name->view);
    if (head.entry->rank != 2 || head.entry->shape[0] != name->view.rows ||
        head.entry->shape[1] != name->view.cols)
        return weights_bad(path, head_name, "has another shape than %s", name->name);
    float *ours = malloc(WEIGHTS_CHUNK * sizeof *ours);
    float *theirs = malloc(WEIGHTS_CHUNK * sizeof *theirs);
    cudpo_status status = CUDPO_OK;
    if (ours == NULL || theirs == NULL) status = cudpo_fail(CUDPO_ENOMEM, path, "chunk");
    for (int64_t at = 0; at < total && status == CUDPO_OK; at += WEIGHTS_CHUNK) {
        const int64_t n = total - at < WEIGHTS_CHUNK ? total - at : WEIGHTS_CHUNK;
        status = safetensors_read(head.file, head.entry, theirs, at, n);
        if (status == CUDPO_OK) status = safetensors_read(embed.file, embed.entry, ours, at, n);
        if (status == CUDPO_OK && memcmp(ours, theirs, (size_t)n * sizeof *ours) != 0)
            status = weights_bad(path, head_name,
                                 "differs from %s, though config.json has "
                                 "\"tie_word_embeddings\": true",
                                 name->name);
    }
    free(theirs);
    free(ours);
    return status;
}

static cudpo_status check_complete(const loader *l, const char *path)
{
    for (int64_t i = 0; i < l->w->count; i++) {
        const char *name = l->w->names[i].name;
        if (l->from[i].entry != NULL) continue;
        if (strcmp(name, head_name) == 0)
            return weights_bad(path, name,
                               "missing; if the model shares it with the embedding, set "
                               "\"tie_word_embeddings\": true in config.json");
        return weights_bad(path, name, "missing");
    }
    if (l->unused > 0)
        log_warn("%s: %lld tensors are no part of the model and are ignored, such as %s", path,
                 (long long)l->unused, l->unused_name);
    return CUDPO_OK;
}

/* No safetensors file: say so, and name the pickled weights if that is what is there. */
static cudpo_status no_weights(const char *folder)
{
    static const char *const suffixes[] = {".bin", ".pt", ".pth", ".ckpt", ".h5", ".gguf"};
    char found[256] = "";
    DIR *d = opendir(folder);
    if (d == NULL) return file_fail(folder, "open folder", false);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
            if (ends_with(e->d_name, suffixes[i]) &&
                (found[0] == '\0' || strcmp(e->d_name, found) < 0))
                snprintf(found, sizeof found, "%s", e->d_name);
        }
    }
    closedir(d);
    if (found[0] == '\0')
        return cudpo_fail(CUDPO_ENOINPUT, folder,
                          "has neither model.safetensors nor model.safetensors.index.json");
    return weights_bad(folder, found,
                       "only .safetensors weights are read (a pickle can run code): convert with "
                       "transformers' save_pretrained()");
}

static cudpo_status open_folder(loader *l, const char *folder)
{
    char *whole = path_join(folder, "model.safetensors");
    char *index = path_join(folder, "model.safetensors.index.json");
    cudpo_status status = CUDPO_OK;
    if (whole == NULL || index == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, folder, "path");
    } else if (file_is_regular(whole)) { /* transformers prefers it too */
        status = open_file(l, whole, NULL, 0);
        if (status == CUDPO_OK) status = check_complete(l, whole);
    } else if (file_is_regular(index)) {
        status = open_shards(l, folder, index);
        if (status == CUDPO_OK) status = check_complete(l, index);
    } else {
        status = no_weights(folder);
    }
    free(index);
    free(whole);
    return status;
}

/* In the order of the block, so that the fingerprint is one of values, however the files hold them. */
static cudpo_status read_all(const loader *l)
{
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < l->w->count && status == CUDPO_OK; i++)
        status = weights_read(l->w, &l->w->names[i], l->from[i].file, l->from[i].entry, true, h);
    if (status == CUDPO_OK)
        l->w->fingerprint = hash_end(h);
    else
        hash_abandon(h);
    return status;
}

static void close_all(loader *l)
{
    for (int64_t i = 0; i < l->file_count; i++)
        safetensors_close(l->files[i]);
    free(l->files);
    free(l->from);
    free(l->sorted);
}

cudpo_status model_weights_load(model_weights *w, const model_config *c, const char *folder)
{
    CUDPO_REQUIRE(w->offload == NULL);
    loader l = {.w = w, .tied = c->tie_word_embeddings};
    l.from = calloc((size_t)w->count, sizeof *l.from);
    cudpo_status status = weights_sorted(&l.sorted, w);
    if (status == CUDPO_OK && l.from == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, folder, "%lld names", (long long)w->count);
    if (status == CUDPO_OK) status = open_folder(&l, folder);
    if (status == CUDPO_OK) status = read_all(&l);
    if (status == CUDPO_OK && l.head.entry != NULL) status = check_tied_head(&l);
    close_all(&l);
    return status;
}
