/* head.c - the ops from logits to losses and back. */
#include "backend/cuda/ops.h"
#include "preference/loss.h"

static cuda_backend *of(backend *be)
{
    return (cuda_backend *)be;
}

static cudpo_status token_logprob(backend *be, const logprob_tensors *rows, bool gradient)
{
    return cuda_token_logprob(rows, gradient, of(be)->fault, of(be)->stream);
}

static cudpo_status segment_sum(backend *be, tensor out, tensor x, tensor begin)
{
    return cuda_segment_sum(out, x, begin, of(be)->fault, of(be)->stream);
}

static cudpo_status kl_estimate(backend *be, tensor kl, tensor policy, tensor reference,
                                int64_t batch)
{
    return cuda_kl_estimate(kl, policy, reference, batch, of(be)->stream);
}

static cudpo_status preference_loss(backend *be, const loss_outputs *out, const loss_inputs *in,
                                    const loss_parameters *parameters)
{
    return cuda_preference_loss(out, in, parameters, of(be)->stream);
}

static cudpo_status row_coefficients(backend *be, tensor row, tensor coefficient, tensor sequence,
                                     tensor scale)
{
    return cuda_row_coefficients(row, coefficient, sequence, scale, of(be)->fault, of(be)->stream);
}

void cuda_head_install(backend *t)
{
    t->token_logprob = token_logprob;
    t->segment_sum = segment_sum;
    t->kl_estimate = kl_estimate;
    t->preference_loss = preference_loss;
    t->row_coefficients = row_coefficients;
}
