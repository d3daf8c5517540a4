/* build.h - a cache of token ids from the rows of a preference file, in their order. */
#ifndef CUDPO_DATA_BUILD_H
#define CUDPO_DATA_BUILD_H

#include "base/buffer.h"
#include "base/hash.h"
#include "cudpo/status.h"
#include "data/block.h"
#include "data/cache.h"
#include "data/dataset.h"

#include <stdio.h>
#include <time.h>

/** Write the cache of `path` to `stream`.  The bytes are the same whatever the number of threads.
 *  In:      where  names the stream in messages.        key  goes into the footer.
 *  Returns: as dataset_open(); the stream holds anything after a failure. */
CUDPO_MUST_USE cudpo_status dataset_build(FILE *stream, const char *path, const tokenizer *t,
                                          const dataset_options *options, const char *where,
                                          hash128 key);

/* The same from rows that are put one after another, all of the file.  {0} is safe to abandon. */
typedef struct cache_build {
    const char *path; /* the caller's, as the options and what cache_writer_begin() takes */
    const dataset_options *options;
    cache_writer writer;
    cache_totals totals;
    buffer held; /* records of rejected completions that wait for the chosen ones before them */
    int held_rows;
} cache_build;

CUDPO_MUST_USE cudpo_status cache_build_begin(cache_build *b, FILE *stream, const char *where,
                                              const char *path, const dataset_options *options);
CUDPO_MUST_USE cudpo_status cache_build_put(cache_build *b, const built_row *row);
/** Returns: CUDPO_OK; CUDPO_EDATA where no example is left; CUDPO_EWRITE. */
CUDPO_MUST_USE cudpo_status cache_build_finish(cache_build *b, hash128 key);
void cache_build_abandon(cache_build *b);

/* How far tokenisation is, to be said when it is due: once in a while, and not within the first seconds.  {0} begins. */
typedef struct build_progress {
    time_t said;
} build_progress;
bool build_progress_due(build_progress *p);
void build_progress_say(const char *path, row_progress at);

#endif /* CUDPO_DATA_BUILD_H */
