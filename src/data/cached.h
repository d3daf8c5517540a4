/* cached.h - the file in the cache folder that holds the ids of one preference file under one tokenizer and set of options. */
#ifndef CUDPO_DATA_CACHED_H
#define CUDPO_DATA_CACHED_H

#include "data/cache.h"
#include "data/dataset.h"

#include <stdbool.h>

/* Who makes it holds its lock.  {0} is safe to end. */
typedef struct cached {
    const char *path; /* of the preference file: the caller's, as the next two */
    const tokenizer *tokenizer;
    const dataset_options *options;
    hash128 key;
    char *file, *lock;  /* paths in the cache folder */
    int lock_file;      /* its descriptor + 1; 0: not open */
    cache_map map;      /* memory NULL: there is none, or none that is good */
    const char *damage; /* why one that is there is not good; NULL */
} cached;

/** Where it is, and make the folder.  Returns: CUDPO_OK; as hash_file() and file_make_folder(). */
CUDPO_MUST_USE cudpo_status cached_begin(cached *c, const char *path, const tokenizer *t,
                                         const dataset_options *options);

/** Map it where there is a good one. */
CUDPO_MUST_USE cudpo_status cached_look(cached *c);

/* Take the lock if nobody has it, or (wait) when nobody has it any more.  Advisory, and released when this process ends; where the
 * file system has no locks, two may make the same cache one after the other, which is a waste and no harm. */
bool cached_lock(cached *c, bool wait);
void cached_unlock(cached *c);

/* In the cache folder, in new memory: what belongs to this cache, with `end` behind its name; NULL if memory ran out. */
char *cached_name(const cached *c, const char *end);

/* Say that one is damaged, where it is: before it is made anew. */
void cached_warn(const cached *c);

/** Map what was just published under the cache's name, which must be good. */
CUDPO_MUST_USE cudpo_status cached_take(cached *c);

void cached_end(cached *c); /* but for the map */

#endif /* CUDPO_DATA_CACHED_H */
