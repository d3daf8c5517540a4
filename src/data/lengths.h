/* lengths.h - how long the examples of a preference file are. */
#ifndef CUDPO_DATA_LENGTHS_H
#define CUDPO_DATA_LENGTHS_H

#include "cudpo/status.h"
#include "data/dataset.h"
#include "text/tokenizer.h"

#include <stdint.h>

enum { BYTES_PER_TOKEN = 4 }; /* of English text, about, in a vocabulary of 100,000 */

/* {0} is empty. */
typedef struct length_list {
    example_lengths *lengths; /* [count], owned */
    int64_t count;
    int64_t dropped; /* examples left out because their prompts fill max_length */
} length_list;

/** Lengths of the examples that dataset_open() makes of a file, in its order.
 *  In:      t  the tokenizer that counts; NULL: BYTES_PER_TOKEN of text are a token, what is left over is one, and every
 *              completion has one more, its end.  Labelled examples then stand pair by pair.
 *           o  with cache_dir, where the ids are kept.
 *  Returns: CUDPO_OK; as dataset_open(). */
CUDPO_MUST_USE cudpo_status lengths_read(length_list *out, const char *path, const tokenizer *t,
                                         const dataset_options *o);
void lengths_free(length_list *l);

#endif /* CUDPO_DATA_LENGTHS_H */
