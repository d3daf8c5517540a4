/* tokenizer.h - Hugging Face tokenizer folders: text to ids and back, exactly as the `tokenizers` library does. */
#ifndef CUDPO_TEXT_TOKENIZER_H
#define CUDPO_TEXT_TOKENIZER_H

#include "base/buffer.h"
#include "base/hash.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tokenizer tokenizer; /* immutable after load: threads may share it */

/* A growing list of ids; {0} is empty. */
typedef struct token_list {
    int32_t *ids;
    int64_t n, capacity;
} token_list;

void token_list_free(token_list *list);

/** Load tokenizer.json, and bos/eos/pad/unk from tokenizer_config.json or special_tokens_map.json, from a folder; or a
 *  tokenizer.json alone where `path` is a file.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA naming the file, the part and the reason, also for a component
 *           that is not supported (it is named, with those that are). */
CUDPO_MUST_USE cudpo_status tokenizer_load(tokenizer **out, const char *path);
void tokenizer_free(tokenizer *t);

/** Append the ids of `text` (n bytes of UTF-8).
 *  In:      add_special  run the post-processor (BOS and the like), as add_special_tokens=True.
 *  Returns: CUDPO_OK; CUDPO_EDATA for invalid UTF-8; CUDPO_ENOMEM.  `out` is unchanged on failure. */
CUDPO_MUST_USE cudpo_status tokenizer_encode(const tokenizer *t, token_list *out, const char *text,
                                             size_t n, bool add_special);

/** Append the text of ids; ids outside the vocabulary add nothing.
 *  In:      skip_special  leave out special added tokens. */
CUDPO_MUST_USE cudpo_status tokenizer_decode(const tokenizer *t, buffer *out, const int32_t *ids,
                                             int64_t n, bool skip_special);

int64_t tokenizer_size(const tokenizer *t); /* largest id + 1 */

/* Ids and texts of special tokens; -1 and NULL where the tokenizer has none.  pad falls back to eos. */
int32_t tokenizer_bos(const tokenizer *t);
int32_t tokenizer_eos(const tokenizer *t);
int32_t tokenizer_pad(const tokenizer *t);
const char *tokenizer_eos_text(const tokenizer *t);

hash128 tokenizer_fingerprint(const tokenizer *t); /* of everything that decides ids */

#endif /* CUDPO_TEXT_TOKENIZER_H */
