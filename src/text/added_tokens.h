/* added_tokens.h - tokenizer.json's "added_tokens": texts that are one id wherever they stand. */
#ifndef CUDPO_TEXT_ADDED_TOKENS_H
#define CUDPO_TEXT_ADDED_TOKENS_H

#include "base/json.h"
#include "cudpo/status.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/vocab.h"

enum { ADDED_TOKEN_MAX_BYTES = 1024 };

typedef struct added_token {
    char *text; /* what is looked for: as in the file, or normalised */
    size_t n;   /* bytes of text */
    int32_t id;
    bool single_word, lstrip, rstrip;
} added_token;

/* Tokens that are looked for together. */
typedef struct token_set {
    added_token *list; /* sorted by text */
    int64_t n, capacity;
    int32_t first[257]; /* list[first[b]] .. list[first[b + 1] - 1] begin with byte b */
    bool any_single_word;
} token_set;

typedef struct added_tokens {
    token_set raw;        /* normalized: false; looked for in the text as it comes */
    token_set normalized; /* normalized: true; looked for after the normalizer */
    uint8_t *is_special;  /* [size of the vocabulary] */
    regex *word_char;     /* a character of a word, for single_word; NULL where none asks */
} added_tokens;

/** How many there are, and the largest id + 1 (0 without any): vocab_load() needs both. */
CUDPO_MUST_USE cudpo_status added_tokens_measure(int64_t *count, int64_t *size, const json *list,
                                                 const char *where);

/** Read them.  Those that the model's vocabulary lacks are added to `tokens` under the id given; for those that it has,
 *  the ids must be the same.
 *  Returns: CUDPO_OK; CUDPO_EDATA with the token and what is wrong. */
CUDPO_MUST_USE cudpo_status added_tokens_load(added_tokens *out, const json *list, vocab *tokens,
                                              const normalizer *z, const char *where);
void added_tokens_free(added_tokens *a);

/* A walk over a text: plain parts and added tokens in turn, none of them empty but all in order. */
typedef struct token_walk {
    const added_tokens *added;
    const token_set *set;
    regex_scratch *scratch;
    const char *text;
    size_t n;
    size_t done;         /* end of the last part given out */
    size_t at;           /* where the search for the next match begins */
    bool held;           /* a match was found and waits behind the plain part before it */
    size_t begin, end;   /* the part that token_walk_next() gives */
    int32_t id, held_id; /* -1: a plain part */
    size_t held_end;
} token_walk;

token_walk token_walk_over(const added_tokens *added, const token_set *set, regex_scratch *scratch,
                           const char *text, size_t n);

/* The next part, or *more = false. */
CUDPO_MUST_USE cudpo_status token_walk_next(token_walk *walk, bool *more);

#endif /* CUDPO_TEXT_ADDED_TOKENS_H */
