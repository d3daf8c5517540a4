/* nearest.h - what was probably meant by a mistyped name. */
#ifndef CUDPO_BASE_NEAREST_H
#define CUDPO_BASE_NEAREST_H

#include <stdint.h>

/* The name that a typed one is a slip of: it is a few insertions, deletions and changes of a character away (about one in
 * four; '-' is '_', case does not count), or begins like it.  NULL where none is that near. */
const char *nearest_name(const char *typed, const char *const *names, int64_t n);

#endif /* CUDPO_BASE_NEAREST_H */
