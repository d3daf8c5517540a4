/* plan.h - what a training job will take and cost, without a GPU. */
#ifndef CUDPO_PLAN_H
#define CUDPO_PLAN_H

#include "cudpo/config.h"
#include "cudpo/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of a CPU, `gpus` are ranks, and those of a node share the cores and the memory of a machine. */
typedef struct cudpo_plan_options {
    const char *
        gpu; /* "h100", "h200", ...; "cpu": this machine; NULL: h100, or cpu where the config says so */
    int64_t gpus;  /* 1 to 4096; 0: 1 */
    int64_t nodes; /* of a machine; 0: one for each 8 GPUs */
    const char
        *calibration; /* file that `cudpo bench --calibrate` wrote; NULL: rates are assumed */
} cudpo_plan_options;

/** Plan a training run: memory of each GPU by part, and the settings that would make it fit; time of a step by part, to the
 *  end, GPU-hours; how it scales from 1 to 4096 GPUs, and what limits it.
 *
 *  Reads what cudpo_train() would read but weights, tokenises the data as it would, into the same cache, and writes nothing
 *  else; output_dir need not exist, and no driver or CUDA library is looked for.
 *  Out:     text  for people, object  the same numbers as JSON: each in new memory to be freed, or NULL if not wanted.
 *  In:      config  checked: cudpo_config_check();  o  what it is to run on.
 *  Returns: CUDPO_OK, also for a run that does not fit; CUDPO_EUSAGE naming the option: an unknown GPU (with those that are
 *           known), GPUs that the nodes do not divide; of config, model and data as cudpo_train(). */
CUDPO_MUST_USE cudpo_status cudpo_plan(char **text, char **object, const cudpo_config *config,
                                       const cudpo_plan_options *o);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_PLAN_H */
