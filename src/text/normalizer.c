/* normalizer.c - Prepend, Replace, and the four Unicode normal forms.
 *
 * The normal forms are utf8proc's (Unicode 15); the `tokenizers` library's are of Unicode 9, which orders 98 rare
 * combining marks differently. */
#include "text/normalizer.h"
#include "text/load.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef enum step_kind { NFC, NFD, NFKC, NFKD, PREPEND, REPLACE, STEP_KINDS } step_kind;
static const char *const step_names[STEP_KINDS] = {"NFC",  "NFD",     "NFKC",
                                                   "NFKD", "Prepend", "Replace"};

enum { MAX_INSERTED = 1024 }; /* bytes that Prepend and Replace put in at a time */

struct normalizer_step {
    step_kind kind;
    char *text;     /* to prepend, or to put in place of a match */
    regex *pattern; /* REPLACE */
};

static cudpo_status load_step(void *state, const json *component, const char *type,
                              const char *where)
{
    normalizer *z = state;
    int kind;
    CUDPO_TRY(load_choice(&kind, type, step_names, STEP_KINDS, "type", where));
    normalizer_step *step = &z->steps[z->n++];
    *step = (normalizer_step){.kind = (step_kind)kind};
    if (kind != PREPEND && kind != REPLACE) return CUDPO_OK;
    const json *text;
    CUDPO_TRY(
        load_member(&text, component, kind == PREPEND ? "prepend" : "content", JSON_STRING, where));
    if (strlen(json_string(text)) > MAX_INSERTED)
        return cudpo_fail(CUDPO_EDATA, where, "inserts %zu bytes; the limit is %d",
                          strlen(json_string(text)), MAX_INSERTED);
    step->text = strdup(json_string(text));
    if (step->text == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
    return kind == REPLACE ? load_pattern(&step->pattern, component, where) : CUDPO_OK;
}

cudpo_status normalizer_load(normalizer *out, const json *component, const char *where)
{
    *out = (normalizer){.steps = calloc(LOAD_MAX_COMPONENTS, sizeof *out->steps)};
    if (out->steps == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
    return load_components(out, component, "normalizers", load_step, where);
}

void normalizer_free(normalizer *z)
{
    for (int i = 0; i < z->n; i++) {
        free(z->steps[i].text);
        regex_free(z->steps[i].pattern);
    }
    free(z->steps);
    *z = (normalizer){0};
}

/* True where the form surely leaves the text as it is: ASCII in every form, and for NFC what lies below the combining
 * marks, Han and Hangul syllables. */
static bool is_inert(step_kind form, const char *text, size_t n)
{
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        const uint32_t c = utf8_decode(text + i, &length);
        if (c < 0x80) continue;
        if (form != NFC) return false;
        if (!(c < 0x300 || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3)))
            return false;
    }
    return true;
}

static int combining_class(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

/* Orders one run of marks by class, stably, by counting. */
static void count_marks(int32_t *run, int32_t *spare, size_t n)
{
    size_t place[257] = {0};
    for (size_t i = 0; i < n; i++)
        place[combining_class(run[i]) + 1]++;
    for (int c = 1; c <= 256; c++)
        place[c] += place[c - 1];
    for (size_t i = 0; i < n; i++)
        spare[place[combining_class(run[i])]++] = run[i];
    memcpy(run, spare, n * sizeof *run);
}

static void insert_marks(int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const int32_t code = run[i];
        size_t hole = i;
        for (; hole > 0 && combining_class(run[hole - 1]) > combining_class(code); hole--)
            run[hole] = run[hole - 1];
        run[hole] = code;
    }
}

/* Order each run of combining marks by class.  utf8proc's own insertion sort is quadratic, and a hostile text may be
 * one such run. */
static void order_marks(int32_t *codes, int32_t *spare, size_t n)
{
    enum { SHORT = 32 };
    for (size_t begin = 0, end; begin < n; begin = end + 1) {
        for (end = begin; end < n && combining_class(codes[end]) != 0;)
            end++;
        if (end - begin <= SHORT) {
            insert_marks(codes + begin, end - begin);
        } else {
            count_marks(codes + begin, spare, end - begin);
        }
    }
}

static utf8proc_option_t form_options(step_kind form)
{
    const int compose = form == NFC || form == NFKC;
    const int compatible = form == NFKC || form == NFKD;
    return (utf8proc_option_t)(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                               (compatible ? UTF8PROC_COMPAT : 0));
}

/* The decomposed code points of the text in new memory: [2 * capacity], of which the second half is free. */
static cudpo_status decompose(int32_t **out, size_t *count, const char *text, size_t n,
                              utf8proc_option_t options)
{
    enum { LONGEST = 18 }; /* code points that one decomposes to: U+FDFA */
    size_t capacity = n + LONGEST, at = 0, length;
    int32_t *codes = malloc(2 * capacity * sizeof *codes);
    for (size_t i = 0; i < n && codes != NULL; i += length) {
        const int32_t c = (int32_t)utf8_decode(text + i, &length);
        if (capacity - at < LONGEST) {
            capacity += capacity / 2 + LONGEST;
            int32_t *grown = realloc(codes, 2 * capacity * sizeof *codes);
            if (grown == NULL) free(codes);
            codes = grown;
            if (codes == NULL) break;
        }
        int boundary = 0;
        at += (size_t)utf8proc_decompose_char(c, codes + at, LONGEST, options, &boundary);
    }
    if (codes == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory to normalise %zu bytes", n);
    order_marks(codes, codes + capacity, at);
    *out = codes;
    *count = at;
    return CUDPO_OK;
}

static cudpo_status normal_form(buffer *out, const char *text, size_t n, step_kind form)
{
    int32_t *codes = NULL;
    size_t count = 0;
    const utf8proc_option_t options = form_options(form);
    CUDPO_TRY(decompose(&codes, &count, text, n, options));
    if (form == NFC || form == NFKC)
        count = (size_t)utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)count, options);
    cudpo_status status = buffer_reserve(out, UTF8_MAX * count);
    if (status == CUDPO_OK) {
        for (size_t i = 0; i < count; i++)
            out->size += utf8_encode(out->data + out->size, (uint32_t)codes[i]);
        out->data[out->size] = '\0';
    }
    free(codes);
    return status;
}

static cudpo_status run_step(const normalizer_step *step, buffer *out, const buffer *text,
                             regex_scratch *scratch)
{
    switch (step->kind) {
    case PREPEND:
        CUDPO_TRY(buffer_append(out, step->text, strlen(step->text)));
        return buffer_append(out, text->data, text->size);
    case REPLACE:
        return regex_replace(out, step->pattern, scratch, text->data, text->size, step->text);
    default:
        return normal_form(out, text->data, text->size, step->kind);
    }
}

cudpo_status normalizer_run(const normalizer *z, buffer *text, buffer *spare,
                            regex_scratch *scratch)
{
    for (int i = 0; i < z->n; i++) {
        const normalizer_step *step = &z->steps[i];
        if (text->size == 0 && step->kind != REPLACE)
            continue; /* nothing is prepended to nothing */
        if (step->kind < PREPEND && is_inert(step->kind, text->data, text->size)) continue;
        buffer_clear(spare);
        CUDPO_TRY(run_step(step, spare, text, scratch));
        const buffer done = *spare;
        *spare = *text;
        *text = done;
    }
    return CUDPO_OK;
}
