/* attention_f32.h - attention in fp32, for runs that are compared with others bit by bit. */
#ifndef CUDPO_KERNELS_ATTENTION_F32_H
#define CUDPO_KERNELS_ATTENTION_F32_H

#include "attention.h"

/* As cuda_attention and cuda_attention_backward, which have checked their arguments.  `memory` is scratch:
 * plan_counts, and delta [T,H] f32. */
cudpo_status attention_f32(tensor out, tensor lse, tensor qkv, const plan_view *plan,
                           attention_shape shape, plan_claim claim, cudpo_stream stream);
cudpo_status attention_backward_f32(tensor dqkv, tensor dout, tensor qkv, tensor out, tensor lse,
                                    const plan_view *plan, void *memory, attention_shape shape,
                                    plan_claim claim, cudpo_stream stream);

#endif /* CUDPO_KERNELS_ATTENTION_F32_H */
