/* gather.h - what passes left of units, on all ranks, back in the order of their batches. */
#ifndef CUDPO_TRAIN_GATHER_H
#define CUDPO_TRAIN_GATHER_H

#include "base/buffer.h"
#include "train/metrics.h"
#include "train/ranks.h"

#include <stdint.h>

/* The result of unit `place` of a batch: a step, or a batch of an evaluation. */
typedef struct unit_record {
    int64_t batch, place;
    unit_result result;
} unit_record;

/** Keep results of this rank's n units.  In/Out: own  unit_records.  In: place [n]. */
CUDPO_MUST_USE cudpo_status gather_keep(buffer *own, int64_t batch, const int64_t *place,
                                        const unit_result *units, int64_t n);

/** All records of all ranks, by batch and place, in new memory; `own` is empty then.  Every rank calls it.
 *  In:      most  units of a batch.
 *  Returns: CUDPO_OK; CUDPO_EPEER, also where a batch has more; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status gather_records(unit_record **all, int64_t *n, buffer *own, int64_t most,
                                           const run_ranks *r);

#endif /* CUDPO_TRAIN_GATHER_H */
