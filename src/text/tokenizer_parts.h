/* tokenizer_parts.h - what a tokenizer is made of; tokenizer_load.c fills it, tokenizer.c runs it. */
#ifndef CUDPO_TEXT_TOKENIZER_PARTS_H
#define CUDPO_TEXT_TOKENIZER_PARTS_H

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct tokenizer {
    vocab tokens;
    added_tokens added;
    normalizer normal;
    pre_tokenizer pre;
    bpe model;
    token_list post; /* ids around a text; POST_TEXT: the text's own */
    decoder decode;
    int32_t bos, eos, pad; /* -1: none */
    hash128 fingerprint;
};

#endif /* CUDPO_TEXT_TOKENIZER_PARTS_H */
