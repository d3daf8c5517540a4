/* pre_tokenizer.c - the steps; what each does is that of the `tokenizers` library (pre_tokenizers/). */
#include "text/pre_tokenizer.h"
#include "text/load.h"
#include "text/splitter.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef enum step_kind {
    BYTE_LEVEL,
    SPLIT,
    DIGITS,
    PUNCTUATION,
    METASPACE,
    WHITESPACE,
    WHITESPACE_SPLIT,
    STEP_KINDS
} step_kind;
static const char *const step_names[STEP_KINDS] = {
    "ByteLevel", "Split", "Digits", "Punctuation", "Metaspace", "Whitespace", "WhitespaceSplit"};

static const char *const behavior_names[SPLIT_BEHAVIORS] = {
    "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};

typedef enum prepend_scheme { ALWAYS, FIRST, NEVER, PREPEND_SCHEMES } prepend_scheme;
static const char *const prepend_names[PREPEND_SCHEMES] = {"always", "first", "never"};

/* Source: encoder.py of OpenAI's GPT-2. */
static const char GPT2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char WORDS[] = "\\w+|[^\\w\\s]+"; /* of Whitespace */

struct pre_tokenizer_step {
    step_kind kind;
    split_behavior behavior;
    regex *pattern;         /* NULL: a test of single characters, or no cut at all */
    bool invert;            /* matches and what lies between them change places */
    bool prefix_space;      /* BYTE_LEVEL */
    prepend_scheme prepend; /* METASPACE */
    uint32_t mark;          /* METASPACE: the character that stands for a space */
    bool split;             /* METASPACE */
};

static cudpo_status load_split(pre_tokenizer_step *step, const json *component, const char *where)
{
    const json *behavior;
    int choice;
    CUDPO_TRY(load_pattern(&step->pattern, component, where));
    CUDPO_TRY(load_bool(&step->invert, component, "invert", false, where));
    CUDPO_TRY(load_member(&behavior, component, "behavior", JSON_STRING, where));
    CUDPO_TRY(load_choice(&choice, json_string(behavior), behavior_names, SPLIT_BEHAVIORS,
                          "behavior", where));
    step->behavior = (split_behavior)choice;
    return CUDPO_OK;
}

static cudpo_status load_metaspace(pre_tokenizer_step *step, const json *component,
                                   const char *where)
{
    const char *mark, *scheme;
    bool add_prefix_space;
    int choice;
    CUDPO_TRY(load_string(&mark, component, "replacement", "\xe2\x96\x81", where));
    CUDPO_TRY(load_bool(&add_prefix_space, component, "add_prefix_space", true, where));
    CUDPO_TRY(load_string(&scheme, component, "prepend_scheme",
                          add_prefix_space ? "always" : "never", where));
    CUDPO_TRY(
        load_choice(&choice, scheme, prepend_names, PREPEND_SCHEMES, "prepend_scheme", where));
    CUDPO_TRY(load_bool(&step->split, component, "split", true, where));
    size_t length = 0;
    if (mark[0] != '\0') step->mark = utf8_decode(mark, &length);
    if (length == 0 || mark[length] != '\0')
        return cudpo_fail(CUDPO_EDATA, where, "replacement \"%.20s\" is not one character", mark);
    step->prepend = (prepend_scheme)choice;
    step->behavior = SPLIT_MERGED_WITH_NEXT;
    return CUDPO_OK;
}

static cudpo_status load_byte_level(pre_tokenizer_step *step, const json *component,
                                    const char *where)
{
    bool use_regex;
    CUDPO_TRY(load_bool(&step->prefix_space, component, "add_prefix_space", true, where));
    CUDPO_TRY(load_bool(&use_regex, component, "use_regex", true, where));
    step->behavior = SPLIT_ISOLATED;
    return use_regex ? regex_compile(&step->pattern, GPT2, where) : CUDPO_OK;
}

static cudpo_status load_step(void *state, const json *component, const char *type,
                              const char *where)
{
    pre_tokenizer *p = state;
    int kind, choice;
    bool individual;
    const char *behavior;
    CUDPO_TRY(load_choice(&kind, type, step_names, STEP_KINDS, "type", where));
    pre_tokenizer_step *step = &p->steps[p->n++];
    *step = (pre_tokenizer_step){.kind = (step_kind)kind};
    switch (step->kind) {
    case BYTE_LEVEL:
        return load_byte_level(step, component, where);
    case SPLIT:
        return load_split(step, component, where);
    case METASPACE:
        return load_metaspace(step, component, where);
    case DIGITS:
        CUDPO_TRY(load_bool(&individual, component, "individual_digits", false, where));
        step->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
        return CUDPO_OK;
    case PUNCTUATION:
        CUDPO_TRY(load_string(&behavior, component, "behavior", "Isolated", where));
        CUDPO_TRY(
            load_choice(&choice, behavior, behavior_names, SPLIT_BEHAVIORS, "behavior", where));
        step->behavior = (split_behavior)choice;
        return CUDPO_OK;
    case WHITESPACE:
        step->behavior = SPLIT_REMOVED;
        step->invert = true;
        return regex_compile(&step->pattern, WORDS, where);
    default:
        step->behavior = SPLIT_REMOVED;
        return CUDPO_OK;
    }
}

cudpo_status pre_tokenizer_load(pre_tokenizer *out, const json *component, const char *where)
{
    *out = (pre_tokenizer){.steps = calloc(LOAD_MAX_COMPONENTS, sizeof *out->steps)};
    if (out->steps == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
    return load_components(out, component, "pretokenizers", load_step, where);
}

void pre_tokenizer_free(pre_tokenizer *p)
{
    for (int i = 0; i < p->n; i++)
        regex_free(p->steps[i].pattern);
    free(p->steps);
    *p = (pre_tokenizer){0};
}

static splitter splitter_of(const pre_tokenizer_step *step, pieces *out, const piece *from)
{
    return (splitter){
        .out = out, .behavior = step->behavior, .origin = from->at_origin ? from->begin : SIZE_MAX};
}

/* Cut text[from] at the matches of the step's regex. */
static cudpo_status cut_by_regex(const pre_tokenizer_step *step, pieces *out, const char *text,
                                 const piece *from, regex_scratch *scratch)
{
    splitter s = splitter_of(step, out, from);
    regex_walk walk =
        regex_walk_over(step->pattern, scratch, text + from->begin, from->end - from->begin);
    size_t done = from->begin;
    for (;;) {
        bool found;
        CUDPO_TRY(regex_next(&walk, &found));
        const size_t begin = found ? from->begin + walk.begin : from->end;
        if (done != begin) CUDPO_TRY(splitter_add(&s, done, begin, step->invert));
        if (!found) return splitter_end(&s);
        done = from->begin + walk.end;
        CUDPO_TRY(splitter_add(&s, begin, done, !step->invert));
    }
}

static bool is_cut(const pre_tokenizer_step *step, uint32_t c)
{
    switch (step->kind) {
    case DIGITS:
        return unicode_is_numeric(c);
    case PUNCTUATION:
        return unicode_is_punctuation(c);
    case METASPACE:
        return c == step->mark;
    default:
        return unicode_is_space(c);
    }
}

/* Cut text[from] at single characters. */
static cudpo_status cut_by_char(const pre_tokenizer_step *step, pieces *out, const char *text,
                                const piece *from)
{
    splitter s = splitter_of(step, out, from);
    size_t done = from->begin, length;
    for (size_t i = from->begin; i < from->end; i += length) {
        if (!is_cut(step, utf8_decode(text + i, &length))) continue;
        if (done != i) CUDPO_TRY(splitter_add(&s, done, i, false));
        done = i + length;
        CUDPO_TRY(splitter_add(&s, i, done, true));
    }
    if (done != from->end) CUDPO_TRY(splitter_add(&s, done, from->end, false));
    return splitter_end(&s);
}

/* Write text[from] with marks for spaces behind out->text, and cut that. */
static cudpo_status metaspace(const pre_tokenizer_step *step, pieces *out, const char *text,
                              const piece *from)
{
    char mark[UTF8_MAX];
    const size_t mark_length = utf8_encode(mark, step->mark);
    const size_t n = from->end - from->begin;
    const char *s = text + from->begin;
    const piece whole = {.begin = out->text.size, .at_origin = from->at_origin};
    const bool starts =
        n > 0 && (*s == ' ' || (n >= mark_length && memcmp(s, mark, mark_length) == 0));
    if (!starts && (step->prepend == ALWAYS || (step->prepend == FIRST && from->at_origin)))
        CUDPO_TRY(buffer_append(&out->text, mark, mark_length));
    for (size_t i = 0, done = 0; i <= n; i++) {
        if (i < n && s[i] != ' ') continue;
        CUDPO_TRY(buffer_append(&out->text, s + done, i - done));
        if (i < n) CUDPO_TRY(buffer_append(&out->text, mark, mark_length));
        done = i + 1;
    }
    piece rewritten = whole;
    rewritten.end = out->text.size;
    if (step->split) return cut_by_char(step, out, out->text.data, &rewritten);
    return pieces_add(out, rewritten.begin, rewritten.end, rewritten.at_origin);
}

/* Write text[from], cut into pieces already, as byte-level characters. */
static cudpo_status to_byte_level(pieces *out, const char *text, const piece *from)
{
    const size_t begin = out->text.size;
    CUDPO_TRY(buffer_reserve(&out->text, 2 * (from->end - from->begin)));
    char *to = out->text.data + begin;
    for (size_t i = from->begin; i < from->end; i++)
        to += utf8_encode(to, byte_level_char((unsigned char)text[i]));
    *to = '\0';
    out->text.size = (size_t)(to - out->text.data);
    return pieces_add(out, begin, out->text.size, from->at_origin);
}

/* One pass over all pieces that puts a space before those without one. */
static cudpo_status add_prefix_spaces(pieces *out, const pieces *in)
{
    for (int64_t i = 0; i < in->n; i++) {
        const piece *from = &in->list[i];
        const char *s = in->text.data + from->begin;
        const size_t begin = out->text.size;
        if (from->begin == from->end || *s != ' ') CUDPO_TRY(buffer_append(&out->text, " ", 1));
        CUDPO_TRY(buffer_append(&out->text, s, from->end - from->begin));
        CUDPO_TRY(pieces_add(out, begin, out->text.size, from->at_origin));
    }
    return CUDPO_OK;
}

static void swap(pieces *a, pieces *b)
{
    const pieces held = *a;
    *a = *b;
    *b = held;
}

/* Cuts leave the text where it is: only the lists change. */
static cudpo_status cut_all(const pre_tokenizer_step *step, pieces *words, pieces *spare,
                            regex_scratch *scratch)
{
    pieces_clear(spare);
    const char *text = words->text.data;
    for (int64_t i = 0; i < words->n; i++) {
        CUDPO_TRY(step->pattern != NULL ? cut_by_regex(step, spare, text, &words->list[i], scratch)
                                        : cut_by_char(step, spare, text, &words->list[i]));
    }
    const buffer kept = words->text;
    words->text = spare->text;
    spare->text = kept;
    swap(words, spare);
    return CUDPO_OK;
}

static cudpo_status run_step(const pre_tokenizer_step *step, pieces *words, pieces *spare,
                             regex_scratch *scratch)
{
    if (step->kind == BYTE_LEVEL && step->prefix_space) {
        pieces_clear(spare);
        CUDPO_TRY(add_prefix_spaces(spare, words));
        swap(words, spare);
    }
    if (step->kind != METASPACE && (step->kind != BYTE_LEVEL || step->pattern != NULL))
        CUDPO_TRY(cut_all(step, words, spare, scratch));
    if (step->kind != METASPACE && step->kind != BYTE_LEVEL) return CUDPO_OK;

    pieces_clear(spare);
    for (int64_t i = 0; i < words->n; i++) {
        CUDPO_TRY(step->kind == METASPACE
                      ? metaspace(step, spare, words->text.data, &words->list[i])
                      : to_byte_level(spare, words->text.data, &words->list[i]));
    }
    swap(words, spare);
    return CUDPO_OK;
}

cudpo_status pre_tokenizer_run(const pre_tokenizer *p, pieces *words, pieces *spare,
                               regex_scratch *scratch)
{
    for (int i = 0; i < p->n; i++)
        CUDPO_TRY(run_step(&p->steps[i], words, spare, scratch));
    return CUDPO_OK;
}
