/* regex.c - PCRE2 with its JIT.
 *
 * The subject is validated once by the caller, and PCRE2_NO_UTF_CHECK passed: the default checks the rest of the text
 * again at each match, which is quadratic.  A hostile regex is stopped by PCRE2's match limit within one start
 * position, and by the CPU clock, read every few start positions, across them. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_PATTERN = 64 * 1024, /* bytes; the longest known is under 4 KB */
    MAX_GROWTH = 32,         /* bytes that replacing may make of one; a space to U+2581 makes 3 */
    WINDOW = 64,             /* start positions between two looks at the clock */
    JIT_STACK_START = 64 * 1024,
    JIT_STACK_MAX = 8 * 1024 * 1024,
};

/* CPU seconds that all walks over a text may take: 100 times what the regexes of real tokenizers need. */
static const double BASE_SECONDS = 2.0, SECONDS_PER_BYTE = 1e-6;

struct regex {
    pcre2_code *code;
    char *where;
};

static cudpo_status compile(regex **out, const char *pattern, uint32_t options, const char *where)
{
    *out = NULL;
    regex *re = calloc(1, sizeof *re);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    cudpo_status status = CUDPO_OK;
    if (re != NULL) re->where = strdup(where);
    if (re == NULL || re->where == NULL || context == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, where, "no memory for a regex");
        goto out;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF); /* not what the library was built with */
    pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
    int code = 0;
    PCRE2_SIZE offset = 0;
    re->code =
        pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern), options, &code, &offset, context);
    if (re->code == NULL) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(code, reason, sizeof reason);
        status = cudpo_fail(code == PCRE2_ERROR_NOMEMORY ? CUDPO_ENOMEM : CUDPO_EDATA, where,
                            "regex \"%.60s\": %s", pattern, (const char *)reason);
        goto out;
    }
    (void)pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* without it, the interpreter runs */
    *out = re;
    re = NULL;
out:
    pcre2_compile_context_free(context);
    regex_free(re);
    return status;
}

cudpo_status regex_compile(regex **out, const char *pattern, const char *where)
{
    *out = NULL;
    if (strlen(pattern) > MAX_PATTERN)
        return cudpo_fail(CUDPO_EDATA, where, "a regex of %zu bytes; the limit is %d",
                          strlen(pattern), MAX_PATTERN);
    buffer translated = {0};
    cudpo_status status = regex_translate(&translated, pattern, where);
    if (status == CUDPO_OK) {
        /* ^ and $ match at every line in Ruby syntax. */
        const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                                 PCRE2_USE_OFFSET_LIMIT;
        status = compile(out, translated.data, options, where);
    }
    buffer_free(&translated);
    return status;
}

cudpo_status regex_compile_literal(regex **out, const char *text, const char *where)
{
    *out = NULL;
    if (text[0] == '\0') return cudpo_fail(CUDPO_EDATA, where, "an empty pattern");
    if (strlen(text) > MAX_PATTERN)
        return cudpo_fail(CUDPO_EDATA, where, "a pattern of %zu bytes; the limit is %d",
                          strlen(text), MAX_PATTERN);
    return compile(out, text, PCRE2_UTF | PCRE2_LITERAL | PCRE2_USE_OFFSET_LIMIT, where);
}

void regex_free(regex *re)
{
    if (re == NULL) return;
    pcre2_code_free(re->code);
    free(re->where);
    free(re);
}

void regex_scratch_free(regex_scratch *scratch)
{
    pcre2_match_data_free(scratch->match_data);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->jit_stack);
    *scratch = (regex_scratch){0};
}

regex_walk regex_walk_over(const regex *re, regex_scratch *scratch, const char *text, size_t n)
{
    return (regex_walk){.re = re, .scratch = scratch, .text = text, .n = n, .last_end = SIZE_MAX};
}

static double cpu_seconds(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0) return 0;
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static cudpo_status prepare(regex_scratch *s)
{
    if (s->match_data != NULL && s->context != NULL) return CUDPO_OK;
    if (s->match_data == NULL) s->match_data = pcre2_match_data_create(1, NULL);
    if (s->context == NULL) s->context = pcre2_match_context_create(NULL);
    if (s->match_data == NULL || s->context == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory to match a regex");
    s->cpu_limit = cpu_seconds() + BASE_SECONDS + SECONDS_PER_BYTE * (double)s->bytes;
    s->starts = 0;
    return CUDPO_OK;
}

/* One call of PCRE2, again with a larger stack where its JIT code asks for it. */
static cudpo_status match(regex_walk *walk, size_t limit, bool *found)
{
    regex_scratch *s = walk->scratch;
    pcre2_set_offset_limit(s->context, limit);
    for (;;) {
        const int code = pcre2_match(walk->re->code, (PCRE2_SPTR)walk->text, walk->n, walk->at,
                                     PCRE2_NO_UTF_CHECK, s->match_data, s->context);
        *found = code >= 0;
        if (*found || code == PCRE2_ERROR_NOMATCH) return CUDPO_OK;
        if (code == PCRE2_ERROR_JIT_STACKLIMIT && s->jit_stack == NULL) {
            s->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
            if (s->jit_stack != NULL) {
                pcre2_jit_stack_assign(s->context, NULL, s->jit_stack);
                continue;
            }
        }
        if (code == PCRE2_ERROR_NOMEMORY)
            return cudpo_fail(CUDPO_ENOMEM, walk->re->where, "no memory to match the regex");
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(code, reason, sizeof reason);
        return cudpo_fail(CUDPO_EDATA, walk->re->where,
                          "the regex takes too many steps on a text of %zu bytes: %s", walk->n,
                          (const char *)reason);
    }
}

static size_t next_char(const regex_walk *walk, size_t at)
{
    do {
        at++;
    } while (at < walk->n && ((unsigned char)walk->text[at] & 0xc0) == 0x80);
    return at;
}

/* The first match at or after walk->at. */
static cudpo_status search(regex_walk *walk, bool *found)
{
    regex_scratch *s = walk->scratch;
    for (;;) {
        const size_t limit = walk->n - walk->at > WINDOW ? walk->at + WINDOW : walk->n;
        CUDPO_TRY(match(walk, limit, found));
        if (*found) {
            const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match_data);
            walk->begin = range[0];
            walk->end = range[1];
            assert(walk->at <= walk->begin && walk->begin <= walk->end && walk->end <= walk->n);
        }
        s->starts += (int)((*found ? walk->begin : limit) - walk->at) + 1;
        if (s->starts >= WINDOW) {
            s->starts = 0;
            if (cpu_seconds() > s->cpu_limit)
                return cudpo_fail(CUDPO_EDATA, walk->re->where,
                                  "the regex takes too long on a text of %zu bytes", walk->n);
        }
        if (*found || limit == walk->n) return CUDPO_OK;
        walk->at = next_char(walk, limit);
    }
}

cudpo_status regex_next(regex_walk *walk, bool *found)
{
    CUDPO_TRY(prepare(walk->scratch));
    *found = false;
    while (walk->at <= walk->n) {
        CUDPO_TRY(search(walk, found));
        if (!*found) {
            walk->at = walk->n + 1;
            return CUDPO_OK;
        }
        /* An empty match right behind the match before is none: step over one character. */
        if (walk->begin != walk->end || walk->end != walk->last_end) {
            walk->at = walk->last_end = walk->end;
            return CUDPO_OK;
        }
        *found = false;
        walk->at = next_char(walk, walk->at);
    }
    return CUDPO_OK;
}

cudpo_status regex_replace(buffer *out, const regex *re, regex_scratch *scratch, const char *text,
                           size_t n, const char *by)
{
    regex_walk walk = regex_walk_over(re, scratch, text, n);
    const size_t by_length = strlen(by), limit = out->size + MAX_GROWTH * (scratch->bytes + 1024);
    size_t done = 0;
    bool found;
    for (;;) {
        CUDPO_TRY(regex_next(&walk, &found));
        if (!found) return buffer_append(out, text + done, n - done);
        CUDPO_TRY(buffer_append(out, text + done, walk.begin - done));
        CUDPO_TRY(buffer_append(out, by, by_length));
        if (out->size > limit)
            return cudpo_fail(CUDPO_EDATA, re->where,
                              "replacing grows a text of %zu bytes over %zu", scratch->bytes,
                              limit);
        done = walk.end;
    }
}
