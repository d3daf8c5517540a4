/* encode.h - one row of text as records of token ids, by TRL's rules of tokenisation and truncation. */
#ifndef CUDPO_DATA_ENCODE_H
#define CUDPO_DATA_ENCODE_H

#include "base/buffer.h"
#include "cudpo/status.h"
#include "data/dataset.h"

/* Memory that encode_row() reuses: one a thread.  {0} is empty. */
typedef struct encode_scratch {
    buffer text;
    token_list prompt, full[MAX_COMPLETIONS];
} encode_scratch;

void encode_scratch_free(encode_scratch *s);

/* What a row gives: one record, or two where a pair serves as labelled rows.  {0} is empty. */
typedef struct encoded_row {
    buffer record[MAX_COMPLETIONS]; /* as cache_writer_put() takes it; empty where there is none */
    bool dropped[MAX_COMPLETIONS];  /* its prompt fills max_length */
    bool unaligned;                 /* the prompt's ids are no prefix of the whole row's */
} encoded_row;

void encoded_row_free(encoded_row *e);

/** Encode `row`.
 *  In/Out:  s    scratch.       out  overwritten.
 *  In:      where  "path:line" of the row.
 *  Returns: CUDPO_OK; CUDPO_EDATA if the tokenizer refuses the text; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status encode_row(encoded_row *out, encode_scratch *s,
                                       const preference_row *row, const tokenizer *t,
                                       const dataset_options *options, const char *where);

#endif /* CUDPO_DATA_ENCODE_H */
