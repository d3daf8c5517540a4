/* sizes.h - what launchers ask of scratch, in plain C: the kernels take these sizes, and who plans a run without a GPU adds
 * them up.  Each follows from the shape of a call alone. */
#ifndef CUDPO_KERNELS_SIZES_H
#define CUDPO_KERNELS_SIZES_H

#include "kernels/types.h"
#include "tensor/tensor.h"

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n units of work, that many a block, are no more blocks than a grid can have. */
static inline bool fits_grid(int64_t n, int each)
{
    return n <= (int64_t)INT32_MAX * each;
}

/* ---- indices in order: order.cu ---- */

enum { ORDER_TILE = 1024 };

static inline int64_t order_tiles(int64_t n)
{
    return (n + ORDER_TILE - 1) / ORDER_TILE;
}

/* 0 where n is not in 1 .. 2^31-1. */
static inline size_t order_bytes(int64_t n)
{
    if (n < 1 || n > INT32_MAX) return 0;
    return (size_t)(order_tiles(n) * ORDER_TILE + n) * sizeof(uint64_t);
}

/* ---- RMSNorm backward: norm.h ---- */

enum { NORM_BLOCKS = 396 /* at most: three for each SM of an H100 or H200 */ };

/* The blocks of a backward pass whose block takes `batch` rows at a time: one row of scratch each. */
static inline unsigned norm_blocks(int64_t count, int64_t batch, int blocks_per_sm)
{
    const int64_t blocks = (count + batch - 1) / batch, most = NORM_BLOCKS / 3 * blocks_per_sm;
    return (unsigned)(blocks < most ? blocks : most);
}

/* 0 for what no launcher takes. */
static inline size_t norm_bytes(int64_t count, int64_t D)
{
    if (count < 0 || D < 1 || D > INT32_MAX) return 0;
    return (size_t)norm_blocks(count, 1, 3) * (size_t)D * sizeof(float);
}

static inline size_t head_norm_bytes(int64_t T, int64_t heads, int64_t D)
{
    if (T < 0 || heads < 1 || T > INT64_MAX / heads) return 0;
    return norm_bytes(T * heads, D);
}

/* ---- the gradient of a bias: bias.cu ---- */

enum {
    BIAS_WARPS = 8,     /* of a block */
    BIAS_BLOCKS = 528,  /* where rows allow: four for each SM of an H100 or H200 */
    BIAS_PARTIALS = 256 /* rows of partial sums at most, which the second half reads again */
};

/* Rows of partial sums, of T rows that `wide` blocks stand beside each other to cover. */
static inline int64_t bias_partial_rows(int64_t T, int64_t wide)
{
    const int64_t high = BIAS_BLOCKS / wide > 1 ? BIAS_BLOCKS / wide : 1;
    const int64_t most = high < BIAS_PARTIALS ? high : (int64_t)BIAS_PARTIALS;
    const int64_t rows = (T + BIAS_WARPS - 1) / BIAS_WARPS;
    return most < rows ? most : rows;
}

/* Columns that a grid can have, 32 a block. */
static inline bool is_width(int64_t N)
{
    return N >= 1 && fits_grid(N, 32);
}

static inline size_t bias_bytes(int64_t T, int64_t N)
{
    if (T < 1 || T > INT64_MAX / 16 || !is_width(N)) return 0;
    return (size_t)bias_partial_rows(T, 1) * (size_t)N * sizeof(float);
}

/* ---- the norm of a gradient: sum_squares.cu ---- */

enum { SQUARES_BLOCKS = 528 };

static inline size_t sum_squares_bytes(void)
{
    return SQUARES_BLOCKS * sizeof(double);
}

/* ---- attention: a plan of a pack's tiles, and the slots of its backward pass ---- */

enum {
    FORWARD_ROWS = 128, /* queries of a tile of the forward pass */
    BACKWARD_ROWS = 64, /* and of the backward pass */
    MAX_HEAD_DIM = 256,
    MAX_TOKENS = 1 << 19, /* so that slots can be counted in 32 bits */
    MAX_PARTS = 8         /* blocks to a tile and head, of any kernel */
};

/* Keys of a tile: as many as one block keeps dk and dv of in registers. */
static inline int key_rows(int head_dim)
{
    return head_dim <= 128 ? 128 : 64;
}

/* A tile of queries of one segment.  Its first query is number `index` of the segment and sees the whole prompt and keys
 * 0 .. index of the segment, window permitting.  The keys that any of its queries sees are in prompt_count tiles of the
 * prompt from number prompt_first on and own_count tiles of the segment from own_first on; the backward pass has a slot for
 * the share that each of them has in dq, from number `slot` on. */
typedef struct query_tile {
    int32_t token, rows, index, prompt_begin, prompt_length;
    int32_t slot, prompt_first, prompt_count, own_first, own_count;
    int32_t unused[2];
} query_tile;

/* A tile of keys of one segment: tile `number` of it; `position` is that of its first key.  Backward query tiles
 * query_begin .. query_end-1 may see it, those before own_end as part of their own segment, the others as their prompt.
 * Tokens ask_begin .. ask_end-1 of the segment ask. */
typedef struct key_tile {
    int32_t token, keys, number, position;
    int32_t query_begin, query_end, own_end, ask_begin, ask_end;
    int32_t unused[3];
} key_tile;

/* A segment, and the numbers of its first tiles; group_end is the segment after the last that sees this one. */
typedef struct plan_segment {
    int32_t begin, length, prompt_begin, prompt_length, ask_begin, ask_end, group_end;
    int32_t first_forward, first_backward, first_key;
    int32_t unused[2];
} plan_segment;

/* The head of a plan.  All counts are 0 where the segments were no pack. */
typedef struct plan_counts {
    int32_t forward, backward, keys, slots;
    int64_t key; /* plan_key(): what it was made for */
    int32_t unused[10];
} plan_counts;

/* Most tiles of T tokens in N segments. */
static inline int64_t most_forward(int64_t T, int64_t N)
{
    return T / FORWARD_ROWS + N;
}

static inline int64_t most_queries(int64_t T, int64_t N)
{
    return T / BACKWARD_ROWS + N;
}

static inline int64_t most_keys(int64_t T, int64_t N)
{
    return T / 64 + N;
}

/* Words of a plan: its head, its lists with the most entries they can have, and a number for each tile that is ranked. */
static inline int64_t plan_words(int64_t T, int64_t N)
{
    return (int64_t)(sizeof(plan_counts) / 4) + (int64_t)(sizeof(plan_segment) / 4) * N +
           (int64_t)(sizeof(query_tile) / 4) * (most_forward(T, N) + most_queries(T, N)) +
           (int64_t)(sizeof(key_tile) / 4) * most_keys(T, N) + most_forward(T, N) + most_keys(T, N);
}

/* Can there be a plan of T tokens and N segments? */
static inline bool is_pack_size(int64_t T, int64_t N)
{
    return T >= 0 && T <= MAX_TOKENS && N >= 0 && N <= MAX_TOKENS;
}

static inline size_t plan_bytes(int64_t T, int64_t N)
{
    const int64_t words = is_pack_size(T, N) ? plan_words(T, N) : 0;
    return ((size_t)words * sizeof(int32_t) + 15) / 16 * 16;
}

static inline bool attention_shape_valid(attention_shape s)
{
    return s.heads >= 1 && s.kv_heads >= 1 && s.heads % s.kv_heads == 0 && s.head_dim >= 1 &&
           s.head_dim <= MAX_HEAD_DIM && s.window >= 0 && s.scale > 0.0f && s.scale <= FLT_MAX;
}

/* Can a grid have a block for each of these tiles, heads and parts? */
static inline bool are_blocks(int64_t tiles, int heads)
{
    return tiles * heads <= INT32_MAX / MAX_PARTS;
}

/* A query at token t sees at most t / keys + 2 tiles of keys, of two segments.  Tiles of queries end at tokens that are
 * BACKWARD_ROWS apart, but for the last of each segment.  A window of w keys and its tile of queries meet at most
 * (w + rows) / keys + 4. */
static inline int64_t most_slots(int64_t T, int64_t N, attention_shape s)
{
    const int64_t keys = key_rows(s.head_dim), full = T / BACKWARD_ROWS;
    const int64_t all = full * (T / keys + 2) - full * (full - 1) / 2 * BACKWARD_ROWS / keys +
                        full + N * (T / keys + 2) + 1;
    if (s.window == 0) return all;
    const int64_t near_by = (full + N) * (((int64_t)s.window + BACKWARD_ROWS) / keys + 4) + 1;
    return near_by < all ? near_by : all;
}

/* How the work and the scratch of a call of the backward pass are divided: by its shape alone. */
typedef struct division {
    int D;                                /* head_dim of the kernels */
    int parts, heads_per_part;            /* of a kv head's query heads */
    int64_t keys, queries;                /* most tiles */
    int64_t slots;                        /* most of a head */
    size_t counts, statistics, dkv, slot; /* bytes; slot: of one slot */
} division;

static inline division divide(int64_t T, int64_t N, attention_shape s)
{
    enum { BLOCKS_WANTED = 1024 }; /* some waves of blocks of different length on any GPU */
    const int ratio = s.heads / s.kv_heads, keys = key_rows(s.head_dim);
    const int64_t blocks = (T / keys + 1) * s.kv_heads;
    const int64_t parts = (BLOCKS_WANTED + blocks - 1) / blocks;
    division d;
    d.D = s.head_dim <= 64 ? 64 : s.head_dim <= 96 ? 96 : s.head_dim <= 128 ? 128 : 256;
    d.parts = parts < ratio ? (int)parts : ratio;
    d.heads_per_part = (ratio + d.parts - 1) / d.parts;
    if (d.heads_per_part == 1 && ratio > 1) d.heads_per_part = 2; /* half the shares of dk and dv */
    d.parts = (ratio + d.heads_per_part - 1) / d.heads_per_part;
    d.keys = T / keys + N;
    d.queries = most_queries(T, N);
    d.slots = most_slots(T, N, s);
    d.counts = sizeof(plan_counts);
    d.statistics = 2 * sizeof(float) * BACKWARD_ROWS * (size_t)(s.heads * d.queries);
    d.dkv = d.parts == 1 ? 0
                         : 2 * sizeof(float) * (size_t)keys * (size_t)d.D *
                               (size_t)(d.keys * s.kv_heads * d.parts);
    d.slot = dtype_size(DTYPE_BF16) * BACKWARD_ROWS * (size_t)keys;
    return d;
}

/* Bytes for `kv_heads` of the kv heads at a time; 0 where the launcher refuses the sizes. */
static inline size_t attention_backward_bytes(int64_t T, int64_t N, attention_shape s, dtype type,
                                              int kv_heads)
{
    if (!attention_shape_valid(s) || !is_pack_size(T, N) || T == 0) return 0;
    if (!are_blocks(most_queries(T, N), s.heads)) return 0;
    if (kv_heads < 1 || kv_heads > s.kv_heads) return 0;
    const division d = divide(T, N, s);
    if (type == DTYPE_F32) return d.counts + d.statistics;
    return d.counts + d.statistics + d.dkv +
           d.slot * (size_t)(d.slots * kv_heads * (s.heads / s.kv_heads));
}

#endif /* CUDPO_KERNELS_SIZES_H */
