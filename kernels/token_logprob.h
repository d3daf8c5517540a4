/* token_logprob.h - what the CPU and the CUDA twin of backend->token_logprob share of the contract. */
#ifndef CUDPO_KERNELS_TOKEN_LOGPROB_H
#define CUDPO_KERNELS_TOKEN_LOGPROB_H

#include "cudpo/status.h"
#include "kernels/types.h"
#include "tensor/tensor.h"

/* An output is disjoint from all others and from what is read; so are the logits, for they may be one. */
static inline cudpo_status logprob_check_overlaps(const logprob_tensors *rows, tensor fault)
{
    const tensor logp = rows->logp, stats = rows->stats, scale = rows->scale;
    const tensor logits = rows->logits, label = rows->label;
    const tensor reference_logp = rows->reference_logp, reference_logits = rows->reference_logits;
    CUDPO_REQUIRE(tensor_disjoint(logp, stats) && tensor_disjoint(logp, scale) &&
                  tensor_disjoint(logp, reference_logp));
    CUDPO_REQUIRE(tensor_disjoint(stats, scale) && tensor_disjoint(stats, reference_logp) &&
                  tensor_disjoint(scale, reference_logp));
    CUDPO_REQUIRE(tensor_disjoint(logits, logp) && tensor_disjoint(logits, stats) &&
                  tensor_disjoint(logits, scale) && tensor_disjoint(logits, reference_logp));
    CUDPO_REQUIRE(tensor_disjoint(label, logp) && tensor_disjoint(label, stats) &&
                  tensor_disjoint(label, scale) && tensor_disjoint(label, reference_logp) &&
                  tensor_disjoint(label, logits));
    CUDPO_REQUIRE(tensor_disjoint(reference_logits, logp) &&
                  tensor_disjoint(reference_logits, stats) &&
                  tensor_disjoint(reference_logits, scale) &&
                  tensor_disjoint(reference_logits, reference_logp) &&
                  tensor_disjoint(reference_logits, logits));
    CUDPO_REQUIRE(tensor_disjoint(fault, logp) && tensor_disjoint(fault, stats) &&
                  tensor_disjoint(fault, scale) && tensor_disjoint(fault, reference_logp) &&
                  tensor_disjoint(fault, logits) && tensor_disjoint(fault, label) &&
                  tensor_disjoint(fault, reference_logits));
    return CUDPO_OK;
}

#endif /* CUDPO_KERNELS_TOKEN_LOGPROB_H */
