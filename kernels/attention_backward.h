/* attention_backward.h - what the kernels of attention's backward pass share. */
#ifndef CUDPO_KERNELS_ATTENTION_BACKWARD_H
#define CUDPO_KERNELS_ATTENTION_BACKWARD_H

#include "attention.h"

/* A slot: ds^T of a tile of keys and BACKWARD_ROWS queries, in blocks of 16 keys by 16 queries, a block being four
 * matrices of 8x8: keys 0-7 and queries 0-7, 8-15 and 0-7, 0-7 and 8-15, 8-15 and 8-15. */
enum { BLOCK_WORDS = 128, BLOCK_COLUMNS = BACKWARD_ROWS / 16 };

/* The tensors of the backward pass. */
typedef struct backward_tensors {
    bf16 *dqkv;             /* [T,Q+2KV] */
    const bf16 *dout, *qkv; /* [T,Q], [T,Q+2KV] */
    int dqkv_stride, dout_stride, qkv_stride;
    float2 *
        statistics; /* [H,tiles,BACKWARD_ROWS] lse log2 e, and delta; of rows without a query +inf and 0 */
    uint32_t *ds; /* slots */
    float4 *dkv;  /* [K,parts,key tiles,HALVES,2] shares of dk and dv, or NULL */
    int64_t most_backward, most_keys;
    int64_t capacity; /* slots for all heads together */
    int parts, heads_per_part;
    float factor; /* scale log2 e */
} backward_tensors;

/* kv heads that this pass over them has: as many at a time as there are slots for. */
__device__ __forceinline__ int kv_heads_at_once(const backward_tensors *x,
                                                const plan_counts *counts, attention_sizes sizes)
{
    const int64_t each = (int64_t)counts->slots * (sizes.heads / sizes.kv_heads);
    return each == 0 ? sizes.kv_heads : (int)min((int64_t)sizes.kv_heads, x->capacity / each);
}

/* Fragments of a warp, times factor, as rows of bf16 in 16-byte pieces, through the warp's own staging memory of M*16 x N*8
 * elements. */
template <int M, int N>
__device__ __forceinline__ void write_fragments(bf16 *to, int stride, int rows, int columns,
                                                const float (&x)[M][N][4], float factor,
                                                bf16 *staging)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int j = 0; j < N; j++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                *reinterpret_cast<uint32_t *>(
                    staging + chunk_at<N * 8>(m * 16 + half * 8 + lane / 4, j) + lane % 4 * 2) =
                    pack_bf16(x[m][j][half * 2] * factor, x[m][j][half * 2 + 1] * factor);
            }
        }
    }
    __syncwarp(); /* all of it is staged */
#pragma unroll
    for (int i = 0; i < M * 16 * N / 32; i++) {
        const int at = lane + i * 32, row = at / N, chunk = at % N;
        if (row < rows && chunk * 8 < columns)
            *reinterpret_cast<uint4 *>(to + row * stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(staging + chunk_at<N * 8>(row, chunk));
    }
}

#endif /* CUDPO_KERNELS_ATTENTION_BACKWARD_H */
