/* json_text.c - no bounds are checked here: json_scan() has found every bracket and quotation mark closed. */
#include "base/json_text.h"

#include <string.h>

char *json_text_space(char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')
        p++;
    return p;
}

char *json_text_open(char *p)
{
    return json_text_space(p) + 1;
}

bool json_text_next(char **p)
{
    char *at = json_text_space(*p);
    const bool end = *at == ']' || *at == '}';
    if (end || *at == ',') at++;
    *p = end ? at : json_text_space(at);
    return !end;
}

char *json_text_value(char *p)
{
    return json_text_space(json_text_space(p) + 1); /* the colon */
}

static char *skip_string(char *p)
{
    for (p++; *p != '"'; p++) {
        if (*p == '\\') p++;
    }
    return p + 1;
}

char *json_text_skip(char *p)
{
    int depth = 0;
    do {
        p = json_text_space(p);
        if (*p == '"') {
            p = skip_string(p);
        } else if (*p == '[' || *p == '{') {
            depth++;
            p++;
        } else if (*p == ']' || *p == '}') {
            depth--;
            p++;
        } else if (*p == ',' || *p == ':') {
            p++;
        } else { /* a number or a word */
            p += strcspn(p, " \t\r\n,]}");
        }
    } while (depth > 0);
    return p;
}

static unsigned hex4(const char *p)
{
    unsigned code = 0;
    for (int i = 0; i < 4; i++) {
        const char c = p[i];
        const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
        code = code * 16 + (unsigned)digit;
    }
    return code;
}

static char *put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* Decoded text is never longer than its escapes, so it fits where they stood. */
char *json_text_string(char *p, char **out)
{
    char *to = ++p;
    *out = to;
    while (*p != '"') {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        static const char escapes[] = "bfnrt", meant[] = "\b\f\n\r\t";
        const char *simple = strchr(escapes, p[1]);
        if (p[1] != 'u') {
            *to++ = simple != NULL ? meant[simple - escapes] : p[1];
            p += 2;
            continue;
        }
        unsigned code = hex4(p + 2);
        p += 6;
        if (code >= 0xd800 && code <= 0xdbff) {
            code = 0x10000 + ((code - 0xd800) << 10) + (hex4(p + 2) - 0xdc00);
            p += 6;
        }
        to = put_utf8(to, code);
    }
    *to = '\0';
    return p + 1;
}
