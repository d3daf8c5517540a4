/* output.h - the folder that a run writes to: nothing in it is lost that this run may not replace.
 *
 * A folder is a run's where the run.json that it wrote or a checkpoint of ours lies.  The files of a run may be replaced by that
 * run when it goes on, and by any run with overwrite_output_dir; files that no run made, never. */
#ifndef CUDPO_TRAIN_OUTPUT_H
#define CUDPO_TRAIN_OUTPUT_H

#include "cudpo/status.h"
#include "train/trainer.h"

typedef struct output_folder {
    int lock; /* descriptor of the folder, locked; -1: none */
} output_folder;

/** Make output_dir, take it for this process, and see what can be seen before anything is loaded: may it be written to,
 *  does a file of its user or the model that training starts from stand in the way?
 *  Returns: CUDPO_OK; CUDPO_ECONFIG where something would be lost; CUDPO_EWRITE where another process trains into the
 *           folder, or something in it stands where a file has to go; CUDPO_EPERM; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status output_open(output_folder *o, const cudpo_config *c);

/** With all loaded, before anything is computed: the device takes what it chose for this run before, which output_dir holds
 *  where it holds this run; and what lies beside the checkpoint where it goes on from that of another folder. */
CUDPO_MUST_USE cudpo_status output_recall(const cudpo_trainer *t);

/** With all loaded: is resume_from_checkpoint true, and has this very run come to its end there?  Then nothing is to be done. */
CUDPO_MUST_USE cudpo_status output_finished(bool *finished, const cudpo_trainer *t);

/** Before the first step, resumed or not: see the rest, then remove what the run replaces, write run.json, and keep
 *  there what the device chooses.  Killed at any
 *  moment, it leaves a folder from which the same command starts.
 *  Returns: as output_open(). */
CUDPO_MUST_USE cudpo_status output_begin(const cudpo_trainer *t);
void output_close(output_folder *o);

#endif /* CUDPO_TRAIN_OUTPUT_H */
