/* quote.c - the narrowest notation that is always read back as it was. */
#include "base/quote.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

cudpo_status quote_shell(buffer *b, const char *word)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        "_@%+:,./-"; /* no '=', which makes the first word of a line an assignment */
    const size_t n = strlen(word);
    if (n > 0 && strspn(word, plain) == n) return buffer_append(b, word, n);
    CUDPO_TRY(buffer_append(b, "'", 1));
    for (const char *c = word; *c != '\0'; c++)
        CUDPO_TRY(*c == '\'' ? buffer_append(b, "'\\''", 4) : buffer_append(b, c, 1));
    return buffer_append(b, "'", 1);
}

cudpo_status quote_shell_words(buffer *b, const char *const *words)
{
    for (; *words != NULL; words++) {
        CUDPO_TRY(buffer_append(b, " ", 1));
        CUDPO_TRY(quote_shell(b, *words));
    }
    return CUDPO_OK;
}

/* The character at *text, which moves behind it; 0 at its end, -1 where it is no UTF-8. */
static int32_t next_character(const char **text)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *c = (const unsigned char *)*text;
    if (c[0] == 0) return 0;
    const int bytes = c[0] < 0x80             ? 1
                      : (c[0] & 0xe0) == 0xc0 ? 2
                      : (c[0] & 0xf0) == 0xe0 ? 3
                      : (c[0] & 0xf8) == 0xf0 ? 4
                                              : 0;
    if (bytes == 0) return -1;
    int32_t value = bytes == 1 ? c[0] : c[0] & (0x7f >> bytes);
    for (int i = 1; i < bytes; i++) {
        if ((c[i] & 0xc0) != 0x80) return -1;
        value = value << 6 | (c[i] & 0x3f);
    }
    if (value < least[bytes] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return -1;
    *text += bytes;
    return value;
}

static cudpo_status quote(buffer *b, const char *text, bool argument)
{
    const char *whole = text;
    CUDPO_TRY(buffer_append(b, "\"", 1));
    for (int32_t c; (c = next_character(&text)) != 0;) {
        const char ascii = (char)c;
        if (c < 0) return cudpo_fail(CUDPO_EDATA, whole, "is no UTF-8");
        if (c == '"' || c == '\\') CUDPO_TRY(buffer_append(b, "\\", 1));
        if (c == '$' && argument) CUDPO_TRY(buffer_append(b, "$", 1));
        if (c >= 0x20 && c < 0x7f)
            CUDPO_TRY(buffer_append(b, &ascii, 1));
        else if (c > 0xffff)
            CUDPO_TRY(buffer_printf(b, "\\U%08x", (unsigned)c));
        else
            CUDPO_TRY(buffer_printf(b, "\\u%04x", (unsigned)c));
    }
    return buffer_append(b, "\"", 1);
}

cudpo_status quote_yaml(buffer *b, const char *text)
{
    return quote(b, text, false);
}

cudpo_status quote_yaml_argument(buffer *b, const char *text)
{
    return quote(b, text, true);
}

/* Printable ASCII in lines that are not empty: what every reader of YAML leaves as it is. */
static bool fits_block(const char *text)
{
    bool begins = true;
    for (; *text != '\0'; text++) {
        if (*text == '\n' && begins) return false;
        if (*text != '\n' && (*text < 0x20 || *text > 0x7e)) return false;
        begins = *text == '\n';
    }
    return begins;
}

cudpo_status quote_yaml_block(buffer *b, const char *text, int indent)
{
    if (*text == '\0' || !fits_block(text)) {
        CUDPO_TRY(quote_yaml(b, text));
        return buffer_append(b, "\n", 1);
    }
    CUDPO_TRY(
        buffer_printf(b, "|2\n")); /* 2: deeper than the key, whatever the first line begins with */
    while (*text != '\0') {
        const size_t n = strcspn(text, "\n");
        CUDPO_TRY(buffer_printf(b, "%*s%.*s\n", indent, "", (int)n, text));
        text += n + 1;
    }
    return CUDPO_OK;
}
