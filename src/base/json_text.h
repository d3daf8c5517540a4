/* json_text.h - walking through JSON text in memory without building a tree: for headers too large for one, and
 * for changing a value of a file while every other byte stays.
 *
 * The text must have been accepted by json_scan() and have a NUL behind it; then nothing here can fail or run
 * past its end.  Object:  p = json_text_open(text); while (json_text_next(&p)) { p = json_text_string(p, &key);
 * p = json_text_value(p); ... p = json_text_skip(p); } */
#ifndef CUDPO_BASE_JSON_TEXT_H
#define CUDPO_BASE_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* The first character that is not white space. */
char *json_text_space(char *p);

/* p is at '[' or '{' (white space before it is skipped): what follows the bracket. */
char *json_text_open(char *p);

/* Go to the next item of the opened list or object; false, and p behind the closing bracket, when there is none. */
bool json_text_next(char **p);

/* p is behind a key: the value of that member. */
char *json_text_value(char *p);

/* p is at a value: what follows it. */
char *json_text_skip(char *p);

/* p is at a string: what follows it.  It is decoded in place and *out is NUL-terminated, so its text can't be
 * walked a second time. */
char *json_text_string(char *p, char **out);

#endif /* CUDPO_BASE_JSON_TEXT_H */
