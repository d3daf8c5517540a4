/* checkpoint.h - a state of training on disk, complete or absent, from which a run goes on bit for bit.
 *
 * OUTPUT_DIR/checkpoint-STEP/ is a model folder (model.safetensors in float32, config, tokenizer) plus exp_avg.safetensors and
 * exp_avg_sq.safetensors (the moments), trainer_state.json and manifest.json (size and XXH3 of every other file, written last).
 * Where ranks share out moments, each writes its own: checkpoint_shards.h.  Master weights that are shared out are in these, too,
 * and model.safetensors is in bfloat16 then.
 * It is built as .checkpoint-STEP.tmp, synced, and renamed. */
#ifndef CUDPO_TRAIN_CHECKPOINT_H
#define CUDPO_TRAIN_CHECKPOINT_H

#include "cudpo/status.h"
#include "model/weights.h"
#include "train/manifest.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CHECKPOINT_SUMS = 64,
    CHECKPOINT_PARTS = 32,
    CHECKPOINT_PART_NAME = 48,
    CHECKPOINT_SHARDS = 4000 /* files that a manifest has room for, less those of a model */
};

/* One thing that must be the same for a resumed run to be the run that was interrupted: what a message calls it, and a hash. */
typedef struct checkpoint_part {
    char name[CHECKPOINT_PART_NAME];
    uint64_t hash;
} checkpoint_part;

/* Everything beside weights and moments.  Doubles are stored so that they come back with the same bits. */
typedef struct checkpoint_state {
    int64_t step;                 /* optimizer steps done */
    int64_t tokens;               /* num_tokens so far */
    double sums[CHECKPOINT_SUMS]; /* metrics since the last log */
    int64_t sum_count;
    checkpoint_part parts[CHECKPOINT_PARTS]; /* data, models, and settings that decide results */
    int64_t part_count;
    char device[16];     /* the backend's name; "" in files of before it was kept */
    int64_t pack_tokens; /* of its packs: what decides the order of sums */
    int64_t pack_groups;
    int64_t batch_ranks; /* whose batches make a step; 0 in files of before there were ranks: 1 */
    int64_t batch_units; /* of a step */
    int64_t shards;      /* files of moments; 0: they are whole */
} checkpoint_state;

typedef enum checkpoint_tensors {
    CHECKPOINT_WEIGHTS,
    CHECKPOINT_FIRST, /* moments */
    CHECKPOINT_SECOND,
    CHECKPOINT_TENSORS
} checkpoint_tensors;

/* Where they come from.  In shards: moments are written by all ranks. */
typedef struct checkpoint_source {
    const model_weights *weights;
    dtype type; /* of model.safetensors: bf16 where shards have master weights */
    const model_weights *first, *second; /* not looked at where there are shards */
    /* Called once the folder is there, where state->shards > 0: all shards are written to it.  Out: entries [shards]. */
    cudpo_status (*shards)(void *context, manifest_entry *entries, const char *folder);
    void *context;
} checkpoint_source;

/** Write OUTPUT_DIR/checkpoint-STEP, verify it, then remove the oldest beyond `keep` (0: keep all; the new one never).
 *  In:      model  the model folder whose config and tokenizer files are copied.
 *  Returns: CUDPO_OK; CUDPO_EWRITE and the like: earlier checkpoints are untouched, no half of a new one is seen. */
CUDPO_MUST_USE cudpo_status checkpoint_save(const char *output_dir, const checkpoint_state *state,
                                            const checkpoint_source *tensors, const char *model,
                                            int64_t keep);

/** The newest complete checkpoint of a run whose manifest verifies; a damaged one is named in a warning and skipped.  One
 *  that a killed save had finished but not yet renamed gets its name here.
 *  Out:     path  in new memory; NULL where there is none.
 *  Returns: CUDPO_OK; CUDPO_EDATA where there are checkpoints and all are damaged: to start anew would be to lose them. */
CUDPO_MUST_USE cudpo_status checkpoint_newest(char **path, const char *output_dir);

/** The state of the newest checkpoint of a run, or of the one at a path, without a look at the rest of it.  Out: found  false where
 *  there is none that can be read. */
CUDPO_MUST_USE cudpo_status checkpoint_peek(checkpoint_state *state, bool *found,
                                            const char *output_dir, const char *path);

/** Verify a checkpoint and read its state.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA naming the file that is damaged. */
CUDPO_MUST_USE cudpo_status checkpoint_read(checkpoint_state *state, const char *path);

/** Elements `begin` and following of the weights or of a moment.  It must have been verified.
 *  Out:     run     dense: as many elements, in the memory of layout->be.
 *  In:      layout  names and shapes of all of them.
 *           shards  of its state. */
CUDPO_MUST_USE cudpo_status checkpoint_restore(tensor run, int64_t begin,
                                               const model_weights *layout,
                                               checkpoint_tensors which, const char *path,
                                               int64_t shards);

/** Remove leftovers of a killed save, and checkpoint-* folders newer than `step` (-1: all).  Called when a run starts, after
 *  checkpoint_newest().  A line says which.  Folders of that name that other trainers made are left alone. */
CUDPO_MUST_USE cudpo_status checkpoint_clean(const char *output_dir, int64_t step);

#endif /* CUDPO_TRAIN_CHECKPOINT_H */
