/* split.h - a JSONL file or one top-level JSON array, cut into the texts of its rows in constant memory. */
#ifndef CUDPO_DATA_SPLIT_H
#define CUDPO_DATA_SPLIT_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROW_MAX_BYTES = 16 << 20 }; /* of one row's text */

typedef struct row_splitter row_splitter;

/** Open a file: .jsonl, .json with one array, or either in gzip; its first character tells which.
 *  Returns: as byte_source_open(). */
CUDPO_MUST_USE cudpo_status row_splitter_open(row_splitter **out, const char *path);

/** The text of the next row, owned by the splitter until the next call.  It is cut at the right place where the file is
 *  valid JSON; only a parser tells whether it is.
 *  Out:     text [n]; line  1-based, where the row begins; done  true, and no text, at the end of the file.
 *  Returns: CUDPO_OK; CUDPO_EDATA as "path:line: reason"; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status row_splitter_next(row_splitter *s, const char **text, size_t *n,
                                              int64_t *line, bool *done);
bool row_splitter_array(
    const row_splitter *s); /* of the file of the last row: an array, whose lines say little */
double row_splitter_share(
    const row_splitter *s); /* of the file's bytes, how much was read: 0 .. 1 */
void row_splitter_close(row_splitter *s);

#endif /* CUDPO_DATA_SPLIT_H */
