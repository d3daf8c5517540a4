/* post_processor.h - tokenizer.json's "post_processor": the ids before and behind those of a text. */
#ifndef CUDPO_TEXT_POST_PROCESSOR_H
#define CUDPO_TEXT_POST_PROCESSOR_H

#include "base/json.h"
#include "cudpo/status.h"
#include "text/tokenizer.h"

enum { POST_TEXT = -1 }; /* stands for the ids of the text; none of them is negative */

/** Append to `out` the ids around one text, and POST_TEXT where the text's own stand: {POST_TEXT} for null.
 *  In:      size  ids must be below.
 *  Returns: CUDPO_OK; CUDPO_EDATA for a type that is not supported or is malformed. */
CUDPO_MUST_USE cudpo_status post_processor_load(token_list *out, const json *component,
                                                int64_t size, const char *where);

#endif /* CUDPO_TEXT_POST_PROCESSOR_H */
