/* decoder.h - tokenizer.json's "decoder": the texts of tokens back to what a person reads. */
#ifndef CUDPO_TEXT_DECODER_H
#define CUDPO_TEXT_DECODER_H

#include "base/json.h"
#include "cudpo/status.h"
#include "text/pieces.h"
#include "text/regex.h"

typedef struct decoder_step decoder_step;
typedef struct decoder {
    decoder_step *steps;
    int n;
} decoder;

/** Returns: CUDPO_OK, also for null; CUDPO_EDATA for a type that is not supported or is malformed. */
CUDPO_MUST_USE cudpo_status decoder_load(decoder *out, const json *component, const char *where);
void decoder_free(decoder *d);

/* `tokens` has a piece for each token; what it holds afterwards is to be read from left to right.  Without steps, tokens
 * are joined by spaces.  `spare` is overwritten. */
CUDPO_MUST_USE cudpo_status decoder_run(const decoder *d, pieces *tokens, pieces *spare,
                                        regex_scratch *scratch);

#endif /* CUDPO_TEXT_DECODER_H */
