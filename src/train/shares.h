/* shares.h - moments and master weights of which each rank keeps a share: ZeRO stage 1 (Rajbhandari et al. 2020).
 *
 * The block of all weights is cut into one run of elements for each rank (communicator_share()).  A rank gets the sum of its run's
 * gradients, updates its run, and all runs of the new weights go to all ranks. */
#ifndef CUDPO_TRAIN_SHARES_H
#define CUDPO_TRAIN_SHARES_H

#include "train/checkpoint_shards.h"
#include "train/trainer.h"

/** Memory for this rank's share alone, as w->all. */
CUDPO_MUST_USE cudpo_status shares_create(model_weights *w, backend *be, rank_share s, dtype type);

/** Norm of the whole gradient and the factor that clips it, of which this rank has its share. */
CUDPO_MUST_USE cudpo_status shares_clip(cudpo_trainer *t);

/** The policy's weights, of which this rank has updated its share, from all ranks. */
CUDPO_MUST_USE cudpo_status shares_publish(cudpo_trainer *t);

/* Are there master weights, and are they shared out? */
bool shares_master(const cudpo_trainer *t);

/** All of the weights that are updated, for model_weights_load(), model_weights_save() and the like.  Where master weights are
 *  shared out they are moved piece by piece: what is loaded goes to the policy and to this rank's share; what rank 0 saves
 *  the others hand in by model_weights_pass() in the meantime.  In: store  outlives the result. */
model_weights shares_weights(weights_store *store, cudpo_trainer *t);

/** What this rank writes of a checkpoint. */
checkpoint_shard shares_shard(cudpo_trainer *t);

/** Weights and moments of the checkpoint t->saved: what is shared out every rank reads itself, the rest rank 0 for all.
 *  In:      path  of the checkpoint, as this rank sees it. */
CUDPO_MUST_USE cudpo_status shares_restore(cudpo_trainer *t, const char *path);

#endif /* CUDPO_TRAIN_SHARES_H */
