/* reduce.h - gradients of all ranks added up, bucket by bucket, while the backward pass of a step's last pack goes on. */
#ifndef CUDPO_TRAIN_REDUCE_H
#define CUDPO_TRAIN_REDUCE_H

#include "dist/communicator.h"
#include "model/model.h"

#include <stdbool.h>
#include <stdint.h>

#define REDUCER_MEGABYTES \
    25.0 /* of a bucket, where nobody says: torch's DistributedDataParallel has as many */

typedef struct gradient_reducer {
    communicator *communicator;
    tensor gradient; /* [1,n] of all weights */
    int64_t bucket;  /* elements */
    int64_t left;    /* elements before this one are not on their way yet */
    bool shared;     /* a sum goes to the rank alone that owns it: zero_stage 1 */
} gradient_reducer;

/* In: megabytes  of a bucket. */
gradient_reducer reducer_of(communicator *c, tensor gradient, double megabytes, bool shared);

/** From here on the workspace's backward pass hands on what is complete: it is that of the last pack. */
void reducer_follow(gradient_reducer *r, model_workspace *ws);

/** Hand on what is left, which is all of it on a rank that had no pack.  The sums are there after communicator_join(). */
CUDPO_MUST_USE cudpo_status reducer_finish(gradient_reducer *r, model_workspace *ws);

#endif /* CUDPO_TRAIN_REDUCE_H */
