/* source.h - the bytes of a text file, plain or gzip, in chunks. */
#ifndef CUDPO_DATA_SOURCE_H
#define CUDPO_DATA_SOURCE_H

#include "cudpo/status.h"

#include <stddef.h>

typedef struct byte_source byte_source;

/** Open a regular file.  What it holds is told by its first bytes, not by its name.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EPERM; CUDPO_EDATA if it is not a regular file, or in a format that is
 *           known and not read here (parquet, zstd, ...): the message says how to convert it; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status byte_source_open(byte_source **out, const char *path);

/** The next chunk, owned by the source until the next call; n = 0 at the end, and only there.
 *  In:      where  names the place in the text for the message, "path:line".
 *  Returns: CUDPO_OK; CUDPO_EDATA if the file can't be read or its gzip data are damaged or end too early. */
CUDPO_MUST_USE cudpo_status byte_source_next(byte_source *s, const char **data, size_t *n,
                                             const char *where);
/* How much of the file's bytes was read: 0 .. 1. */
double byte_source_share(const byte_source *s);
void byte_source_close(byte_source *s);

#endif /* CUDPO_DATA_SOURCE_H */
