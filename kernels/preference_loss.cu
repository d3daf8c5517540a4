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

static bool is_apart(tensor output, const loss_inputs *in)
{
    return tensor_disjoint(output, in->policy) && tensor_disjoint(output, in->reference) &&
           tensor_disjoint(output, in->tokens) && tensor_disjoint(output, in->label) &&
           tensor_disjoint(output, in->kl);
}

/* The loss of every unit, its metrics, and its slope in every sequence's score.  All maths is double, and rounded once.
 *  Out:     out  coefficient [S], columns [G,LOSS_COLUMNS]; overwritten.
 *  In:      in   see loss_inputs; scores in nats.     parameters  see loss_parameters.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE. */
extern "C" cudpo_status cuda_preference_loss(const loss_outputs *out, const loss_inputs *in,
                                             const loss_parameters *parameters, cudpo_stream stream)
{
    CUDPO_TRY(loss_check(out, in, parameters));
    CUDPO_REQUIRE(tensor_disjoint(out->coefficient, out->columns));
    CUDPO_REQUIRE(is_apart(out->coefficient, in) && is_apart(out->columns, in));
    const int64_t G = out->columns.rows;
    CUDPO_REQUIRE(G <= (int64_t)INT32_MAX * THREADS);
    LAUNCH(preference_loss_kernel, blocks_for(G, THREADS), THREADS, 0, stream, *out, *in,
           *parameters);
    return LAUNCHED();
}
