/* manifest.h - what a complete folder holds: name, size and XXH3 of every file, in manifest.json, which is written last and
 * ends with a checksum of itself. */
#ifndef CUDPO_TRAIN_MANIFEST_H
#define CUDPO_TRAIN_MANIFEST_H

#include "base/hash.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

#define MANIFEST_NAME "manifest.json"

/* What a manifest says of a file.  Ranks send these to rank 0, so none of its bytes is padding. */
typedef struct manifest_entry {
    char name[56];
    int64_t bytes;
    hash128 hash;
} manifest_entry;

/** Size and checksum of a file, by whoever wrote it.
 *  Returns: CUDPO_OK; CUDPO_EINVAL: a longer name; as file_open(). */
CUDPO_MUST_USE cudpo_status manifest_measure(manifest_entry *out, const char *folder,
                                             const char *name);

/** Write the manifest of a folder that holds regular files only, under a number that it vouches for.
 *  In:      known  [known_count] files that others wrote and measured: they are listed as these say, which is what they are compared with.
 *  Returns: CUDPO_OK; CUDPO_EWRITE and the like. */
CUDPO_MUST_USE cudpo_status manifest_write(const char *folder, int64_t step,
                                           const manifest_entry *known, int64_t known_count);

/** Read every file that the manifest lists, and compare.  Files that it does not list are ignored.
 *  Out:     step       the number that it was written with.
 *  In:      needed     names that it must list, NULL-terminated.
 *           from_disk  ask the system to drop cached pages first, so that what was stored is read, not what was meant.
 *  Returns: CUDPO_OK; CUDPO_EDATA naming the file that is missing, damaged or not what the manifest says; CUDPO_EPERM;
 *           CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status manifest_verify(int64_t *step, const char *folder,
                                            const char *const *needed, bool from_disk);

/** Of a folder that was verified: does its manifest list all of these names, too?
 *  Returns: CUDPO_OK; CUDPO_EDATA naming one that it does not list. */
CUDPO_MUST_USE cudpo_status manifest_lists(const char *folder, const char *const *needed);

#endif /* CUDPO_TRAIN_MANIFEST_H */
