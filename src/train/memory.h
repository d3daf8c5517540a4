/* memory.h - what a run needs of a device's memory, before any of it is asked for. */
#ifndef CUDPO_TRAIN_MEMORY_H
#define CUDPO_TRAIN_MEMORY_H

#include "train/trainer.h"

enum { MEMORY_REMEDIES = 8 };

/* A setting that makes a run smaller, as a key and its value. */
typedef struct memory_remedy {
    const char *key;
    char value[24];
} memory_remedy;

/* Those of a run that are not in force yet, in the order of what they cost.  Returns how many. */
int64_t memory_remedies(memory_remedy out[MEMORY_REMEDIES], const cudpo_trainer *t,
                        const memory_forecast *m);

/** The memory of a run.  Packs are as long as the data and max_tokens_per_pack say or, where that is not given, as suits the
 *  device and what is free on it.
 *  In:      t      with config, backend, model config, type and data; no weights yet.
 *           train  false: for evaluation.
 *  Out:     filled in where it does not fit, too.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM where the run can't fit: memory by part, and the settings that would make it fit. */
CUDPO_MUST_USE cudpo_status memory_plan(memory_forecast *out, const cudpo_trainer *t, bool train);

#endif /* CUDPO_TRAIN_MEMORY_H */
