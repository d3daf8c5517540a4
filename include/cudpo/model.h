/* model.h - making a model folder to train from scratch. */
#ifndef CUDPO_MODEL_H
#define CUDPO_MODEL_H

#include "cudpo/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Write random weights for the model that a folder's config.json describes.
 *
 *  In:      folder  a Hugging Face model folder; of its files only config.json is needed.
 *           seed    the same seed gives the same weights: matrices are normal with config.json's
 *                   initializer_range (0.02 if absent) as deviation, norms 1, biases 0.
 *  Out:     folder/model.safetensors, in config.json's dtype (float32 if absent); one that is there
 *           is replaced.  On failure the folder is as it was.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT without config.json; CUDPO_EDATA if it is malformed or describes
 *           a model that is not supported; CUDPO_EWRITE; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status cudpo_model_randomise(const char *folder, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_MODEL_H */
