/* optimizer.c - AdamW, parameter by parameter. */
#include "optim/optimizer.h"

#include <math.h>

cudpo_status optimizer_norm(double *norm, backend *be, tensor gradient)
{
    double squares = 0.0;
    CUDPO_TRY(be->sum_squares(be, &squares, gradient));
    *norm = sqrt(squares);
    return CUDPO_OK;
}

cudpo_status optimizer_step(backend *be, const optimizer_parameter *parameters, int64_t count,
                            const optimizer_settings *s, tensor factor, int64_t t)
{
    CUDPO_REQUIRE(t >= 1);
    adamw_step step = {.learning_rate = s->learning_rate,
                       .beta1 = s->beta1,
                       .beta2 = s->beta2,
                       .epsilon = s->epsilon,
                       .bias_correction1 = 1.0 - pow(s->beta1, (double)t),
                       .bias_correction2 = 1.0 - pow(s->beta2, (double)t)};
    for (int64_t i = 0; i < count; i++) {
        const optimizer_parameter *p = &parameters[i];
        step.weight_decay = p->decay ? s->weight_decay : 0.0;
        const adamw_tensors tensors = {.w = p->weight,
                                       .m = p->first_moment,
                                       .v = p->second_moment,
                                       .copy = p->copy,
                                       .gradient = p->gradient,
                                       .factor = 1.0f,
                                       .gradient_scale = factor,
                                       .seed = s->seed,
                                       .step = (uint64_t)t,
                                       .first = p->first};
        CUDPO_TRY(be->adamw(be, &tensors, step));
    }
    return CUDPO_OK;
}
