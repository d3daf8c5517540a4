/* output.h - the folder that a run writes to: nothing in it is lost that this run may not replace. */
#ifndef CUDPO_TRAIN_OUTPUT_H
#define CUDPO_TRAIN_OUTPUT_H

#include "cudpo/config.h"
#include "cudpo/status.h"

typedef struct output_folder {
    int lock; /* descriptor of the folder, locked; -1: none */
} output_folder;

/** Make output_dir, take it for this process, and see that the run may write there.  Before anything is loaded.
 *
 *  A run or a model that is there stays unless overwrite_output_dir says otherwise or the run goes on from a checkpoint
 *  of that very folder; a model that no run made, and the folders that training starts from, stay in any case.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG where something would be lost; CUDPO_EWRITE where another process trains into the
 *           folder, or something in it stands where a file has to go; CUDPO_EPERM; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status output_open(output_folder *o, const cudpo_config *c);

/** Remove what a run that goes on from `step`, or begins anew, replaces.  As late as can be: once it can start. */
CUDPO_MUST_USE cudpo_status output_begin(const cudpo_config *c, int64_t step);
void output_close(output_folder *o);

#endif /* CUDPO_TRAIN_OUTPUT_H */
