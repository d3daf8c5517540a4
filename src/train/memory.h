/* memory.h - what a run needs of a device's memory, before any of it is asked for. */
#ifndef CUDPO_TRAIN_MEMORY_H
#define CUDPO_TRAIN_MEMORY_H

#include "train/trainer.h"

/** The pass limits of a run: those of its data, with max_tokens_per_pack, or, where that is not given, a budget that suits
 *  the device and what is free on it.
 *  Out:     offload  whether the layers of the reference are to stand in the host's memory.
 *  In:      t      with config, backend, model config, type and data; no weights yet.
 *           train  false: for evaluation.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM where the run can't fit: memory by part, and the settings that would make it fit. */
CUDPO_MUST_USE cudpo_status memory_plan(pass_limits *limits, bool *offload, const cudpo_trainer *t,
                                        bool train);

#endif /* CUDPO_TRAIN_MEMORY_H */
