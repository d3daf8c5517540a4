/* tensorboard.h - TensorBoard event files of scalars. */
#ifndef CUDPO_TRAIN_TENSORBOARD_H
#define CUDPO_TRAIN_TENSORBOARD_H

#include "cudpo/status.h"

#include <stdint.h>

typedef struct event_file event_file;

/** Create FOLDER/events.out.tfevents.TIME.HOST.PID.N.cudpo: each attempt at a run has a file of its own. */
CUDPO_MUST_USE cudpo_status event_file_open(event_file **out, const char *folder);

/** Remove the files of that name; whatever else is in the folder stays.  No error where there is no folder. */
CUDPO_MUST_USE cudpo_status event_files_remove(const char *folder);

/** Append a scalar of a step. */
CUDPO_MUST_USE cudpo_status event_file_scalar(event_file *f, int64_t step, const char *tag,
                                              double value);
CUDPO_MUST_USE cudpo_status event_file_flush(event_file *f);
void event_file_close(event_file *f); /* NULL is fine */

#endif /* CUDPO_TRAIN_TENSORBOARD_H */
