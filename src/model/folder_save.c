/* folder_save.c - a model folder that transformers loads: what the source folder had, around new weights. */
#include "model/weights.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20 };

/* config.json is written, model.safetensors too; what stands between is copied where it is there. */
const char *const model_folder_files[] = {"config.json",
                                          "tokenizer.json",
                                          "tokenizer_config.json",
                                          "special_tokens_map.json",
                                          "added_tokens.json",
                                          "chat_template.jinja",
                                          "vocab.json",
                                          "merges.txt",
                                          "tokenizer.model",
                                          "generation_config.json",
                                          "model.safetensors",
                                          NULL};
enum { FOLDER_FILES = sizeof model_folder_files / sizeof model_folder_files[0] - 1 };

/* Where in a text the values of `dtype` and `torch_dtype` stand, and where a member could be added. */
typedef struct dtype_spans {
    size_t begin[2], end[2];
    int count;
    size_t first_key, last_end; /* the first key and the end of the last value; 0 without members */
    size_t open;                /* behind the opening brace */
    bool parameters;            /* has rope_parameters, the spelling of transformers 5 */
} dtype_spans;

/* `scratch` is a copy of the text, which is spoilt. */
static dtype_spans find_dtype(char *scratch)
{
    dtype_spans s = {0};
    char *p = json_text_open(scratch);
    s.open = (size_t)(p - scratch);
    while (json_text_next(&p)) {
        if (s.first_key == 0) s.first_key = (size_t)(p - scratch);
        char *key = NULL;
        p = json_text_value(json_text_string(p, &key));
        const size_t begin = (size_t)(p - scratch);
        p = json_text_skip(p);
        s.last_end = (size_t)(p - scratch);
        if (strcmp(key, "rope_parameters") == 0) s.parameters = true;
        if (strcmp(key, "dtype") != 0 && strcmp(key, "torch_dtype") != 0) continue;
        s.begin[s.count] = begin; /* each key stands once: json_parse() has seen to it */
        s.end[s.count++] = s.last_end;
    }
    return s;
}

/* `text` with its dtype set, every other byte as it was: numbers keep their digits, keys their order. */
static cudpo_status set_dtype(buffer *out, const char *text, const dtype_spans *s, dtype type)
{
    size_t at = 0;
    for (int i = 0; i < s->count; i++) {
        CUDPO_TRY(buffer_append(out, text + at, s->begin[i] - at));
        CUDPO_TRY(buffer_printf(out, "\"%s\"", dtype_name(type)));
        at = s->end[i];
    }
    if (s->count == 0) {
        const size_t end = s->last_end > 0 ? s->last_end : s->open;
        CUDPO_TRY(buffer_append(out, text, end));
        if (s->last_end > 0) {
            CUDPO_TRY(buffer_append(out, ",", 1));
            CUDPO_TRY(buffer_append(out, text + s->open, s->first_key - s->open));
        }
        CUDPO_TRY(buffer_printf(out, "\"%s\": \"%s\"", s->parameters ? "dtype" : "torch_dtype",
                                dtype_name(type)));
        at = end;
    }
    return buffer_append(out, text + at, strlen(text + at));
}

static cudpo_status write_config(const char *to, const char *from, dtype type)
{
    char *text = NULL, *scratch = NULL;
    json *root = NULL;
    buffer out = {0};
    size_t n = 0;
    cudpo_status status = file_read(&text, &n, from, MAX_CONFIG_BYTES);
    if (status == CUDPO_OK) status = json_parse(&root, text, n, from);
    if (status == CUDPO_OK && json_type(root) != JSON_OBJECT)
        status = cudpo_fail(CUDPO_EDATA, from, "must be an object");
    if (status != CUDPO_OK) goto out;
    const char *body = strncmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text;
    scratch = strdup(body);
    if (scratch == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, from, "%zu bytes", n);
        goto out;
    }
    const dtype_spans spans = find_dtype(scratch);
    status = set_dtype(&out, body, &spans, type);
    if (status == CUDPO_OK) status = file_write(to, out.data, out.size);
out:
    buffer_free(&out);
    free(scratch);
    json_free(root);
    free(text);
    return status;
}

/* Run one step on the paths of `name` in both folders. */
static cudpo_status with_paths(const char *to, const char *from, const char *name, bool is_config,
                               dtype type)
{
    char *target = path_join(to, name), *source = path_join(from, name);
    cudpo_status status = CUDPO_OK;
    if (target == NULL || source == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, to, "path");
    } else if (is_config) {
        status = write_config(target, source, type);
    } else if (file_is_regular(source)) {
        status = file_copy(target, source);
    }
    free(source);
    free(target);
    return status;
}

/* The weights come last: a folder without them is seen to be incomplete. */
cudpo_status model_folder_save(const model_weights *w, const char *to, const char *from, dtype type)
{
    CUDPO_REQUIRE(type != DTYPE_I32 && w->offload == NULL);
    CUDPO_TRY(file_make_folder(to));
    for (int i = 0; i < FOLDER_FILES - 1; i++)
        CUDPO_TRY(with_paths(to, from, model_folder_files[i], i == 0, type));
    char *path = path_join(to, "model.safetensors");
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, to, "path");
    const cudpo_status status = model_weights_save(w, path, type);
    free(path);
    return status;
}
