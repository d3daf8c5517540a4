/* offload.h - weights that forward passes alone read, with their layers in the host's memory: on the device are embedding,
 * final norm and head, and two layers at a time, each copied there while the one before computes. */
#ifndef CUDPO_MODEL_OFFLOAD_H
#define CUDPO_MODEL_OFFLOAD_H

#include "model/weights.h"

/** Make weights of the values of `from`, with their layers in the host's memory.  They serve forward passes, which compute
 *  the same bits as with `from`, and model_weights_destroy(); everything else refuses them.  Their `layer` is
 *  not for ops: it views the host's memory.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM, CUDPO_EDEVICE: `out` is empty. */
CUDPO_MUST_USE cudpo_status model_weights_offload(model_weights *out, const model_weights *from,
                                                  const model_config *c);

/** Bytes of the device's memory that they take, and of the host's: of all layers. */
size_t model_offload_bytes(const model_config *c, dtype type);
size_t model_offload_host_bytes(const model_config *c, dtype type);

/** The views of layer l, for ops that are enqueued before the next call: of offloaded weights, it begins to copy the layer
 *  behind l to where the one before l was. */
CUDPO_MUST_USE cudpo_status model_weights_layer(layer_weights *out, const model_weights *w,
                                                int64_t l);

/* For model_weights_destroy().  NULL is fine. */
void model_offload_free(struct offload *o, backend *be);

#endif /* CUDPO_MODEL_OFFLOAD_H */
