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

/** Is the row one for those options?  A file of the wrong kind is told at its first one.
 *  Returns: CUDPO_OK; CUDPO_EDATA as "path:line: what is needed". */
CUDPO_MUST_USE cudpo_status dataset_check_row(const preference_row *row, const char *path,
                                              const dataset_options *options);

#endif /* CUDPO_DATA_BUILD_H */
