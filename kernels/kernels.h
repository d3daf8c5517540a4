/* kernels.h - the GPU launchers: one op each, on tensors in device memory.
 *
 * What an op computes is said in src/backend/backend.h, where its CPU twin is reached too.  The contract of a launcher -
 * types, alignment, bytes moved, scratch, faults - stands above its definition in kernels/<op>.cu.  All of them
 *   - check their contract first: CUDPO_EINVAL names the argument, and nothing is written;
 *   - enqueue on `stream` and return; CUDPO_EDEVICE if a launch failed; never allocate, never wait;
 *   - take activations in float32 or bfloat16, all of one call alike, and compute in float32 or wider, but for attention in
 *     bfloat16, which rounds probabilities and the slopes of scores to that type for the tensor cores;
 *   - add up in a fixed order: the same call on the same GPU gives the same bits;
 *   - succeed where there are no rows: an output that gains from them stays as it is, and one that is set by them
 *     (cuda_scatter_rows of no rows) is set to zeros.
 * Values in device memory can't be checked here.  Where a wrong one (an index out of range) would make a kernel leave
 * its tensors, the kernel leaves it out, and sets the bits of `fault` [1] i32 (absent: silently), which the caller reads
 * at the next synchronisation.
 * `scratch` is memory that no two calls in flight share; the function above the launcher gives its bytes.  Its
 * alignment is 16 bytes, its content is undefined before and after. */
#ifndef CUDPO_KERNELS_H
#define CUDPO_KERNELS_H

#include "cudpo/status.h"
#include "kernels/types.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *cudpo_stream; /* a cudaStream_t */

struct loss_inputs; /* preference/loss.h */
struct loss_outputs;
struct loss_parameters;

/* Memory that a launcher may use as it likes. */
typedef struct scratch {
    void *data;
    size_t bytes;
} scratch;

cudpo_status cuda_embed(tensor x, tensor table, tensor token, tensor fault, cudpo_stream stream);
size_t cuda_embed_backward_scratch(int64_t T);
cudpo_status cuda_embed_backward(tensor dtable, tensor dx, tensor token, scratch s, tensor fault,
                                 cudpo_stream stream);

cudpo_status cuda_add_rmsnorm(tensor y, tensor rstd, tensor sum, tensor x, tensor branch, tensor w,
                              float epsilon, cudpo_stream stream);
size_t cuda_rmsnorm_backward_scratch(int64_t T, int64_t C);
cudpo_status cuda_rmsnorm_backward(tensor dx, tensor dw, tensor dy, tensor x, tensor rstd, tensor w,
                                   scratch s, cudpo_stream stream);
cudpo_status cuda_rmsnorm_again(tensor y, tensor x, tensor rstd, tensor w, cudpo_stream stream);

cudpo_status cuda_head_norm(tensor y, tensor rstd, tensor x, tensor w, float epsilon,
                            cudpo_stream stream);
size_t cuda_head_norm_backward_scratch(int64_t T, int64_t heads, int64_t D);
cudpo_status cuda_head_norm_backward(tensor dx, tensor dw, tensor dy, tensor x, tensor rstd,
                                     tensor w, scratch s, cudpo_stream stream);

cudpo_status cuda_bias_add(tensor x, tensor bias, cudpo_stream stream);
size_t cuda_bias_backward_scratch(int64_t T, int64_t N);
cudpo_status cuda_bias_backward(tensor dbias, tensor dx, scratch s, cudpo_stream stream);

cudpo_status cuda_add(tensor x, tensor y, cudpo_stream stream);

/* --- map.cu, reduce.cu: an op in its single stages */
cudpo_status cuda_map(tensor out, map_function f, tensor a, tensor b, float k, cudpo_stream stream);
cudpo_status cuda_reduce(tensor out, tensor a, bool largest, cudpo_stream stream);
cudpo_status cuda_cast(tensor out, tensor x, cudpo_stream stream);
cudpo_status cuda_check_finite(tensor x, tensor fault, cudpo_stream stream);

cudpo_status cuda_rope(tensor x, tensor cosine, tensor sine, tensor position, int head_dim,
                       bool inverse, tensor fault, cudpo_stream stream);

/* The tiles of a pack, for every layer of one window and both passes. */
int64_t cuda_attention_plan_words(int64_t T, int64_t segments);
cudpo_status cuda_attention_plan(tensor plan, tensor segments, tensor wanted, int64_t T,
                                 attention_shape shape, tensor fault, cudpo_stream stream);
cudpo_status cuda_attention(tensor out, tensor lse, tensor qkv, tensor plan, attention_shape shape,
                            tensor fault, cudpo_stream stream);
size_t cuda_attention_backward_scratch(int64_t T, int64_t segments, attention_shape shape,
                                       dtype type, int kv_heads); /* so many at a time */
cudpo_status cuda_attention_backward(tensor dqkv, tensor dout, tensor qkv, tensor out, tensor lse,
                                     tensor plan, attention_shape shape, scratch s, tensor fault,
                                     cudpo_stream stream);

cudpo_status cuda_cache_store(tensor k_cache, tensor v_cache, tensor qkv, tensor slot,
                              attention_shape shape, tensor fault, cudpo_stream stream);
cudpo_status cuda_attention_cached(tensor out, tensor qkv, tensor k_cache, tensor v_cache,
                                   tensor first, tensor length, attention_shape shape, tensor fault,
                                   cudpo_stream stream);

cudpo_status cuda_swiglu(tensor act, tensor gate_up, cudpo_stream stream);
cudpo_status cuda_swiglu_backward(tensor dgate_up, tensor act, tensor dact, tensor gate_up,
                                  cudpo_stream stream);

cudpo_status cuda_gather_rows(tensor out, tensor x, tensor index, tensor fault,
                              cudpo_stream stream);
size_t cuda_scatter_rows_scratch(int64_t R);
cudpo_status cuda_scatter_rows(tensor dx, tensor drow, tensor index, tensor scale, scratch s,
                               tensor fault, cudpo_stream stream);
cudpo_status cuda_scale_rows(tensor x, tensor scale, cudpo_stream stream);

cudpo_status cuda_token_logprob(const logprob_tensors *rows, bool gradient, tensor fault,
                                cudpo_stream stream);
cudpo_status cuda_segment_sum(tensor out, tensor x, tensor begin, tensor fault,
                              cudpo_stream stream);
cudpo_status cuda_kl_estimate(tensor kl, tensor policy, tensor reference, int64_t batch,
                              cudpo_stream stream);
cudpo_status cuda_preference_loss(const struct loss_outputs *out, const struct loss_inputs *in,
                                  const struct loss_parameters *parameters, cudpo_stream stream);
cudpo_status cuda_row_coefficients(tensor row, tensor coefficient, tensor sequence, tensor scale,
                                   tensor fault, cudpo_stream stream);

/* Sum of squares [1] f64 +=; then norm [1] f32 = sqrt(sum) and factor [1] f32 = min(1, max_norm / (norm + 1e-6)). */
size_t cuda_sum_squares_scratch(void);
cudpo_status cuda_sum_squares(tensor sum, tensor g, scratch s, cudpo_stream stream);
cudpo_status cuda_clip_factor(tensor norm, tensor factor, tensor sum, float max_norm, tensor fault,
                              cudpo_stream stream);

cudpo_status cuda_adamw(const adamw_tensors *p, adamw_step step, cudpo_stream stream);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_KERNELS_H */
