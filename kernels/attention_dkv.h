/* attention_dkv.h - the first kernel of attention's backward pass: dk and dv of a tile of keys, and ds of all queries that
 * see it; and the kernel that adds up what several blocks have of the same dk and dv. */
#ifndef CUDPO_KERNELS_ATTENTION_DKV_H
#define CUDPO_KERNELS_ATTENTION_DKV_H

#include "attention_backward.h"

/* What a block is for, in shared memory: only its beginning and its end need all of it, and registers are short. */
typedef struct block_place {
    key_tile key;
    int head_begin, kv_head, tile, first_head; /* the first head of this pass over the kernels */
    int head_end, slots, unused[2];            /* slots of a head */
} block_place;

/* What a block is made of.  Each warp has M times 16 keys; scores are transposed, keys down and queries across, so that p^T
 * and ds^T are left operands as they come out of the multiplication. */
template <int D, int QUERIES_> struct backward_shape {
    enum {
        QUERIES = QUERIES_,
        KEYS = D <= 128 ? 128 : 64,
        COLUMNS =
            D <= 128 ? D : 128, /* of dk and dv: with D = 256 two blocks have half of them each */
        HALVES = D / COLUMNS,
        M = D <= 64 ? 2 : 1,
        N = COLUMNS / 8,
        WARPS = KEYS / 16 / M,
        THREADS = WARPS * 32,
        CHUNK = D == 96 || (D == 128 && (QUERIES == 32 || !FEWER_REGISTERS))
                    ? 32
                    : 16,              /* queries at a time */
        DKV_VECTORS = M * N * THREADS, /* of dk, and of dv, of a tile and half */
        BLOCKS_PER_SM = D <= 64 ? 2 : 1,
        STAGE = 2 * KEYS * D,         /* keys, values, and then the stages */
        STAGE_SIZE = 2 * QUERIES * D, /* queries, then dout */
        ELEMENTS = STAGE + 2 * STAGE_SIZE,
        STAGING = ELEMENTS - 2 * KEYS * COLUMNS, /* of dk and dv, when all is done */
        BYTES = ELEMENTS * (int)sizeof(bf16) + 2 * QUERIES * (int)sizeof(float2) +
                4 * (int)sizeof(query_tile) + (int)sizeof(block_place)
    };
};

/* Where a block is on its way over heads, tiles of queries and steps of a tile; head is head_end at the end. */
typedef struct query_walk {
    int head, tile, begin; /* the next step: its first row in the tile */
    int position, slot;    /* of the tile's first row; of the tile and the keys */
} query_walk;

/* The tokens of a step: not part of the walk, because nobody needs them for long. */
typedef struct step_rows {
    int token, rows;
} step_rows;

/* Go to tile t, number w->tile, if any of its queries sees the keys. */
__device__ __forceinline__ bool visit(query_walk *w, step_rows *step, const query_tile *t,
                                      const key_tile *key)
{
    const bool own = w->tile < key->own_end;
    const int number = key->number - (own ? t->own_first : t->prompt_first);
    if (number < 0 || number >= (own ? t->own_count : t->prompt_count)) return false;
    w->position = t->prompt_length + t->index;
    w->slot = t->slot + (own ? t->prompt_count : 0) + number;
    step->token = t->token;
    step->rows = t->rows;
    return true;
}

/* To the next step.  `places` are the present tile and the one after it in shared memory, where they came with the present
 * step: else all warps would wait for them at once. */
template <int QUERIES>
__device__ __forceinline__ step_rows advance(query_walk *w, const query_tile *tiles,
                                             const query_tile *places, const key_tile *key,
                                             int head_end)
{
    step_rows step = {0, 0};
    if (QUERIES < BACKWARD_ROWS) {
        w->begin += QUERIES;
        if (w->begin < places[0].rows) {
            step.token = places[0].token + w->begin;
            step.rows = places[0].rows - w->begin;
            return step;
        }
        w->begin = 0;
    }
    if (++w->tile < key->query_end) {
        if (visit(w, &step, places + 1, key)) return step;
        w->tile++;
    }
    for (;; w->tile++) {
        if (w->tile >= key->query_end) {
            w->tile = key->query_begin;
            if (++w->head >= head_end || key->query_begin >= key->query_end) {
                w->head = head_end;
                return step;
            }
        }
        if (visit(w, &step, tiles + w->tile, key)) return step;
    }
}

/* To the first step. */
__device__ __forceinline__ step_rows enter(query_walk *w, const query_tile *tiles,
                                           const key_tile *key, int head_begin, int head_end)
{
    *w = {head_begin - 1, key->query_end, 0, 0, 0}; /* where the head before it ends */
    return advance<BACKWARD_ROWS>(w, tiles, tiles, key, head_end);
}

/* Ask for a step's queries, dout and statistics, and for its tile and the next one. */
template <typename shape, int D>
__device__ __forceinline__ void load_step(bf16 *stage, float2 *statistics, query_tile *places,
                                          const query_walk *w, step_rows step,
                                          const query_tile *tiles, int query_end,
                                          const backward_tensors *x, int head_dim)
{
    enum { CHUNKS = sizeof(query_tile) / 16 };
    const int64_t token = step.token;
    const int column = w->head * head_dim, rows = step.rows;
    load_rows<D, shape::QUERIES, shape::THREADS>(
        threadIdx.x, stage, x->qkv + token * x->qkv_stride + column, x->qkv_stride, rows, head_dim);
    load_rows<D, shape::QUERIES, shape::THREADS>(threadIdx.x, stage + shape::QUERIES * D,
                                                 x->dout + token * x->dout_stride + column,
                                                 x->dout_stride, rows, head_dim);
    if (threadIdx.x < shape::QUERIES / 2)
        cp_async_16(statistics + threadIdx.x * 2,
                    x->statistics +
                        ((int64_t)w->head * x->most_backward + w->tile) * BACKWARD_ROWS + w->begin +
                        threadIdx.x * 2);
    const int chunk = threadIdx.x - (shape::THREADS - 2 * CHUNKS);
    if (chunk >= 0 && w->tile + chunk / CHUNKS < query_end)
        cp_async_16(reinterpret_cast<uint4 *>(places) + chunk,
                    reinterpret_cast<const uint4 *>(tiles + w->tile) + chunk);
    cp_async_commit();
}

/* s += a b^T for M fragments of 16 rows of `a` from `row` on, and CHUNK rows of b, both in shared memory.  Keys and values
 * are read again for every chunk: held in registers they would leave too few for anything else. */
template <typename shape, int D>
__device__ __forceinline__ void transposed_scores(float (&s)[shape::M][shape::CHUNK / 8][4],
                                                  const bf16 *a, int row, const bf16 *b)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t f[shape::M][4];
#pragma unroll
        for (int m = 0; m < shape::M; m++) {
            ldmatrix_x4(f[m], a + chunk_at<D>(row + m * 16 + lane % 16, c * 2 ^ lane / 16));
        }
#pragma unroll
        for (int n = 0; n < shape::CHUNK / 8; n += 2) {
            uint32_t r[4];
            ldmatrix_x4(r, b + chunk_at<D>(n * 8 + lane % 8 + lane / 16 * 8, c * 2 ^ lane / 8 % 2));
            const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
            for (int m = 0; m < shape::M; m++) {
                mma_m16n8k16_bf16(s[m][n], f[m], b0, s[m][n]);
                mma_m16n8k16_bf16(s[m][n + 1], f[m], b1, s[m][n + 1]);
            }
        }
    }
}

/* acc += a b for 16 rows of b in shared memory. */
template <typename shape, int D>
__device__ __forceinline__ void accumulate(float (&acc)[shape::M][shape::N][4],
                                           const uint32_t (&a)[shape::M][4], const bf16 *b)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < shape::N; j += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, b + chunk_at<D>(lane % 16, j ^ lane / 16));
        const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
        for (int m = 0; m < shape::M; m++) {
            mma_m16n8k16_bf16(acc[m][j], a[m], b0, acc[m][j]);
            mma_m16n8k16_bf16(acc[m][j + 1], a[m], b1, acc[m][j + 1]);
        }
    }
}

/* Block b of 16 queries of x as a left operand. */
template <int M, int N>
__device__ __forceinline__ void left_operand(uint32_t (&a)[M][4], const float (&x)[M][N][4], int b)
{
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[m][i] = pack_bf16(x[m][b * 2 + i / 2][i % 2 * 2], x[m][b * 2 + i / 2][i % 2 * 2 + 1]);
        }
    }
}

/* The keys of a warp: rows `row` on of the tile, at positions `first` on, `count` of them. */
typedef struct warp_keys {
    int row, first, count;
} warp_keys;

/* 16 queries, from position `query` on, past the warp's keys: dk, dv and ds^T. */
template <typename shape, int D>
__device__ __forceinline__ void past_keys(float (&dk)[shape::M][shape::N][4],
                                          float (&dv)[shape::M][shape::N][4], const bf16 *memory,
                                          uint32_t *ds, const bf16 *q, const bf16 *dout,
                                          const float2 *statistics, int query, warp_keys keys,
                                          int column, float factor, int window)
{
    const bool keep = column == 0 && keys.count > 0; /* one of two halves has it kept */
    enum { M = shape::M, ROWS = M * 16, CHUNK = shape::CHUNK };
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4 * 2;
    const int last = keys.first + ROWS - 1, end = query + CHUNK - 1;
    float s[M][CHUNK / 8][4] = {}, dp[M][CHUNK / 8][4] = {};
    const bool none = keys.first > end || keys.count <= 0 || (window > 0 && query - last >= window);
    if (!none) {
        transposed_scores<shape, D>(s, memory, keys.row, q);
        transposed_scores<shape, D>(dp, memory + shape::KEYS * D, keys.row, dout);
        const bool whole =
            last <= query && keys.count >= ROWS && (window == 0 || end - keys.first < window);
#pragma unroll
        for (int n = 0; n < CHUNK / 8; n++) {
            const float4 of = *reinterpret_cast<const float4 *>(statistics + n * 8 + t);
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float p = exp2_approx(fmaf(s[m][n][e], factor, e % 2 == 0 ? -of.x : -of.z));
                    if (!whole) {
                        const int key = m * 16 + e / 2 * 8 + group;
                        const int back = query + n * 8 + t + e % 2 - keys.first - key;
                        if (back < 0 || (window > 0 && back >= window) || key >= keys.count)
                            p = 0.0f;
                    }
                    s[m][n][e] = p;
                    dp[m][n][e] = p * (dp[m][n][e] - (e % 2 == 0 ? of.y : of.w));
                }
            }
        }
#pragma unroll
        for (int b = 0; b < CHUNK / 16; b++) {
            uint32_t a[M][4];
            left_operand(a, s, b);
            accumulate<shape, D>(dv, a, dout + b * 16 * D + column);
        }
    }
#pragma unroll
    for (int b = 0; b < CHUNK / 16; b++) {
        uint32_t a[M][4];
        left_operand(a, dp, b);
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (keep) ds[(m * BLOCK_COLUMNS + b) * BLOCK_WORDS + i * 32] = a[m][i];
            }
        }
        if (!none) accumulate<shape, D>(dk, a, q + b * 16 * D + column);
    }
}

/* Tokens of the tile that nobody asks about get dq = 0. */
__device__ __forceinline__ void zero_unasked(const backward_tensors *x, const key_tile &key,
                                             int head, int heads, int column, int columns,
                                             int head_dim, int threads)
{
    const int chunks = min(columns, head_dim - column) / 8;
    if (key.token >= key.ask_begin && key.token + key.keys <= key.ask_end) return;
    for (int i = threadIdx.x; i < key.keys * heads * chunks; i += threads) {
        const int64_t token = key.token + i / chunks / heads;
        if (token >= key.ask_begin && token < key.ask_end) continue;
        *reinterpret_cast<uint4 *>(x->dqkv + token * x->dqkv_stride +
                                   (head + i / chunks % heads) * head_dim + column +
                                   i % chunks * 8) = make_uint4(0, 0, 0, 0);
    }
}

/* A block per tile of keys, kv head, part of its query heads and half of the columns: 8 D flops a head and visible pair;
 * 12 D where there are two halves, as both need the scores.  A half moves 4 D bytes a query, head and tile of keys from the
 * second cache, and one of them 2 bytes a pair to a slot. */
template <int D, int QUERIES>
static __global__ void __launch_bounds__(backward_shape<D, QUERIES>::THREADS,
                                         backward_shape<D, QUERIES>::BLOCKS_PER_SM)
    attention_backward_kernel(backward_tensors x, const plan_counts *counts,
                              const query_tile *tiles, const key_tile *key_tiles,
                              attention_sizes sizes, int pass)
{
    typedef backward_shape<D, QUERIES> shape;
    enum { M = shape::M, N = shape::N, THREADS = shape::THREADS, KEYS = shape::KEYS };
    int block = blockIdx.x;
    const int half = block % shape::HALVES;
    block /= shape::HALVES;
    const int part = block % x.parts;
    block /= x.parts;
    const int at_once = kv_heads_at_once(&x, counts, sizes);
    const int first_kv_head = pass * at_once, kv_head = first_kv_head + block % sizes.kv_heads;
    const int tile = block / sizes.kv_heads;
    if (block % sizes.kv_heads >= at_once || kv_head >= sizes.kv_heads || tile >= counts->keys)
        return;
    const key_tile *key = key_tiles + tile;
    const int dim = sizes.head_dim, ratio = sizes.heads / sizes.kv_heads;
    const int head_begin = kv_head * ratio + part * x.heads_per_part;
    const int head_end = min(head_begin + x.heads_per_part, (kv_head + 1) * ratio);
    const int column = half * shape::COLUMNS;

    DYN_SHARED(bf16, memory);
    bf16 *stages = memory + shape::STAGE;
    float2 *statistics = reinterpret_cast<float2 *>(memory + shape::ELEMENTS);
    query_tile *places = reinterpret_cast<query_tile *>(statistics + 2 * QUERIES);
    block_place *here = reinterpret_cast<block_place *>(places + 4);
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * M * 16;
    const int k_column = (sizes.heads + kv_head) * dim, v_ahead = sizes.kv_heads * dim;
    const int64_t token = key->token;
    const bf16 *from = x.qkv + token * x.qkv_stride + k_column;
    load_rows<D, KEYS, THREADS>(threadIdx.x, memory, from, x.qkv_stride, key->keys, dim);
    load_rows<D, KEYS, THREADS>(threadIdx.x, memory + KEYS * D, from + v_ahead, x.qkv_stride,
                                key->keys, dim);
    query_walk next;
    const step_rows first = enter(&next, tiles, key, head_begin, head_end);
    if (next.head < head_end)
        load_step<shape, D>(stages, statistics, places, &next, first, tiles, key->query_end, &x,
                            dim);
    if (threadIdx.x == 0)
        *here = {*key,     head_begin,    kv_head, tile, first_kv_head * ratio,
                 head_end, counts->slots, {}};
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads(); /* keys, values, the first step and the block's tile have arrived */
    key = &here->key;

    float dk[M][N][4] = {}, dv[M][N][4] = {};
    int stage = 0;
#pragma unroll 1
    while (next.head < here->head_end) {
        const int query = next.position + next.begin;
        const int slot = (next.head - here->first_head) * here->slots + next.slot;
        const int block_at = (row * BLOCK_COLUMNS + next.begin) / 16 * BLOCK_WORDS + lane;
        cp_async_wait<0>();
        __syncthreads(); /* the step has arrived, and the other stage has been read */
        const step_rows step =
            advance<QUERIES>(&next, tiles, places + stage * 2, key, here->head_end);
        if (next.head < here->head_end)
            load_step<shape, D>(stages + (stage ^ 1) * shape::STAGE_SIZE,
                                statistics + (stage ^ 1) * QUERIES, places + (stage ^ 1) * 2, &next,
                                step, tiles, key->query_end, &x, dim);
        const warp_keys keys = {row, key->position + row, key->keys - row};
        const bf16 *q = stages + stage * shape::STAGE_SIZE;
#pragma unroll 1
        for (int c = 0; c < QUERIES / shape::CHUNK; c++) {
            const int at = c * shape::CHUNK;
            uint32_t *ds = x.ds + (int64_t)slot * (KEYS * BACKWARD_ROWS / 2) + block_at +
                           at / 16 * BLOCK_WORDS;
            past_keys<shape, D>(dk, dv, memory, ds, q + at * D, q + (QUERIES + at) * D,
                                statistics + stage * QUERIES + at, query + at, keys, column,
                                x.factor, sizes.window);
        }
        stage ^= 1;
    }

    const int valid = key->keys - row, head = here->head_begin, own = here->kv_head;
    zero_unasked(&x, *key, head, here->head_end - head, column, shape::COLUMNS, dim, THREADS);
    if (x.dkv != NULL) {
        float4 *to =
            x.dkv +
            ((((int64_t)own * x.parts + (head - own * ratio) / x.heads_per_part) * x.most_keys +
              here->tile) *
                 shape::HALVES +
             half) *
                2 * shape::DKV_VECTORS +
            threadIdx.x;
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                to[(m * N + j) * THREADS] =
                    make_float4(dk[m][j][0], dk[m][j][1], dk[m][j][2], dk[m][j][3]);
                to[(m * N + j) * THREADS + shape::DKV_VECTORS] =
                    make_float4(dv[m][j][0], dv[m][j][1], dv[m][j][2], dv[m][j][3]);
            }
        }
        return;
    }
    __syncthreads(); /* the last step has been read, and its place is one for rows */
    bf16 *dk_column =
        x.dqkv + (int64_t)(key->token + row) * x.dqkv_stride + (sizes.heads + own) * dim + column;
    bf16 *staging = memory + shape::STAGING + row * shape::COLUMNS;
    write_fragments<M, N>(dk_column, x.dqkv_stride, valid, dim - column, dk, sizes.scale, staging);
    write_fragments<M, N>(dk_column + sizes.kv_heads * dim, x.dqkv_stride, valid, dim - column, dv,
                          1.0f, staging + KEYS * shape::COLUMNS);
}

/* The sum of `count` tiles of fragments, `apart` float4 from each other. */
template <int M, int N, int THREADS>
__device__ __forceinline__ void add_fragments(float (&sum)[M][N][4], const float4 *x, int count,
                                              int64_t apart)
{
    for (int i = 0; i < count; i++) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float4 v = __ldcs(x + (m * N + j) * THREADS + threadIdx.x);
                sum[m][j][0] += v.x;
                sum[m][j][1] += v.y;
                sum[m][j][2] += v.z;
                sum[m][j][3] += v.w;
            }
        }
        x += apart;
    }
}

/* dk or dv of a tile of keys and kv head: the shares of all parts, in order. */
template <int D, int QUERIES>
static __global__ void __launch_bounds__(backward_shape<D, QUERIES>::THREADS)
    attention_dkv_kernel(backward_tensors x, const plan_counts *counts, const key_tile *key_tiles,
                         attention_sizes sizes)
{
    typedef backward_shape<D, QUERIES> shape;
    enum { M = shape::M, N = shape::N };
    int block = blockIdx.x;
    const int which = block % 2, half = block / 2 % shape::HALVES;
    block /= 2 * shape::HALVES;
    const int kv_head = block % sizes.kv_heads, tile = block / sizes.kv_heads;
    if (tile >= counts->keys) return;
    const key_tile *key = key_tiles + tile;
    const int row = threadIdx.x / 32 * M * 16, column = half * shape::COLUMNS;
    float sum[M][N][4] = {};
    const int64_t apart = (int64_t)shape::HALVES * 2 * shape::DKV_VECTORS;
    add_fragments<M, N, shape::THREADS>(
        sum,
        x.dkv + ((int64_t)kv_head * x.parts * x.most_keys + tile) * apart +
            (half * 2 + which) * shape::DKV_VECTORS,
        x.parts, x.most_keys * apart);
    SHARED(uint4, staging, [shape::DKV_VECTORS / 2]);
    write_fragments<M, N>(
        x.dqkv + (int64_t)(key->token + row) * x.dqkv_stride +
            (sizes.heads + which * sizes.kv_heads + kv_head) * sizes.head_dim + column,
        x.dqkv_stride, key->keys - row, sizes.head_dim - column, sum,
        which == 0 ? sizes.scale : 1.0f, reinterpret_cast<bf16 *>(staging) + row * shape::COLUMNS);
}

#endif /* CUDPO_KERNELS_ATTENTION_DKV_H */
