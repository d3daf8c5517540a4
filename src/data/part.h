/* part.h - files beside a cache that is being made: the rows of each of several processes, and all of them together again.
 *
 *   row | row | ... | end
 *   row: a header, then its records as they stand in the cache;  end: a header without a row, then a checksum of all before
 *
 * Its writer keeps a part locked, so one that nobody has locked, and that is an hour old, is the
 * leftover of a process that was killed. */
#ifndef CUDPO_DATA_PART_H
#define CUDPO_DATA_PART_H

#include "base/hash.h"
#include "cudpo/status.h"
#include "data/block.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A part that is being written.  {0} is safe to remove. */
typedef struct part_file {
    char *path;
    FILE *stream;
    hash_state *checksum;
} part_file;

/** Returns: CUDPO_OK; CUDPO_EWRITE, CUDPO_EPERM; also where there is a file of that name. */
CUDPO_MUST_USE cudpo_status part_create(part_file *p, const char *path);
CUDPO_MUST_USE cudpo_status part_put(part_file *p, const built_row *row);
/** No more of them.  In: rows  of the whole file.  It can be read now, on other machines too. */
CUDPO_MUST_USE cudpo_status part_finish(part_file *p, int64_t rows);
void part_remove(part_file *p);

/* Parts 0 .. n-1 of one file: its rows in order. */
typedef struct part_join part_join;

/** Open finished parts.  In: path [n].  Returns: CUDPO_OK; as file_open(). */
CUDPO_MUST_USE cudpo_status part_join_open(part_join **out, char *const *path, int32_t n,
                                           int64_t vocabulary);

/** Out:     row   valid until the next call;  done  true, and no row, behind the last one.
 *  Returns: CUDPO_OK; CUDPO_EWRITE where a part is not what was written, or not all rows are there. */
CUDPO_MUST_USE cudpo_status part_join_next(part_join *j, built_row *row, bool *done);
void part_join_close(part_join *j); /* NULL is fine */

/* Of caches in the folder, remove the parts that nobody writes any more.  Files with `own` in their names stay; NULL: none has. */
void part_sweep(const char *folder, const char *own);

#endif /* CUDPO_DATA_PART_H */
