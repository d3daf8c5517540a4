/* share.h - a cache that several processes make together: each tokenises a part of the rows, one puts the parts together. */
#ifndef CUDPO_DATA_SHARE_H
#define CUDPO_DATA_SHARE_H

#include "data/cached.h"

/** Map the cache on every process of options->company, made where it is absent or damaged.  Those that see one another's files in
 *  their cache folders share the work; where each machine has a folder of its own, those of one machine do.  The bytes are those
 *  that one process writes.
 *  In/Out:  c  begun.
 *  Returns: as dataset_open(), of the first bad row of the file on all of them; how the company failed. */
CUDPO_MUST_USE cudpo_status share_open(cached *c);

#endif /* CUDPO_DATA_SHARE_H */
