/* made.h - examples of given lengths and random ids, as the cache of a data set. */
#ifndef CUDPO_DATA_MADE_H
#define CUDPO_DATA_MADE_H

#include "base/hash.h"
#include "data/dataset.h"

#include <stdio.h>

/** Write the cache of such examples.  In: where, key  as dataset_build() takes them.
 *  Returns: CUDPO_OK; CUDPO_EWRITE, CUDPO_ENOMEM: the stream holds anything. */
CUDPO_MUST_USE cudpo_status made_write(FILE *stream, const made_examples *made, const char *where,
                                       hash128 key);

#endif /* CUDPO_DATA_MADE_H */
