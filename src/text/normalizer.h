/* normalizer.h - tokenizer.json's "normalizer": what happens to a text before it is cut. */
#ifndef CUDPO_TEXT_NORMALIZER_H
#define CUDPO_TEXT_NORMALIZER_H

#include "base/buffer.h"
#include "base/json.h"
#include "cudpo/status.h"
#include "text/regex.h"

typedef struct normalizer_step normalizer_step;
typedef struct normalizer {
    normalizer_step *steps;
    int n;
} normalizer;

/** Returns: CUDPO_OK, also for null; CUDPO_EDATA for a type that is not supported or is malformed. */
CUDPO_MUST_USE cudpo_status normalizer_load(normalizer *out, const json *component,
                                            const char *where);
void normalizer_free(normalizer *z);

/* Replace the text in `text`; `spare` is overwritten. */
CUDPO_MUST_USE cudpo_status normalizer_run(const normalizer *z, buffer *text, buffer *spare,
                                           regex_scratch *scratch);

#endif /* CUDPO_TEXT_NORMALIZER_H */
