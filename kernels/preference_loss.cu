/* preference_loss.cu - from sequence scores to loss, metrics and coefficients: preference/loss.h on the device. */
#include "check.h"
#include "kernels.h"
#include "kernels/preference_loss.h"

enum { THREADS = 64 };

/* One thread per unit of n sequences.  8 n to 12 n + 8 bytes read, 4 (n + LOSS_COLUMNS) written: bound by latency. */
static __global__ void __launch_bounds__(THREADS)
    preference_loss_kernel(loss_outputs out, loss_inputs in, loss_parameters parameters)
{
    const int64_t g = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (g < out.columns.rows) loss_evaluate_at(&out, &in, &parameters, g);
}

/* The loss of every unit, its metrics, and its slope in every sequence's score.  All maths is double, and rounded once.
 *  Out:     out  coefficient [S], columns [G,LOSS_COLUMNS]; overwritten.
 *  In:      in   see loss_inputs; scores in nats.     parameters  see loss_parameters.
 *           A unit has the sequences of its loss (loss_check).  Nothing overlaps an output.  G up to 2^37 - 64.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE. */
extern "C" cudpo_status cuda_preference_loss(const loss_outputs *out, const loss_inputs *in,
                                             const loss_parameters *parameters, cudpo_stream stream)
{
    CUDPO_TRY(loss_check(out, in, parameters));
    CUDPO_REQUIRE(out->columns.rows <= (int64_t)INT32_MAX * THREADS);
    if (out->columns.rows == 0) return CUDPO_OK;
    LAUNCH(preference_loss_kernel, blocks_for(out->columns.rows, THREADS), THREADS, 0, stream, *out,
           *in, *parameters);
    return LAUNCHED();
}
