/* preference_loss.c - one unit after another through the scalar maths of preference/loss.h. */
#include "kernels/preference_loss.h"
#include "backend/cpu/ops.h"

cudpo_status cpu_preference_loss(backend *be, const loss_outputs *out, const loss_inputs *in,
                                 const loss_parameters *parameters)
{
    (void)be;
    CUDPO_TRY(loss_check(out, in, parameters));
    for (int64_t g = 0; g < out->columns.rows; g++) {
        loss_evaluate_at(out, in, parameters, g);
    }
    return CUDPO_OK;
}
