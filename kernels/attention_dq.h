/* attention_dq.h - the second kernel of attention's backward pass: dq of a tile of queries from the slots of all keys. */
#ifndef CUDPO_KERNELS_ATTENTION_DQ_H
#define CUDPO_KERNELS_ATTENTION_DQ_H

#include "attention_backward.h"

/* What a block that makes dq is made of: warps have 32 queries and half of the columns each. */
template <int D> struct dq_shape {
    enum {
        WARPS = 4,
        THREADS = WARPS * 32,
        STAGES = D <= 128 ? 3 : 2,
        KEYS = 64, /* of a step */
        M = 2,
        N = D / 16,
        DS = KEYS * BACKWARD_ROWS, /* elements of ds in a stage, before the keys */
        STAGE_SIZE = DS + KEYS * D,
        BYTES = STAGES * STAGE_SIZE * (int)sizeof(bf16)
    };
};

/* A step of the way of a tile of queries over its slots: up to dq_shape::KEYS keys of one slot. */
typedef struct slot_walk {
    int slot, begin; /* of the tile's slots; the first of its keys */
    int token,
        keys; /* of the first key; how many there are that the tile's last query sees, 0: the end */
} slot_walk;

template <int D> __device__ __forceinline__ void enter(slot_walk *w, const query_tile &t)
{
    enum { TILE = D <= 128 ? 128 : 64, KEYS = dq_shape<D>::KEYS };
    const bool own = w->slot >= t.prompt_count;
    const int number = own ? t.own_first + w->slot - t.prompt_count : t.prompt_first + w->slot;
    const int first = number * TILE + w->begin;
    w->token = (own ? t.token - t.index : t.prompt_begin) + first;
    w->keys = min((int)KEYS, (own ? t.index + t.rows : t.prompt_length) - first);
}

template <int D> __device__ __forceinline__ void next_step(slot_walk *w, const query_tile &t)
{
    enum { TILE = D <= 128 ? 128 : 64, KEYS = dq_shape<D>::KEYS };
    w->begin += KEYS;
    if (w->begin < TILE) enter<D>(w, t);
    if (w->begin < TILE && w->keys > 0) return;
    w->begin = 0;
    w->keys = 0;
    if (++w->slot < t.prompt_count + t.own_count) enter<D>(w, t);
}

/* Ask for a step's ds and keys.  One group of copies, if an empty one. */
template <int D>
__device__ __forceinline__ void load_slot(bf16 *stage, const uint32_t *slots, const slot_walk *w,
                                          int rows, const bf16 *k_column, int stride, int head_dim)
{
    typedef dq_shape<D> shape;
    enum { TILE = D <= 128 ? 128 : 64, CHUNKS = BLOCK_WORDS / 4 };
    if (w->keys > 0) {
        const uint32_t *from = slots + (int64_t)w->slot * (TILE * BACKWARD_ROWS / 2) +
                               w->begin / 16 * BLOCK_COLUMNS * BLOCK_WORDS;
        const int chunks = (w->keys + 15) / 16 * BLOCK_COLUMNS * CHUNKS;
#pragma unroll
        for (int i = 0; i < shape::DS / 8 / shape::THREADS; i++) {
            const int at = threadIdx.x + i * shape::THREADS;
            /* The first kernel writes no blocks behind the last query. */
            if (at < chunks)
                cp_async_16(stage + at * 8, from + at * 4,
                            at / CHUNKS % BLOCK_COLUMNS * 16 < rows ? 16 : 0);
        }
        load_rows<D, shape::KEYS, shape::THREADS>(threadIdx.x, stage + shape::DS,
                                                  k_column + (int64_t)w->token * stride, stride,
                                                  w->keys, head_dim);
    }
    cp_async_commit();
}

/* dq of a tile of queries and head: ds k over its slots, in order of keys.  2 D flops a visible pair; reads 2 bytes a pair
 * of the slots, and 2 D bytes a key and tile of queries from the second cache. */
template <int D>
static __global__ void __launch_bounds__(dq_shape<D>::THREADS, D <= 128 ? 3 : 1)
    attention_dq_kernel(backward_tensors x, const plan_counts *counts, const query_tile *tiles,
                        attention_sizes sizes, int pass)
{
    typedef dq_shape<D> shape;
    enum { M = shape::M, N = shape::N, TILE = D <= 128 ? 128 : 64 };
    const int ratio = sizes.heads / sizes.kv_heads, at_once = kv_heads_at_once(&x, counts, sizes);
    const int local = blockIdx.x % sizes.heads, head = pass * at_once * ratio + local;
    const int tile = blockIdx.x / sizes.heads;
    if (local >= at_once * ratio || head >= sizes.heads || tile >= counts->backward) return;
    const query_tile t =
        tiles[tile]; /* in registers: copies into shared memory may change memory */
    DYN_SHARED(bf16, memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = t.rows;
    const int row = warp / 2 * M * 16, chunk = warp % 2 * N; /* the warp's first */
    const int dim = sizes.head_dim;
    const bf16 *k_column = x.qkv + (int64_t)(sizes.heads + head / ratio) * dim;
    const uint32_t *slots =
        x.ds + ((int64_t)local * counts->slots + t.slot) * (TILE * BACKWARD_ROWS / 2);
    slot_walk next = {0, 0, 0, 0};
    int coming[shape::STAGES - 1]; /* keys of the steps that were asked for */
    if (t.prompt_count + t.own_count > 0) enter<D>(&next, t);
#pragma unroll
    for (int i = 0; i < shape::STAGES - 1; i++) {
        coming[i] = next.keys;
        load_slot<D>(memory + i * shape::STAGE_SIZE, slots, &next, rows, k_column, x.qkv_stride,
                     dim);
        if (next.keys > 0) next_step<D>(&next, t);
    }
    /* Matrices in the order of a left operand's registers: the second and the third change places. */
    const int from = (lane / 8 % 2 * 2 + lane / 16) * 64 + lane % 8 * 8;
    float dq[M][N][4] = {};
    int stage = 0;
#pragma unroll 1
    while (coming[0] > 0) {
        cp_async_wait<shape::STAGES - 2>();
        __syncthreads(); /* the step has arrived, and the stage to be loaded has been read */
        const int ahead = (stage + shape::STAGES - 1) % shape::STAGES;
        load_slot<D>(memory + ahead * shape::STAGE_SIZE, slots, &next, rows, k_column, x.qkv_stride,
                     dim);
        const int keys = coming[0];
#pragma unroll
        for (int i = 1; i < shape::STAGES - 1; i++) {
            coming[i - 1] = coming[i];
        }
        coming[shape::STAGES - 2] = next.keys;
        if (next.keys > 0) next_step<D>(&next, t);
        const bf16 *ds = memory + stage * shape::STAGE_SIZE, *k = ds + shape::DS;
#pragma unroll
        for (int c = 0; c < shape::KEYS / 16; c++) {
            if (c * 16 >= keys || row >= rows) break;
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) {
                ldmatrix_x4_trans(
                    a[m], ds + (c * BLOCK_COLUMNS + row / 16 + m) * (2 * BLOCK_WORDS) + from);
            }
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                uint32_t r[4];
                ldmatrix_x4_trans(r, k + chunk_at<D>(c * 16 + lane % 16, (chunk + j) ^ lane / 16));
                const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma_m16n8k16_bf16(dq[m][j], a[m], b0, dq[m][j]);
                    mma_m16n8k16_bf16(dq[m][j + 1], a[m], b1, dq[m][j + 1]);
                }
            }
        }
        stage = (stage + 1) % shape::STAGES;
    }
    cp_async_wait<0>();
    __syncthreads(); /* the last step has been read, and its place is one for rows */
    write_fragments<M, N>(
        x.dqkv + (int64_t)(t.token + row) * x.dqkv_stride + head * dim + chunk * 8, x.dqkv_stride,
        rows - row, dim - chunk * 8, dq, sizes.scale, memory + warp * M * 16 * N * 8);
}

#endif /* CUDPO_KERNELS_ATTENTION_DQ_H */
