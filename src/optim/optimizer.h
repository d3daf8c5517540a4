/* optimizer.h - one update of all parameters: norm, clipping, AdamW. */
#ifndef CUDPO_OPTIM_OPTIMIZER_H
#define CUDPO_OPTIM_OPTIMIZER_H

#include "backend/backend.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

/* What is trained and treated alike: a tensor, or several side by side; all of the tensors here have its shape. */
typedef struct optimizer_parameter {
    tensor weight; /* what is updated: f32, or bf16 that rounds by chance */
    tensor copy;   /* bf16 that becomes weight, rounded; or absent */
    tensor gradient, first_moment, second_moment;
    int64_t first; /* number of its first element among all weights */
    bool decay;    /* takes weight decay */
} optimizer_parameter;

typedef struct optimizer_settings {
    double learning_rate; /* of this step */
    double beta1, beta2, epsilon, weight_decay;
    uint64_t seed; /* of the rounding of bf16 weights */
} optimizer_settings;

/** L2 norm of a gradient, summed in double.  NaN or Inf in it shows in the result. */
CUDPO_MUST_USE cudpo_status optimizer_norm(double *norm, backend *be, tensor gradient);

/** Take step t (1 for the first) on the gradients times `factor` [1] f32, as the op clip leaves it: min(1, max_grad_norm /
 *  (norm + 1e-6)), as torch.  Where it is no number, nothing changes; absent: 1. */
CUDPO_MUST_USE cudpo_status optimizer_step(backend *be, const optimizer_parameter *parameters,
                                           int64_t count, const optimizer_settings *s,
                                           tensor factor, int64_t t);

#endif /* CUDPO_OPTIM_OPTIMIZER_H */
