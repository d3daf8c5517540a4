/* json_scan.c - a recursive-descent recogniser of RFC 8259; it builds nothing. */
#include "base/json_scan.h"

#include <string.h>

typedef struct scanner {
    const char *text;
    size_t n, at;
    int depth, max_depth;
    const char *reason;
} scanner;

static bool value(scanner *s);

static bool fail(scanner *s, const char *reason)
{
    s->reason = reason;
    return false;
}

static int peek(const scanner *s)
{
    return s->at < s->n ? (unsigned char)s->text[s->at] : -1;
}

static void space(scanner *s)
{
    while (s->at < s->n) {
        const char c = s->text[s->at];
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n') return;
        s->at++;
    }
}

size_t utf8_length(const char *p, size_t n)
{
    const unsigned char *s = (const unsigned char *)p;
    if (n == 0) return 0;
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xc2) return 0;
    if (s[0] < 0xe0) return n >= 2 && (s[1] & 0xc0) == 0x80 ? 2 : 0;
    if (s[0] < 0xf0) {
        if (n < 3 || (s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80) return 0;
        if (s[0] == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
        if (s[0] == 0xed && s[1] > 0x9f) return 0; /* surrogate */
        return 3;
    }
    if (s[0] > 0xf4 || n < 4) return 0;
    if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
    return 4;
}

/* The four hex digits of a \u escape, or -1. */
static long hex4(scanner *s)
{
    long code = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        const int c = peek(s);
        int digit;
        if (c >= '0' && c <= '9') {
            digit = c - '0';
        } else if (c >= 'a' && c <= 'f') {
            digit = c - 'a' + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = c - 'A' + 10;
        } else {
            return -1;
        }
        code = code * 16 + digit;
    }
    return code;
}

static bool escape(scanner *s)
{
    const int c = peek(s);
    if (c != 'u') {
        if (c < 0 || memchr("\"\\/bfnrt", c, 8) == NULL) return fail(s, "unknown escape");
        s->at++;
        return true;
    }
    s->at++;
    const long code = hex4(s);
    if (code < 0) return fail(s, "\\u needs four hex digits");
    if (code == 0) return fail(s, "\\u0000 is not accepted in text");
    if (code >= 0xdc00 && code <= 0xdfff) return fail(s, "lone surrogate");
    if (code >= 0xd800 && code <= 0xdbff) {
        if (s->n - s->at < 2 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u')
            return fail(s, "lone surrogate");
        s->at += 2;
        const long low = hex4(s);
        if (low < 0xdc00 || low > 0xdfff) return fail(s, "lone surrogate");
    }
    return true;
}

static bool string(scanner *s)
{
    if (peek(s) != '"') return fail(s, "expected a string");
    s->at++;
    for (;;) {
        int c = peek(s);
        while (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') { /* nearly all of a text */
            s->at++;
            c = peek(s);
        }
        if (c < 0) return fail(s, "string without end");
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c == '\\') {
            s->at++;
            if (!escape(s)) return false;
        } else if (c < 0x20) {
            return fail(s, "control character in a string");
        } else {
            const size_t length = utf8_length(s->text + s->at, s->n - s->at);
            if (length == 0) return fail(s, "invalid UTF-8");
            s->at += length;
        }
    }
}

static bool digits(scanner *s)
{
    if (peek(s) < '0' || peek(s) > '9') return fail(s, "malformed number");
    while (peek(s) >= '0' && peek(s) <= '9')
        s->at++;
    return true;
}

static bool number(scanner *s)
{
    const size_t begin = s->at;
    if (peek(s) == '-') s->at++;
    if (peek(s) == '0') {
        s->at++;
    } else if (!digits(s)) {
        return false;
    }
    if (peek(s) == '.') {
        s->at++;
        if (!digits(s)) return false;
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') s->at++;
        if (!digits(s)) return false;
    }
    if (s->at - begin > JSON_MAX_NUMBER) return fail(s, "number with too many digits");
    return true;
}

static bool literal(scanner *s, const char *word)
{
    const size_t length = strlen(word);
    if (s->n - s->at < length || memcmp(s->text + s->at, word, length) != 0)
        return fail(s, "expected a value");
    s->at += length;
    return true;
}

/* The members after '[' or '{', up to and with the closing bracket. */
static bool members(scanner *s, char close, bool keys)
{
    s->at++;
    space(s);
    if (peek(s) == close) {
        s->at++;
        return true;
    }
    for (;;) {
        space(s);
        if (keys) {
            if (!string(s)) return false;
            space(s);
            if (peek(s) != ':') return fail(s, "expected ':'");
            s->at++;
        }
        if (!value(s)) return false;
        space(s);
        if (peek(s) == close) {
            s->at++;
            return true;
        }
        if (peek(s) != ',') return fail(s, "expected ',' or the closing bracket");
        s->at++;
    }
}

static bool value(scanner *s)
{
    space(s);
    switch (peek(s)) {
    case '{':
    case '[': {
        const bool object = peek(s) == '{';
        if (s->depth == s->max_depth) return fail(s, "nested too deeply");
        s->depth++;
        if (!members(s, object ? '}' : ']', object)) return false;
        s->depth--;
        return true;
    }
    case '"':
        return string(s);
    case 't':
        return literal(s, "true");
    case 'f':
        return literal(s, "false");
    case 'n':
        return literal(s, "null");
    case -1:
        return fail(s, "unexpected end");
    default:
        if (peek(s) == '-' || (peek(s) >= '0' && peek(s) <= '9')) return number(s);
        return fail(s, "expected a value");
    }
}

bool json_scan(const char *text, size_t n, int max_depth, size_t *offset, const char **reason)
{
    scanner s = {.text = text, .n = n, .max_depth = max_depth};
    bool ok = value(&s);
    if (ok) {
        space(&s);
        if (s.at != n) ok = fail(&s, "text after the value");
    }
    *offset = s.at;
    *reason = s.reason;
    return ok;
}
