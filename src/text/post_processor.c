/* post_processor.c - ByteLevel, which changes no id, and TemplateProcessing.
 *
 * It alone decides which ids are added: add_bos_token and add_eos_token of tokenizer_config.json are what transformers
 * derives a post-processor from when it converts a slow tokenizer, and stand in the file beside its result. */
#include "text/post_processor.h"
#include "text/bpe.h"
#include "text/load.h"

#include <stdlib.h>
#include <string.h>

enum { BYTE_LEVEL, TEMPLATE, KINDS };
static const char *const names[KINDS] = {"ByteLevel", "TemplateProcessing"};

enum { MAX_IDS = 4096 }; /* of a template */

typedef struct loader {
    token_list *ids;
    int64_t size;
} loader;

static cudpo_status add(token_list *list, int32_t id, const char *where)
{
    if (list->n >= MAX_IDS) return cudpo_fail(CUDPO_EDATA, where, "adds over %d ids", MAX_IDS);
    return token_list_add(list, id);
}

/* The ids of a special token: "special_tokens": {name: {"ids": [...]}}. */
static cudpo_status add_special(token_list *out, const json *component, const char *name,
                                int64_t size, const char *where)
{
    const json *specials, *special, *ids;
    CUDPO_TRY(load_member(&specials, component, "special_tokens", JSON_OBJECT, where));
    CUDPO_TRY(load_member(&special, specials, name, JSON_OBJECT, where));
    CUDPO_TRY(load_member(&ids, special, "ids", JSON_ARRAY, where));
    for (const json *value = json_first(ids); value != NULL; value = json_next(value)) {
        int64_t id;
        if (!json_integer(value, &id) || id < 0 || id >= size)
            return cudpo_fail(CUDPO_EDATA, where, "an id of \"%.60s\" is not in the vocabulary",
                              name);
        CUDPO_TRY(add(out, (int32_t)id, where));
    }
    return CUDPO_OK;
}

static cudpo_status add_text(token_list *out, const token_list *text, const json *sequence,
                             const char *where)
{
    const json *id;
    CUDPO_TRY(load_member(&id, sequence, "id", JSON_STRING, where));
    if (strcmp(json_string(id), "A") != 0)
        return cudpo_fail(CUDPO_EDATA, where, "single holds the sequence \"%.20s\"; only A exists",
                          json_string(id));
    for (int64_t i = 0; i < text->n; i++)
        CUDPO_TRY(add(out, text->ids[i], where));
    return CUDPO_OK;
}

static cudpo_status run_template(token_list *out, const loader *l, const json *component,
                                 const char *where)
{
    const json *single;
    CUDPO_TRY(load_member(&single, component, "single", JSON_ARRAY, where));
    for (const json *item = json_first(single); item != NULL; item = json_next(item)) {
        if (json_type(item) != JSON_OBJECT)
            return cudpo_fail(CUDPO_EDATA, where, "single holds %s, not an object",
                              json_kind_name(json_type(item)));
        const json *sequence = json_get(item, "Sequence"), *special, *id;
        if (sequence != NULL) {
            CUDPO_TRY(load_member(&sequence, item, "Sequence", JSON_OBJECT, where));
            CUDPO_TRY(add_text(out, l->ids, sequence, where));
            continue;
        }
        CUDPO_TRY(load_member(&special, item, "SpecialToken", JSON_OBJECT, where));
        CUDPO_TRY(load_member(&id, special, "id", JSON_STRING, where));
        CUDPO_TRY(add_special(out, component, json_string(id), l->size, where));
    }
    return CUDPO_OK;
}

static cudpo_status load_step(void *state, const json *component, const char *type,
                              const char *where)
{
    loader *l = state;
    int kind;
    CUDPO_TRY(load_choice(&kind, type, names, KINDS, "type", where));
    if (kind == BYTE_LEVEL) return CUDPO_OK;
    token_list ids = {0};
    cudpo_status status = run_template(&ids, l, component, where);
    int texts = 0;
    for (int64_t i = 0; i < ids.n; i++)
        texts += ids.ids[i] == POST_TEXT;
    if (status == CUDPO_OK && texts != 1)
        status = cudpo_fail(CUDPO_EDATA, where, "single holds the text %d times, not once", texts);
    if (status == CUDPO_OK) {
        token_list_free(l->ids);
        *l->ids = ids;
    } else {
        token_list_free(&ids);
    }
    return status;
}

cudpo_status post_processor_load(token_list *out, const json *component, int64_t size,
                                 const char *where)
{
    CUDPO_TRY(token_list_add(out, POST_TEXT));
    loader l = {out, size};
    return load_components(&l, component, "processors", load_step, where);
}
