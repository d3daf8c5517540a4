/* checkpoint_shards.h - moments and master weights in as many files as there were ranks that shared them out: zero_stage 1.
 *
 * optimizer-RRRRR-of-NNNNN.safetensors, of rank R of N, holds exp_avg, exp_avg_sq and, of a policy in bfloat16 that has master
 * weights, master: each [n] float32, a run of the block of all parameters, which stand there in the order of model/weights.c.  Its
 * metadata say which: "begin" is the run's first element, "all" how many elements the block has.  The shards of a checkpoint
 * cover the block, in the order of their numbers, so that any number of ranks can read what they need of them. */
#ifndef CUDPO_TRAIN_CHECKPOINT_SHARDS_H
#define CUDPO_TRAIN_CHECKPOINT_SHARDS_H

#include "train/checkpoint.h"

/* What a rank writes. */
typedef struct checkpoint_shard {
    backend *be;
    int rank, ranks;
    int64_t begin, all; /* elements */
    tensor run
        [CHECKPOINT_TENSORS]; /* f32, dense; that of the weights is absent where they are no master weights */
} checkpoint_shard;

enum { SHARD_NAME = 56 };
void shard_name(char out[SHARD_NAME], int rank, int ranks);
bool shard_is_name(const char *name);

/** Write it, durably.  Out: entry  for the manifest. */
CUDPO_MUST_USE cudpo_status shard_write(manifest_entry *entry, const checkpoint_shard *s,
                                        const char *folder);

/** Elements `begin` and following of what the `shards` shards in a folder hold.
 *  Out:     found  false where the tensor is in none of them: `run` is untouched.
 *           run    dense.
 *  In:      all    elements of the block.
 *  Returns: CUDPO_OK; CUDPO_EDATA naming the file that is not what shard_write() wrote. */
CUDPO_MUST_USE cudpo_status shard_read(bool *found, backend *be, tensor run, int64_t begin,
                                       int64_t all, checkpoint_tensors which, const char *folder,
                                       int64_t shards);

#endif /* CUDPO_TRAIN_CHECKPOINT_SHARDS_H */
