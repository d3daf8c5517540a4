/* shares.h - moments and master weights of which each rank keeps a share: ZeRO stage 1 (Rajbhandari et al. 2020).
 *
 * The block of all weights is cut into one run of elements for each rank (communicator_share()).  A rank gets the sum of its run's
 * gradients, updates its run, and all runs of the new weights go to all ranks. */
#ifndef CUDPO_TRAIN_SHARES_H
#define CUDPO_TRAIN_SHARES_H

#include "train/trainer.h"

/** Memory for this rank's share alone, as w->all. */
CUDPO_MUST_USE cudpo_status shares_create(model_weights *w, backend *be, rank_share s, dtype type);

/** Norm of the whole gradient and the factor that clips it, of which this rank has its share. */
CUDPO_MUST_USE cudpo_status shares_clip(cudpo_trainer *t);

/** The policy's weights, of which this rank has updated its share, from all ranks. */
CUDPO_MUST_USE cudpo_status shares_publish(cudpo_trainer *t);

/** All of the weights that are updated, or of a moment, whoever keeps them: every rank calls it.  Out: valid until the next call,
 *  step or evaluation; where they are shared out they lie in the gradient's memory. */
CUDPO_MUST_USE cudpo_status shares_whole(const model_weights **out, cudpo_trainer *t,
                                         checkpoint_tensors which);

/** Where all of them are to be put so that shares_take() finds them. */
model_weights *shares_place(cudpo_trainer *t, checkpoint_tensors which);

/** This rank's of what it has put there; then, of what rank 0 has. */
CUDPO_MUST_USE cudpo_status shares_keep(cudpo_trainer *t, checkpoint_tensors which);
CUDPO_MUST_USE cudpo_status shares_take(cudpo_trainer *t, checkpoint_tensors which);

#endif /* CUDPO_TRAIN_SHARES_H */
