/* build.h - a preference file read, tokenised on all cores and written as a cache. */
#ifndef CUDPO_DATA_BUILD_H
#define CUDPO_DATA_BUILD_H

#include "base/hash.h"
#include "cudpo/status.h"
#include "data/cache.h"
#include "data/dataset.h"

#include <stdio.h>

/** Write the cache of `path` to `stream`.  The bytes are the same whatever the number of threads.
 *  In:      where  names the stream in messages.        key  goes into the footer.
 *  Returns: as dataset_open(); the stream holds anything after a failure. */
CUDPO_MUST_USE cudpo_status dataset_build(FILE *stream, const char *path, const tokenizer *t,
                                          const dataset_options *options, const char *where,
                                          hash128 key);

#endif /* CUDPO_DATA_BUILD_H */
