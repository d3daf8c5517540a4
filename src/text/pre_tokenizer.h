/* pre_tokenizer.h - tokenizer.json's "pre_tokenizer": how a text is cut into words before BPE. */
#ifndef CUDPO_TEXT_PRE_TOKENIZER_H
#define CUDPO_TEXT_PRE_TOKENIZER_H

#include "base/json.h"
#include "cudpo/status.h"
#include "text/pieces.h"
#include "text/regex.h"

typedef struct pre_tokenizer_step pre_tokenizer_step;
typedef struct pre_tokenizer {
    pre_tokenizer_step *steps;
    int n;
} pre_tokenizer;

/** Returns: CUDPO_OK, also for null; CUDPO_EDATA for a type that is not supported or is malformed. */
CUDPO_MUST_USE cudpo_status pre_tokenizer_load(pre_tokenizer *out, const json *component,
                                               const char *where);
void pre_tokenizer_free(pre_tokenizer *p);

/* Cut the pieces of `words` further; their text may be rewritten.  `spare` is overwritten. */
CUDPO_MUST_USE cudpo_status pre_tokenizer_run(const pre_tokenizer *p, pieces *words, pieces *spare,
                                              regex_scratch *scratch);

#endif /* CUDPO_TEXT_PRE_TOKENIZER_H */
