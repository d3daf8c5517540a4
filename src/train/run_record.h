/* run_record.h - run.json: everything needed to repeat a run. */
#ifndef CUDPO_TRAIN_RUN_RECORD_H
#define CUDPO_TRAIN_RUN_RECORD_H

#include "cudpo/status.h"
#include "train/trainer.h"

/** Write OUTPUT_DIR/run.json: version, machine, configuration in force, fingerprints of model, tokenizer and data, steps. */
CUDPO_MUST_USE cudpo_status run_record_write(const cudpo_trainer *t);

#endif /* CUDPO_TRAIN_RUN_RECORD_H */
