/* regex_syntax.c - Ruby's regex syntax, as Oniguruma reads it, said in PCRE2's.
 *
 * Nearly all of what tokenizers use is the same in both.  What differs is rewritten where that is exact, and refused
 * otherwise, for a regex that is silently read otherwise splits words wrongly:
 *   \s \S   PCRE2 has U+180E among them               written out
 *   \w \W   PCRE2 leaves marks out                     written out
 *   \h \H   hexadecimal digits; horizontal space       written out
 *   \v      U+000B; vertical space                     written out
 *   \p{Han} PCRE2 means Script_Extensions              \p{sc:Han}
 *   \uXXXX  unknown to PCRE2                           \x{XXXX}
 *   && and [ in a class (intersection, union), (?m), options in the middle, {,n}, {n}+, {n}?, \b: refused. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#define SPACE                                                                                    \
    "\\t-\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}" \
    "\\x{3000}"
#define NO_SPACE                                                                               \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{" \
    "1FFF}"                                                                                    \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"             \
    "\\x{3001}-\\x{10FFFF}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX "0-9A-Fa-f"

typedef struct translator {
    buffer *out;
    const char *start, *at; /* of the pattern */
    const char *where;
    bool in_class;
} translator;

static cudpo_status refuse(const translator *t, const char *what)
{
    return cudpo_fail(CUDPO_EDATA, t->where, "regex \"%.60s\": %s at byte %zu is not supported",
                      t->start, what, (size_t)(t->at - t->start));
}

static cudpo_status put(translator *t, const char *text)
{
    return buffer_append(t->out, text, strlen(text));
}

/* Copies `n` bytes of the pattern as they are. */
static cudpo_status copy(translator *t, size_t n)
{
    CUDPO_TRY(buffer_append(t->out, t->at, n));
    t->at += n;
    return CUDPO_OK;
}

/* A set of characters: inside a class as it is, outside in brackets. */
static cudpo_status put_set(translator *t, const char *set)
{
    if (t->in_class && ((t->at[2] == '-' && t->at[3] != ']') ||
                        (t->at[-1] == '-' && t->at[-2] != '[' && t->at[-2] != '^')))
        return refuse(t, "a range with a set as its end");
    t->at += 2;
    if (t->in_class) return put(t, set);
    CUDPO_TRY(put(t, "["));
    CUDPO_TRY(put(t, set));
    return put(t, "]");
}

static cudpo_status put_complement(translator *t, const char *set)
{
    if (t->in_class) return refuse(t, "a negated set in a class");
    t->at += 2;
    CUDPO_TRY(put(t, "[^"));
    CUDPO_TRY(put(t, set));
    return put(t, "]");
}

static bool is_script(const char *name, size_t n)
{
    char pattern[80];
    snprintf(pattern, sizeof pattern, "\\p{sc:%.*s}", (int)n, name);
    int code;
    PCRE2_SIZE offset;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &offset, NULL);
    pcre2_code_free(re);
    return re != NULL;
}

/* \p{...} and \P{...}: categories and binary properties have the same names in both, scripts need "sc:". */
static cudpo_status property(translator *t)
{
    if (t->at[2] != '{') return refuse(t, "a property without braces");
    const char *name = t->at + 3;
    const bool negated = *name == '^';
    if (negated) name++;
    const size_t n = strcspn(name, "}");
    if (name[n] == '\0' || n == 0 || n > 60) return refuse(t, "this property");
    if (memchr(name, ':', n) != NULL || memchr(name, '=', n) != NULL ||
        memchr(name, '^', n) != NULL)
        return refuse(t, "this property");
    if (!is_script(name, n)) return copy(t, (size_t)(name - t->at) + n + 1);
    CUDPO_TRY(buffer_printf(t->out, "\\%c{%ssc:%.*s}", t->at[1], negated ? "^" : "", (int)n, name));
    t->at = name + n + 1;
    return CUDPO_OK;
}

static size_t hex_digits(const char *s)
{
    return strspn(s, "0123456789abcdefABCDEF");
}

static cudpo_status code_point(translator *t)
{
    const char *digits = t->at + 2;
    if (t->at[1] == 'u') {
        if (hex_digits(digits) < 4) return refuse(t, "\\u without four digits");
        CUDPO_TRY(buffer_printf(t->out, "\\x{%.4s}", digits));
        t->at += 6;
        return CUDPO_OK;
    }
    if (*digits == '{') {
        const size_t n = hex_digits(digits + 1);
        if (n < 1 || n > 8 || digits[1 + n] != '}') return refuse(t, "this \\x{}");
        return copy(t, n + 4);
    }
    /* \x80 and above are bytes of UTF-8 in Ruby. */
    if (hex_digits(digits) < 2 || digits[0] > '7') return refuse(t, "this \\x");
    return copy(t, 4);
}

static cudpo_status escape(translator *t)
{
    const char c = t->at[1];
    switch (c) {
    case '\0':
        return refuse(t, "a \\ at the end");
    case 's':
        return put_set(t, SPACE);
    case 'S':
        return put_set(t, NO_SPACE);
    case 'w':
        return put_set(t, WORD);
    case 'W':
        return put_complement(t, WORD);
    case 'h':
        return put_set(t, HEX);
    case 'H':
        return put_complement(t, HEX);
    case 'v':
        t->at += 2;
        return put(t, "\\x0B");
    case 'p':
    case 'P':
        return property(t);
    case 'u':
    case 'x':
        return code_point(t);
    default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const char *known = t->in_class ? "dDnrtfae" : "dDnrtfaeAzZR123456789";
    if (letter && strchr(known, c) == NULL) return refuse(t, "this escape");
    return copy(t, 2);
}

/* A bracket that opens a class, or stands in one. */
static cudpo_status bracket(translator *t)
{
    if (!t->in_class) {
        t->in_class = true;
        CUDPO_TRY(copy(t, 1));
        if (*t->at == '^') CUDPO_TRY(copy(t, 1));
        return *t->at == ']' ? refuse(t, "] as the first of a class") : CUDPO_OK;
    }
    static const char *const same[] = {"[:digit:]", "[:xdigit:]", "[:punct:]"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (strncmp(t->at, same[i], strlen(same[i])) == 0) return copy(t, strlen(same[i]));
    }
    return refuse(t, "[ in a class");
}

static cudpo_status group(translator *t)
{
    if (t->at[1] == '*') return refuse(t, "(*");
    if (t->at[1] != '?') return copy(t, 1);
    const char c = t->at[2];
    if (c != '\0' && strchr(":=!><", c) != NULL) return copy(t, 3);
    /* Options: in Ruby, m is what others call s, and (?i) reaches over | where it stands inside. */
    const size_t flags = strspn(t->at + 2, "i-");
    const char end = t->at[2 + flags];
    if (flags == 0 || (end != ':' && !(end == ')' && t->at == t->start)))
        return refuse(t, "this kind of group");
    return copy(t, 3 + flags);
}

/* {n}, {n,} and {n,m} mean the same in both, but not what follows them. */
static cudpo_status interval(translator *t)
{
    if (t->at[1] == ',') return refuse(t, "{,n}");
    const size_t low = strspn(t->at + 1, "0123456789");
    const char *p = t->at + 1 + low;
    const bool range = low > 0 && *p == ',';
    if (range) p += 1 + strspn(p + 1, "0123456789");
    if (low == 0 || *p != '}') return copy(t, 1); /* a literal brace */
    p++;
    if (*p == '+' || (*p == '?' && !range)) return refuse(t, "{} with + or ? behind it");
    return copy(t, (size_t)(p - t->at));
}

cudpo_status regex_translate(buffer *out, const char *pattern, const char *where)
{
    translator t = {.out = out, .start = pattern, .at = pattern, .where = where};
    CUDPO_TRY(put(&t, "")); /* an empty pattern has a text, too */
    while (*t.at != '\0') {
        switch (*t.at) {
        case '\\':
            CUDPO_TRY(escape(&t));
            break;
        case '[':
            CUDPO_TRY(bracket(&t));
            break;
        case ']':
            t.in_class = false;
            CUDPO_TRY(copy(&t, 1));
            break;
        case '&':
            if (t.in_class && t.at[1] == '&') return refuse(&t, "&& in a class");
            CUDPO_TRY(copy(&t, 1));
            break;
        case '(':
            CUDPO_TRY(t.in_class ? copy(&t, 1) : group(&t));
            break;
        case '{':
            CUDPO_TRY(t.in_class ? copy(&t, 1) : interval(&t));
            break;
        default:
            CUDPO_TRY(copy(&t, 1));
        }
    }
    return CUDPO_OK;
}
