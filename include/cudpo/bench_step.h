/* bench_step.h - how long a whole optimizer step takes: of an architecture with random weights, on data of given lengths. */
#ifndef CUDPO_BENCH_STEP_H
#define CUDPO_BENCH_STEP_H

#include "cudpo/config.h"
#include "cudpo/ranks.h"
#include "cudpo/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is measured, beside the configuration. */
typedef struct cudpo_bench_step {
    const char *model;   /* a name that cudpo_bench_model() knows; a config.json; a model folder */
    const char *lengths; /* a preference file, whose lengths count; NULL: fixed ones */
    const char *
        tokenizer; /* the model folder whose tokenizer counts the tokens of `lengths`; NULL: that of
                                  * `model` where it is a folder that has one, else 4 bytes of text are a token */
    int64_t prompt, completion; /* tokens, where lengths are fixed */
    const cudpo_ranks *ranks;   /* which of several this process is; NULL: the environment says */
    int64_t steps;              /* to time; 0: as many as take ten seconds, but at least 5 */
    const char *
        file; /* that the caller will write on the first rank: looked at before anything is measured; NULL: none */
} cudpo_bench_step;

/** Models that are known by name: the i-th, NULL behind the last. */
const char *cudpo_bench_model(int64_t i);

/** Train for some steps and measure.  Nothing is written but what cudpo keeps in its cache folder.
 *  Out:     table, json  the results for people and for programs, in new memory; NULL after a failure, and on all ranks but
 *                        the first.
 *  In:      config       as cudpo_train() takes it; model, data sets and what is saved count for nothing.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE: no such model, or lengths that make no sense; CUDPO_EWRITE, CUDPO_EPERM of `file`; as cudpo_trainer_open() and
 *           cudpo_trainer_step(). */
CUDPO_MUST_USE cudpo_status cudpo_bench_step_run(char **table, char **json,
                                                 const cudpo_config *config,
                                                 const cudpo_bench_step *what);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_BENCH_STEP_H */
