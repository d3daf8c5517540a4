/* manifest.h - what a complete folder holds: name, size and XXH3 of every file, in manifest.json, which is written last and
 * ends with a checksum of itself. */
#ifndef CUDPO_TRAIN_MANIFEST_H
#define CUDPO_TRAIN_MANIFEST_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

#define MANIFEST_NAME "manifest.json"

/** Write the manifest of a folder that holds regular files only, under a number that it vouches for.
 *  Returns: CUDPO_OK; CUDPO_EWRITE and the like. */
CUDPO_MUST_USE cudpo_status manifest_write(const char *folder, int64_t step);

/** Read every file that the manifest lists, and compare.  Files that it does not list are ignored.
 *  Out:     step       the number that it was written with.
 *  In:      needed     names that it must list, NULL-terminated.
 *           from_disk  ask the system to drop cached pages first, so that what was stored is read, not what was meant.
 *  Returns: CUDPO_OK; CUDPO_EDATA naming the file that is missing, damaged or not what the manifest says; CUDPO_EPERM;
 *           CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status manifest_verify(int64_t *step, const char *folder,
                                            const char *const *needed, bool from_disk);

#endif /* CUDPO_TRAIN_MANIFEST_H */
