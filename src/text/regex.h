/* regex.h - the regular expressions of tokenizer.json (Oniguruma's Ruby syntax), run by PCRE2. */
#ifndef CUDPO_TEXT_REGEX_H
#define CUDPO_TEXT_REGEX_H

#include "base/buffer.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct regex regex; /* immutable: threads may share it */

/* A regex, or a text taken literally.  `where` is kept for messages.
 * Returns: CUDPO_OK; CUDPO_EDATA where PCRE2 can't run it as Oniguruma does, with the reason. */
CUDPO_MUST_USE cudpo_status regex_compile(regex **out, const char *pattern, const char *where);
CUDPO_MUST_USE cudpo_status regex_compile_literal(regex **out, const char *text, const char *where);
void regex_free(regex *re);

/* What matching writes to; one for all the work on one text, in one thread.  {.bytes = size of the text} is ready. */
typedef struct regex_scratch {
    size_t bytes;                           /* what the time allowed is derived from */
    void *match_data, *context, *jit_stack; /* of PCRE2; NULL before the first match */
    double cpu_limit;                       /* seconds on the CPU clock of this thread */
    int starts;                             /* tried since that clock was last read */
} regex_scratch;

void regex_scratch_free(regex_scratch *scratch);

/* A walk over the matches in a text of valid UTF-8, from left to right, as onig::Regex::find_iter. */
typedef struct regex_walk {
    const regex *re;
    regex_scratch *scratch;
    const char *text;
    size_t n;
    size_t at;         /* where the next search begins */
    size_t last_end;   /* of the match before; SIZE_MAX: none yet */
    size_t begin, end; /* the match that regex_next() found */
} regex_walk;

regex_walk regex_walk_over(const regex *re, regex_scratch *scratch, const char *text, size_t n);

/* Returns: CUDPO_OK and *found; CUDPO_EDATA where the regex takes more steps or time than any sane one. */
CUDPO_MUST_USE cudpo_status regex_next(regex_walk *walk, bool *found);

/* Append `text` to `out` with every match replaced. */
CUDPO_MUST_USE cudpo_status regex_replace(buffer *out, const regex *re, regex_scratch *scratch,
                                          const char *text, size_t n, const char *by);

/* Ruby syntax to PCRE2's, or CUDPO_EDATA with what can't be said in it.  (regex_syntax.c) */
CUDPO_MUST_USE cudpo_status regex_translate(buffer *out, const char *pattern, const char *where);

#endif /* CUDPO_TEXT_REGEX_H */
