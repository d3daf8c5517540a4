/* sample.h - the choice of the next token from its logits. */
#ifndef CUDPO_TRAIN_SAMPLE_H
#define CUDPO_TRAIN_SAMPLE_H

#include "cudpo/status.h"

#include <stdint.h>

typedef struct sample_settings {
    double temperature; /* 0: the first largest logit */
    int64_t top_k;      /* keep the k largest; 0: all */
    double top_p;       /* then the smallest set of largest that holds this probability; 1: all */
} sample_settings;

/** Choose from logits [V].
 *  Out:     token.
 *  In/Out:  order  [V] scratch.
 *  In:      u      uniform in [0, 1): decides, so the choice is repeatable.
 *  Returns: CUDPO_OK; CUDPO_ENUMERIC where a logit is NaN. */
CUDPO_MUST_USE cudpo_status sample_token(int32_t *token, int32_t *order, const float *logits,
                                         int64_t V, const sample_settings *s, double u);

#endif /* CUDPO_TRAIN_SAMPLE_H */
