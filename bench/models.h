/* models.h - the architectures that benchmarks know by name. */
#ifndef CUDPO_BENCH_MODELS_H
#define CUDPO_BENCH_MODELS_H

#include "cudpo/status.h"
#include "model/config.h"

/* Model i of those, NULL behind the last. */
const char *bench_model_name(int64_t i);

/** An architecture by name, by its config.json, or by the model folder that holds one.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE: neither a known name nor a path, with the names and the one that was probably meant;
 *           as model_config_load(). */
CUDPO_MUST_USE cudpo_status bench_model(model_config *out, const char *name);

#endif /* CUDPO_BENCH_MODELS_H */
