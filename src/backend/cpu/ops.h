/* ops.h - the CPU backend's functions, one file per op; what they compute is said in backend/backend.h. */
#ifndef CUDPO_BACKEND_CPU_OPS_H
#define CUDPO_BACKEND_CPU_OPS_H

#include "backend/backend.h"

/* How the ops keep the bits independent of the number of threads: work is cut into pieces whose size depends on the
 * shapes alone, a piece is computed by one thread in a fixed order, and no two pieces write the same element. */

cudpo_status cpu_gemm(backend *be, tensor c, tensor a, bool transpose_a, tensor b, bool transpose_b,
                      float beta);
cudpo_status cpu_embed(backend *be, tensor x, tensor table, tensor token);
cudpo_status cpu_embed_backward(backend *be, tensor dtable, tensor dx, tensor token);
cudpo_status cpu_add_rmsnorm(backend *be, tensor y, tensor rstd, tensor sum, tensor x,
                             tensor branch, tensor w, float epsilon);
cudpo_status cpu_rmsnorm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                  tensor rstd, tensor w);
cudpo_status cpu_rmsnorm_again(backend *be, tensor y, tensor x, tensor rstd, tensor w);
cudpo_status cpu_head_norm(backend *be, tensor y, tensor rstd, tensor x, tensor w, float epsilon);
cudpo_status cpu_head_norm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                    tensor rstd, tensor w);
cudpo_status cpu_bias_add(backend *be, tensor x, tensor bias);
cudpo_status cpu_bias_backward(backend *be, tensor dbias, tensor dx);
cudpo_status cpu_add(backend *be, tensor x, tensor y);
cudpo_status cpu_rope(backend *be, tensor x, tensor cosine, tensor sine, tensor position,
                      int head_dim, bool inverse);
cudpo_status cpu_attention(backend *be, tensor out, tensor lse, tensor qkv, tensor segments,
                           tensor wanted, attention_shape shape);
cudpo_status cpu_attention_backward(backend *be, tensor dqkv, tensor dout, tensor qkv, tensor out,
                                    tensor lse, tensor segments, tensor wanted,
                                    attention_shape shape);
cudpo_status cpu_cache_store(backend *be, tensor k_cache, tensor v_cache, tensor qkv, tensor slot,
                             attention_shape shape);
cudpo_status cpu_attention_cached(backend *be, tensor out, tensor qkv, tensor k_cache,
                                  tensor v_cache, tensor first, tensor length,
                                  attention_shape shape);
cudpo_status cpu_swiglu(backend *be, tensor act, tensor gate_up);
cudpo_status cpu_swiglu_backward(backend *be, tensor dgate_up, tensor act, tensor dact,
                                 tensor gate_up);
cudpo_status cpu_gather_rows(backend *be, tensor out, tensor x, tensor index);
cudpo_status cpu_scatter_rows(backend *be, tensor dx, tensor drow, tensor index, tensor scale);
cudpo_status cpu_scale_rows(backend *be, tensor x, tensor scale);
cudpo_status cpu_token_logprob(backend *be, const logprob_tensors *rows, bool gradient);
cudpo_status cpu_segment_sum(backend *be, tensor out, tensor x, tensor begin);
cudpo_status cpu_kl_estimate(backend *be, tensor kl, tensor policy, tensor reference,
                             int64_t batch);
cudpo_status cpu_preference_loss(backend *be, const struct loss_outputs *out,
                                 const struct loss_inputs *in,
                                 const struct loss_parameters *parameters);
cudpo_status cpu_row_coefficients(backend *be, tensor row, tensor coefficient, tensor sequence,
                                  tensor scale);
cudpo_status cpu_sum_squares(backend *be, double *host_out, tensor g);
cudpo_status cpu_adamw(backend *be, const adamw_tensors *tensors, adamw_step step);
cudpo_status cpu_clip(backend *be, tensor norm, tensor factor, tensor gradient, float max_norm);
cudpo_status cpu_cast(backend *be, tensor out, tensor x);

cudpo_status cpu_map(backend *be, tensor out, map_function f, tensor a, tensor b, float k);
cudpo_status cpu_reduce(backend *be, tensor out, tensor a, bool largest);

#endif /* CUDPO_BACKEND_CPU_OPS_H */
