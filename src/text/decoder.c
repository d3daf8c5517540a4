/* decoder.c - the steps; what each does is that of the `tokenizers` library (decoders/). */
#include "text/decoder.h"
#include "base/json_scan.h"
#include "text/load.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef enum step_kind {
    BYTE_LEVEL,
    REPLACE,
    BYTE_FALLBACK,
    FUSE,
    STRIP,
    METASPACE,
    STEP_KINDS
} step_kind;
static const char *const step_names[STEP_KINDS] = {"ByteLevel", "Replace", "ByteFallback",
                                                   "Fuse",      "Strip",   "Metaspace"};

struct decoder_step {
    step_kind kind;
    regex *pattern;      /* REPLACE */
    char *by;            /* REPLACE */
    uint32_t mark;       /* STRIP, METASPACE: a character */
    int64_t start, stop; /* STRIP: at most so many of it from either end */
    bool drops_first;    /* METASPACE: the first token begins with a mark that was put there */
};

static cudpo_status load_char(uint32_t *out, const json *component, const char *key,
                              const char *otherwise, const char *where)
{
    const char *text;
    CUDPO_TRY(load_string(&text, component, key, otherwise, where));
    size_t length = 0;
    if (text != NULL && text[0] != '\0') *out = utf8_decode(text, &length);
    if (length == 0 || text[length] != '\0')
        return cudpo_fail(CUDPO_EDATA, where, "%s must be one character", key);
    return CUDPO_OK;
}

static cudpo_status load_step(void *state, const json *component, const char *type,
                              const char *where)
{
    decoder *d = state;
    int kind;
    const json *content;
    const char *scheme;
    bool prefix;
    CUDPO_TRY(load_choice(&kind, type, step_names, STEP_KINDS, "type", where));
    decoder_step *step = &d->steps[d->n++];
    *step = (decoder_step){.kind = (step_kind)kind};
    switch (step->kind) {
    case REPLACE:
        CUDPO_TRY(load_member(&content, component, "content", JSON_STRING, where));
        step->by = strdup(json_string(content));
        if (step->by == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
        return load_pattern(&step->pattern, component, where);
    case STRIP:
        CUDPO_TRY(load_integer(&step->start, component, "start", 0, INT32_MAX, where));
        CUDPO_TRY(load_integer(&step->stop, component, "stop", 0, INT32_MAX, where));
        return load_char(&step->mark, component, "content", NULL, where);
    case METASPACE:
        CUDPO_TRY(load_bool(&prefix, component, "add_prefix_space", true, where));
        CUDPO_TRY(
            load_string(&scheme, component, "prepend_scheme", prefix ? "always" : "never", where));
        step->drops_first = strcmp(scheme, "never") != 0;
        return load_char(&step->mark, component, "replacement", "\xe2\x96\x81", where);
    default:
        return CUDPO_OK;
    }
}

cudpo_status decoder_load(decoder *out, const json *component, const char *where)
{
    *out = (decoder){.steps = calloc(LOAD_MAX_COMPONENTS, sizeof *out->steps)};
    if (out->steps == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
    return load_components(out, component, "decoders", load_step, where);
}

void decoder_free(decoder *d)
{
    for (int i = 0; i < d->n; i++) {
        regex_free(d->steps[i].pattern);
        free(d->steps[i].by);
    }
    free(d->steps);
    *d = (decoder){0};
}

static cudpo_status add_piece(pieces *out, size_t begin)
{
    return pieces_add(out, begin, out->text.size, false);
}

/* Appends bytes as text: what is no UTF-8 becomes U+FFFD, one for each longest beginning of a character (Unicode 3.9,
 * "maximal subpart"), as Rust's from_utf8_lossy. */
static cudpo_status append_lossy(buffer *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        const size_t length = utf8_length(s + i, n - i);
        if (length > 0) {
            CUDPO_TRY(buffer_append(out, s + i, length));
            i += length;
            continue;
        }
        /* A beginning of k bytes is one that some further bytes would complete. */
        size_t k = 1;
        const unsigned char lead = (unsigned char)s[i];
        const size_t whole = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
        while (lead >= 0xc2 && lead <= 0xf4 && k + 1 < whole && i + k < n) {
            char tried[UTF8_MAX] = {s[i], s[i + 1], '\x80', '\x80'};
            if (k > 1) tried[2] = s[i + 2];
            if (utf8_length(tried, whole) != whole) break;
            k++;
        }
        CUDPO_TRY(buffer_append(out, "\xef\xbf\xbd", 3));
        i += k;
    }
    return CUDPO_OK;
}

/* All tokens to one piece: the bytes that their characters stand for; a token with any other character counts as it is. */
static cudpo_status byte_level(pieces *out, const pieces *in)
{
    buffer bytes = {0};
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < in->n && status == CUDPO_OK; i++) {
        const char *s = in->text.data + in->list[i].begin;
        const size_t n = in->list[i].end - in->list[i].begin, before = bytes.size;
        status = buffer_reserve(&bytes, n);
        size_t length;
        for (size_t at = 0; at < n && status == CUDPO_OK; at += length) {
            const int byte = byte_level_byte(utf8_decode(s + at, &length));
            if (byte < 0) {
                bytes.size = before;
                status = buffer_append(&bytes, s, n);
                break;
            }
            bytes.data[bytes.size++] = (char)byte;
        }
    }
    if (status == CUDPO_OK) status = append_lossy(&out->text, bytes.data, bytes.size);
    buffer_free(&bytes);
    return status == CUDPO_OK ? add_piece(out, 0) : status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

/* The byte that a token like <0x0A> stands for, or -1. */
static int fallback_byte(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    const int high = hex_digit(s[3]), low = hex_digit(s[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens is one piece where it is UTF-8, and a U+FFFD for each otherwise. */
static cudpo_status flush_bytes(pieces *out, const buffer *run)
{
    if (run->size == 0) return CUDPO_OK;
    size_t bad, begin = out->text.size;
    if (utf8_valid(run->data, run->size, &bad)) {
        CUDPO_TRY(buffer_append(&out->text, run->data, run->size));
        return add_piece(out, begin);
    }
    for (size_t i = 0; i < run->size; i++, begin = out->text.size) {
        CUDPO_TRY(buffer_append(&out->text, "\xef\xbf\xbd", 3));
        CUDPO_TRY(add_piece(out, begin));
    }
    return CUDPO_OK;
}

static cudpo_status byte_fallback(pieces *out, const pieces *in)
{
    buffer run = {0};
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < in->n && status == CUDPO_OK; i++) {
        const char *s = in->text.data + in->list[i].begin;
        const size_t n = in->list[i].end - in->list[i].begin;
        const int byte = fallback_byte(s, n);
        if (byte >= 0) {
            const char c = (char)byte;
            status = buffer_append(&run, &c, 1);
            continue;
        }
        status = flush_bytes(out, &run);
        buffer_clear(&run);
        const size_t begin = out->text.size;
        if (status == CUDPO_OK) status = buffer_append(&out->text, s, n);
        if (status == CUDPO_OK) status = add_piece(out, begin);
    }
    if (status == CUDPO_OK) status = flush_bytes(out, &run);
    buffer_free(&run);
    return status;
}

static cudpo_status fuse(pieces *out, const pieces *in, const char *between)
{
    for (int64_t i = 0; i < in->n; i++) {
        if (i > 0) CUDPO_TRY(buffer_append(&out->text, between, strlen(between)));
        CUDPO_TRY(buffer_append(&out->text, in->text.data + in->list[i].begin,
                                in->list[i].end - in->list[i].begin));
    }
    return add_piece(out, 0);
}

/* Narrow each piece by the marks at its ends. */
static void strip(const decoder_step *step, pieces *tokens)
{
    const char *text = tokens->text.data;
    for (int64_t i = 0; i < tokens->n; i++) {
        piece *p = &tokens->list[i];
        size_t length;
        for (int64_t k = 0; k < step->start && p->begin < p->end; k++) {
            if (utf8_decode(text + p->begin, &length) != step->mark) break;
            p->begin += length;
        }
        for (int64_t k = 0; k < step->stop && p->begin < p->end; k++) {
            if (utf8_decode_before(text + p->end, &length) != step->mark) break;
            p->end -= length;
        }
    }
}

/* Marks to spaces; in the first token, where one was put before the text, to nothing. */
static cudpo_status metaspace(const decoder_step *step, pieces *out, const char *s, size_t n,
                              bool is_first)
{
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        const bool is_mark = utf8_decode(s + i, &length) == step->mark;
        if (is_mark && is_first && step->drops_first) continue;
        CUDPO_TRY(is_mark ? buffer_append(&out->text, " ", 1)
                          : buffer_append(&out->text, s + i, length));
    }
    return CUDPO_OK;
}

/* Steps that rewrite each token by itself. */
static cudpo_status each(const decoder_step *step, pieces *out, const pieces *in,
                         regex_scratch *scratch)
{
    for (int64_t i = 0; i < in->n; i++) {
        const char *s = in->text.data + in->list[i].begin;
        const size_t n = in->list[i].end - in->list[i].begin, begin = out->text.size;
        CUDPO_TRY(step->kind == METASPACE
                      ? metaspace(step, out, s, n, i == 0)
                      : regex_replace(&out->text, step->pattern, scratch, s, n, step->by));
        CUDPO_TRY(add_piece(out, begin));
    }
    return CUDPO_OK;
}

cudpo_status decoder_run(const decoder *d, pieces *tokens, pieces *spare, regex_scratch *scratch)
{
    for (int i = 0; i < (d->n > 0 ? d->n : 1); i++) {
        const decoder_step *step = &d->steps[i];
        if (d->n > 0 && step->kind == STRIP) {
            strip(step, tokens);
            continue;
        }
        pieces_clear(spare);
        if (d->n == 0) {
            CUDPO_TRY(fuse(spare, tokens, " "));
        } else if (step->kind == BYTE_LEVEL) {
            CUDPO_TRY(byte_level(spare, tokens));
        } else if (step->kind == BYTE_FALLBACK) {
            CUDPO_TRY(byte_fallback(spare, tokens));
        } else if (step->kind == FUSE) {
            CUDPO_TRY(fuse(spare, tokens, ""));
        } else {
            CUDPO_TRY(each(step, spare, tokens, scratch));
        }
        const pieces done = *spare;
        *spare = *tokens;
        *tokens = done;
    }
    return CUDPO_OK;
}
