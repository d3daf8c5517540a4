/* reference_cache.h - log-probs of the reference, per token, on disk: computed once for weights, tokens and precision.
 *
 * The file holds, for every sequence of every example in order, the float32 log-prob of each scored token, so that sums,
 * averages and other truncations need no new pass.  Its name is a fingerprint of everything that the values depend on. */
#ifndef CUDPO_TRAIN_REFERENCE_CACHE_H
#define CUDPO_TRAIN_REFERENCE_CACHE_H

#include "base/hash.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct reference_cache reference_cache;

/** Open a complete cache file for reading.
 *  In:      folder      where caches live;  key  fingerprint of weights, tokens, precision, layout.
 *           sequences   how many sequences it must hold.
 *  Out:     found       false, and *out NULL, where there is none or it is damaged (named in a warning). */
CUDPO_MUST_USE cudpo_status reference_cache_open(reference_cache **out, bool *found,
                                                 const char *folder, hash128 key,
                                                 int64_t sequences);

/** Sum of a sequence's log-probs, in order, in double, rounded to float: what a resident reference would give. */
float reference_cache_score(const reference_cache *c, int64_t sequence);
/** Its log-probs, one per scored token. */
const float *reference_cache_tokens(const reference_cache *c, int64_t sequence, int64_t *n);
void reference_cache_close(reference_cache *c);

/** Write a cache: sequences in order, each once; it appears complete at commit, or not at all. */
typedef struct reference_cache_writer reference_cache_writer;
CUDPO_MUST_USE cudpo_status reference_cache_create(reference_cache_writer **out, const char *folder,
                                                   hash128 key, int64_t sequences);
CUDPO_MUST_USE cudpo_status reference_cache_put(reference_cache_writer *w, const float *logp,
                                                int64_t n);
CUDPO_MUST_USE cudpo_status reference_cache_commit(reference_cache_writer *w); /* frees w */
void reference_cache_abandon(reference_cache_writer *w); /* frees w; NULL is fine */

#endif /* CUDPO_TRAIN_REFERENCE_CACHE_H */
