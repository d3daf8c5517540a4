/* unicode.h - code points of UTF-8 text, and the classes of characters that tokenizers ask about. */
#ifndef CUDPO_TEXT_UNICODE_H
#define CUDPO_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF8_MAX = 4 }; /* bytes of one code point */

/* True where all n bytes are well-formed UTF-8; otherwise *bad is the offset of the first that is not. */
bool utf8_valid(const char *s, size_t n, size_t *bad);

/* The code point at `s`, which starts a well-formed one, and the bytes that it takes. */
uint32_t utf8_decode(const char *s, size_t *length);

/* The same for the code point that ends right before `end`; there is one. */
uint32_t utf8_decode_before(const char *end, size_t *length);

/* Writes the code point and returns its bytes. */
size_t utf8_encode(char out[UTF8_MAX], uint32_t c);

bool unicode_is_space(uint32_t c);       /* White_Space */
bool unicode_is_numeric(uint32_t c);     /* Nd, Nl or No */
bool unicode_is_punctuation(uint32_t c); /* P, and the ASCII symbols that sit on a keyboard */

/* Byte-level tokenizers write each byte as one printable character: the printable bytes of Latin-1 as
 * themselves, the other 68 as U+0100, U+0101, ... in order.  Source: encoder.py of OpenAI's GPT-2. */
uint32_t byte_level_char(unsigned char byte);
int byte_level_byte(uint32_t c); /* -1 where c stands for no byte */

#endif /* CUDPO_TEXT_UNICODE_H */
