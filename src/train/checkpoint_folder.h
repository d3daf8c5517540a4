/* checkpoint_folder.h - the names of checkpoints inside an output folder, and moving between them.
 *
 *     checkpoint-STEP            complete; nothing else has this name
 *     .checkpoint-STEP.tmp       being built; complete too once its manifest verifies
 *     .checkpoint-STEP.removed   being deleted, so that no half of one is ever taken for a whole */
#ifndef CUDPO_TRAIN_CHECKPOINT_FOLDER_H
#define CUDPO_TRAIN_CHECKPOINT_FOLDER_H

#include "cudpo/status.h"
#include "train/checkpoint.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum checkpoint_stage {
    CHECKPOINT_COMPLETE,
    CHECKPOINT_TEMPORARY,
    CHECKPOINT_REMOVED,
} checkpoint_stage;

enum { CHECKPOINT_VERSION = 2 }; /* of trainer_state.json */

/* Files of checkpoint_tensors and of the state.  Where moments are in shards, those of the moments are not there. */
extern const char *const checkpoint_files[];
extern const char checkpoint_state_file[];

/** The path of a checkpoint in new memory. */
CUDPO_MUST_USE cudpo_status checkpoint_path(char **out, const char *output_dir, int64_t step,
                                            checkpoint_stage stage);

/** The steps of all folders of that stage, ascending, in new memory; none where output_dir is absent. */
CUDPO_MUST_USE cudpo_status checkpoint_steps(int64_t **steps, int64_t *count,
                                             const char *output_dir, checkpoint_stage stage);

/* Is the folder one of ours, whole or damaged?  Other trainers use the name checkpoint-STEP too, and theirs are never
 * touched. */
bool checkpoint_is_ours(const char *path);

/** The steps of complete checkpoints that are ours, ascending, in new memory. */
CUDPO_MUST_USE cudpo_status checkpoint_our_steps(int64_t **steps, int64_t *ours,
                                                 const char *output_dir);

/** Remove checkpoint-STEP: from its name at once, from the disk after. */
CUDPO_MUST_USE cudpo_status checkpoint_remove(const char *output_dir, int64_t step);

/** The state of a checkpoint, as it is there. */
CUDPO_MUST_USE cudpo_status checkpoint_read_state(checkpoint_state *state, const char *folder);

/** Verify every file of a folder against its manifest, which must be that of `step` (-1: any).
 *  Out:     found  the step that it holds. */
CUDPO_MUST_USE cudpo_status checkpoint_verify(int64_t *found, const char *path, int64_t step,
                                              bool from_disk);

#endif /* CUDPO_TRAIN_CHECKPOINT_FOLDER_H */
