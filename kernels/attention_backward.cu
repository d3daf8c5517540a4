/* attention_backward.cu - attention over a pack, backward, in bf16 on tensor cores.
 *
 * With p = e^(scale q k^T - lse) and delta = sum(dout * out) of each query:
 *     dv = p^T dout,   ds = p (dout v^T - delta),   dq = scale ds k,   dk = scale ds^T q.
 * Source: Dao 2023, arXiv:2307.08691.  A block keeps the dk and dv of a tile of keys and takes all queries that see it
 * past them.  The tile's share in the dq of a tile of queries goes to a slot of its own, and slots are added in order. */
#include "attention_f32.h"

/* Where a block is on its way over heads, tiles of queries and steps of a tile. */
typedef struct query_walk {
    int head, tile, begin; /* the step: its first row in the tile */
    int position, slot;    /* of that row; where the share in dq goes */
    bool more;
} query_walk;

/* What a block is made of.  Each warp has M times 16 keys; scores are transposed, keys down and queries across, so that p^T
 * and ds^T are left operands as they come out of the multiplication.  dq = ds k is cut into ROW_WARPS x COLUMN_WARPS
 * pieces of DQ_M x DQ_N fragments; for it ds goes through shared memory. */
template <int D, int QUERIES_> struct backward_shape {
    enum {
        QUERIES = QUERIES_,
        STEPS = BACKWARD_ROWS / QUERIES, /* to a tile of queries */
        KEYS = D <= 128 ? 128 : 64,
        COLUMNS = D <= 128
                      ? D
                      : 128, /* of dk, dv and dq: with D = 256 two blocks have half of them each */
        HALVES = D / COLUMNS,
        M = D <= 64 ? 2 : 1,
        N = COLUMNS / 8,
        WARPS = KEYS / 16 / M,
        THREADS = WARPS * 32,
        HELD =
            D <=
            128, /* values stay in registers, and of the keys as many columns, times 16, as there is room for */
        VALUES_HELD = HELD ? D / 16 : 0,
        KEYS_HELD = D == 64    ? 1
                    : D == 96  ? 6
                    : D == 128 ? 6
                               : 0,
        ROW_WARPS = D == 96         ? 4
                    : QUERIES == 16 ? 1
                                    : 2,
        COLUMN_WARPS = WARPS / ROW_WARPS,
        DQ_M = QUERIES / 16 / ROW_WARPS,
        DQ_N = COLUMNS / 8 / COLUMN_WARPS,
        DQ_AT_ONCE = D == 128 ? 1 : DQ_M,   /* fragments down; there are registers for no more */
        DQ_VECTORS = DQ_M * DQ_N * THREADS, /* float4 of dq a step */
        SLOT_VECTORS = DQ_VECTORS * STEPS,  /* and a slot and half */
        DKV_VECTORS = M * N * THREADS,      /* of dk, and of dv, of a tile and half */
        BLOCKS_PER_SM = D <= 64 ? 2 : 1,
        DS =
            KEYS *
            D, /* where ds^T begins in shared memory: over the values once those are in registers */
        STAGE = DS + (HELD ? KEYS * (D > QUERIES ? D : QUERIES) : KEYS * D + KEYS * QUERIES),
        STAGE_SIZE = 2 * QUERIES * D, /* queries, then dout */
        ELEMENTS = STAGE + 2 * STAGE_SIZE,
        STAGING = ELEMENTS - 2 * KEYS * COLUMNS, /* of dk and dv, when all is done */
        BYTES = ELEMENTS * (int)sizeof(bf16) + 2 * QUERIES * (int)sizeof(float2) +
                2 * (int)sizeof(query_walk) + (7 + THREADS) * (int)sizeof(int)
    };
};

/* The tensors of the backward pass. */
typedef struct backward_tensors {
    bf16 *dqkv;             /* [T,Q+2KV] */
    const bf16 *dout, *qkv; /* [T,Q], [T,Q+2KV] */
    int dqkv_stride, dout_stride, qkv_stride;
    float2 *
        statistics; /* [H,tiles,BACKWARD_ROWS] lse log2 e, and delta; of rows without a query +inf and 0 */
    float4 *dq;  /* slots */
    float4 *dkv; /* [K,parts,key tiles,HALVES,2] shares of dk and dv, or NULL */
    int64_t most_backward, most_keys;
    int64_t capacity; /* slots of dq for all heads together */
    int parts, heads_per_part;
} backward_tensors;

/* lse and delta of a tile of queries and head, eight lanes a row.  Reads 4 D + 4 bytes a row and head. */
enum { STATISTICS_THREADS = 128, STATISTICS_LANES = 8 };

static __global__ void __launch_bounds__(STATISTICS_THREADS)
    attention_statistics_kernel(backward_tensors x, const bf16 *out, int64_t out_stride,
                                const float *lse, int64_t lse_stride, const plan_counts *counts,
                                const query_tile *tiles, int heads, int head_dim)
{
    const int head = blockIdx.x % heads, tile = blockIdx.x / heads;
    if (tile >= counts->backward) return;
    const int64_t token = tiles[tile].token;
    const int rows = tiles[tile].rows, lane = threadIdx.x % STATISTICS_LANES;
    float2 *to = x.statistics + (head * x.most_backward + tile) * BACKWARD_ROWS;
#pragma unroll
    for (int i = 0; i < BACKWARD_ROWS * STATISTICS_LANES / STATISTICS_THREADS; i++) {
        const int row = (threadIdx.x + i * STATISTICS_THREADS) / STATISTICS_LANES;
        const bf16 *o = out + (token + row) * out_stride + head * head_dim;
        const bf16 *d = x.dout + (token + row) * x.dout_stride + head * head_dim;
        float sum = 0.0f;
        for (int c = lane; c < (row < rows ? head_dim / 8 : 0); c += STATISTICS_LANES) {
            float a[8], b[8];
            load_vector(a, o + c * 8);
            load_vector(b, d + c * 8);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum = fmaf(a[j], b[j], sum);
            }
        }
#pragma unroll
        for (int offset = 1; offset < STATISTICS_LANES; offset *= 2) {
            sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        }
        if (lane == 0)
            to[row] = row < rows ? make_float2(lse[(token + row) * lse_stride + head] * LOG2_E, sum)
                                 : make_float2(INFINITY, 0.0f);
    }
}

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

/* Does any query of the tile see the keys?  Then slot is the number of their share. */
__device__ __forceinline__ bool sees_keys(int *slot, const query_tile *t, bool own,
                                          const key_tile *key)
{
    const int number = key->number - (own ? t->own_first : t->prompt_first);
    *slot = t->slot + (own ? t->prompt_count : 0) + number;
    return number >= 0 && number < (own ? t->own_count : t->prompt_count);
}

/* To the next step; more is false behind the last. */
template <int QUERIES>
__device__ __forceinline__ void advance(query_walk *w, const query_tile *tiles, const key_tile *key,
                                        int head_end)
{
    if (!w->more) return;
    w->begin += QUERIES;
    w->position += QUERIES;
    if (QUERIES < BACKWARD_ROWS && w->tile >= key->query_begin && w->begin < tiles[w->tile].rows)
        return;
    do {
        if (++w->tile >= key->query_end) {
            w->tile = key->query_begin;
            if (++w->head >= head_end) {
                w->more = false;
                return;
            }
        }
    } while (!sees_keys(&w->slot, tiles + w->tile, w->tile < key->own_end, key));
    w->begin = 0;
    w->position = tiles[w->tile].prompt_length + tiles[w->tile].index;
}

/* Ask for a step's queries, dout and statistics. */
template <typename shape, int D>
__device__ __forceinline__ void load_step(int thread, bf16 *stage, float2 *statistics,
                                          const query_walk *w, const query_tile *tiles,
                                          const backward_tensors *x, int head_dim)
{
    const int64_t token = tiles[w->tile].token + w->begin;
    const int rows = tiles[w->tile].rows - w->begin, column = w->head * head_dim;
    load_rows<D, shape::QUERIES, shape::THREADS>(
        thread, stage, x->qkv + token * x->qkv_stride + column, x->qkv_stride, rows, head_dim);
    load_rows<D, shape::QUERIES, shape::THREADS>(thread, stage + shape::QUERIES * D,
                                                 x->dout + token * x->dout_stride + column,
                                                 x->dout_stride, rows, head_dim);
    if (thread < shape::QUERIES / 2)
        cp_async_16(statistics + thread * 2,
                    x->statistics +
                        ((int64_t)w->head * x->most_backward + w->tile) * BACKWARD_ROWS + w->begin +
                        thread * 2);
    cp_async_commit();
}

/* s += a b^T for M fragments of 16 rows of `a`, of which HELD times 16 columns are in registers and the others at a_at in
 * shared memory, and 16 rows of b at b_at. */
template <typename shape, int D, int HELD>
__device__ __forceinline__ void transposed_scores(
    float (&s)[shape::M][2][4], const uint32_t (&held)[shape::M][HELD > 0 ? HELD : 1][4],
    const bf16 *memory, int a_at, int b_at)
{
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t r[4];
        ldmatrix_x4(r, memory + further<D>(b_at, c * 2));
        const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
        for (int m = 0; m < shape::M; m++) {
            if (c < HELD) {
                mma_m16n8k16_bf16(s[m][0], held[m][c < HELD ? c : 0], b0, s[m][0]);
                mma_m16n8k16_bf16(s[m][1], held[m][c < HELD ? c : 0], b1, s[m][1]);
            } else {
                uint32_t f[4];
                ldmatrix_x4(f, memory + further<D>(a_at, c * 2) + m * 16 * D);
                mma_m16n8k16_bf16(s[m][0], f, b0, s[m][0]);
                mma_m16n8k16_bf16(s[m][1], f, b1, s[m][1]);
            }
        }
    }
}

/* acc += a b for 16 rows of b at b_at in shared memory. */
template <typename shape, int D>
__device__ __forceinline__ void accumulate(float (&acc)[shape::M][shape::N][4],
                                           const uint32_t (&a)[shape::M][4], const bf16 *memory,
                                           int b_at)
{
#pragma unroll
    for (int j = 0; j < shape::N; j += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, memory + further<D>(b_at, j));
        const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
        for (int m = 0; m < shape::M; m++) {
            mma_m16n8k16_bf16(acc[m][j], a[m], b0, acc[m][j]);
            mma_m16n8k16_bf16(acc[m][j + 1], a[m], b1, acc[m][j + 1]);
        }
    }
}

/* 16 queries, whose first is at position `query` and at `at` in shared memory, past the keys of the warp of this thread of
 * the block: dk, dv and ds^T.  The tile has `count` keys from position `first` on. */
template <typename shape, int D>
__device__ __forceinline__ void past_keys(
    float (&dk)[shape::M][shape::N][4], float (&dv)[shape::M][shape::N][4],
    const uint32_t (&k_held)[shape::M][shape::KEYS_HELD > 0 ? shape::KEYS_HELD : 1][4],
    const uint32_t (&v_held)[shape::M][shape::VALUES_HELD > 0 ? shape::VALUES_HELD : 1][4],
    const bf16 *memory, bf16 *ds, int at, const float2 *statistics, int chunk, int query,
    int thread, int first, int count, int column, float factor, int window)
{
    enum { M = shape::M, ROWS = M * 16, DOUT = shape::QUERIES * D };
    const int lane = thread % 32, group = lane / 4, t = lane % 4 * 2, row = thread / 32 * ROWS;
    const int left_at = at + row_at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    const int right_at = at + row_at<D>(lane % 16, lane / 16) + column;
    const int k_at = row_at<D>(row + lane % 16, lane / 16);
    first += row;
    count -= row;
    const int last = first + ROWS - 1;
    uint32_t a[M][4];
    float s[M][2][4] = {}, dp[M][2][4] = {};
    const bool none = first > query + 15 || count <= 0 || (window > 0 && query - last >= window);
    if (!none) {
        transposed_scores<shape, D, shape::KEYS_HELD>(s, k_held, memory, k_at, left_at);
        transposed_scores<shape, D, shape::VALUES_HELD>(dp, v_held, memory, k_at + shape::DS,
                                                        left_at + DOUT);
        const bool whole =
            last <= query && count >= ROWS && (window == 0 || query + 15 - first < window);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            const float4 of = *reinterpret_cast<const float4 *>(statistics + n * 8 + t);
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float p = exp2_approx(fmaf(s[m][n][e], factor, e % 2 == 0 ? -of.x : -of.z));
                    if (!whole) {
                        const int key = m * 16 + e / 2 * 8 + group;
                        const int back = query + n * 8 + t + e % 2 - first - key;
                        if (back < 0 || (window > 0 && back >= window) || key >= count) p = 0.0f;
                    }
                    s[m][n][e] = p;
                    dp[m][n][e] = p * (dp[m][n][e] - (e % 2 == 0 ? of.y : of.w));
                }
            }
        }
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                a[m][i] = pack_bf16(s[m][i / 2][i % 2 * 2], s[m][i / 2][i % 2 * 2 + 1]);
            }
        }
        accumulate<shape, D>(dv, a, memory, right_at + DOUT);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[m][i] = pack_bf16(dp[m][i / 2][i % 2 * 2], dp[m][i / 2][i % 2 * 2 + 1]);
            *reinterpret_cast<uint32_t *>(
                ds + chunk_at<shape::QUERIES>(row + m * 16 + i % 2 * 8 + group, chunk * 2 + i / 2) +
                t) = a[m][i];
        }
    }
    if (!none) accumulate<shape, D>(dk, a, memory, right_at);
}

/* The step's share of dq, of at least keys 0 .. keys-1 of the tile; ds of the others is 0. */
template <typename shape, int D>
__device__ __forceinline__ void write_share(int thread, float4 *slot, const bf16 *k, const bf16 *ds,
                                            int keys)
{
    enum { M = shape::DQ_AT_ONCE, N = shape::DQ_N };
    static_assert(N % 2 == 0, "fragments of keys are loaded in pairs");
    const int lane = thread % 32, warp = thread / 32;
    const int row = warp / shape::COLUMN_WARPS * shape::DQ_M * 2;
    const int column = warp % shape::COLUMN_WARPS * N;
#pragma unroll 1
    for (int first = 0; first < shape::DQ_M; first += M) {
        float dq[M][N][4] = {};
#pragma unroll
        for (int c = 0; c < shape::KEYS / 16; c++) {
            if (c == shape::KEYS / 32 && keys <= shape::KEYS / 2) break;
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) {
                ldmatrix_x4_trans(
                    a[m], ds + chunk_at<shape::QUERIES>(c * 16 + lane / 16 * 8 + lane % 8,
                                                        row + (first + m) * 2 + lane / 8 % 2));
            }
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                uint32_t r[4];
                ldmatrix_x4_trans(r, k + chunk_at<D>(c * 16 + lane % 16, column + j + lane / 16));
                const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma_m16n8k16_bf16(dq[m][j], a[m], b0, dq[m][j]);
                    mma_m16n8k16_bf16(dq[m][j + 1], a[m], b1, dq[m][j + 1]);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                slot[((first + m) * N + j) * shape::THREADS + thread] =
                    make_float4(dq[m][j][0], dq[m][j][1], dq[m][j][2], dq[m][j][3]);
            }
        }
    }
}

/* Tokens of the tile that nobody asks about get dq = 0. */
__device__ __forceinline__ void zero_unasked(const backward_tensors *x, const key_tile *key,
                                             int head, int heads, int column, int columns,
                                             int head_dim, int threads)
{
    const int chunks = min(columns, head_dim - column) / 8;
    if (key->token >= key->ask_begin && key->token + key->keys <= key->ask_end) return;
    for (int i = threadIdx.x; i < key->keys * heads * chunks; i += threads) {
        const int64_t token = key->token + i / chunks / heads;
        if (token >= key->ask_begin && token < key->ask_end) continue;
        *reinterpret_cast<uint4 *>(x->dqkv + token * x->dqkv_stride +
                                   (head + i / chunks % heads) * head_dim + column +
                                   i % chunks * 8) = make_uint4(0, 0, 0, 0);
    }
}

/* A block per tile of keys, kv head, part of its query heads and half of the columns: 10 D flops a head and visible pair.
 * Moves 4 D bytes a query, head and tile of keys from the second cache, and as many to a slot. */
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
    bf16 *ds = memory + (shape::HELD ? (int)shape::DS : shape::DS + KEYS * D);
    bf16 *stages = memory + shape::STAGE;
    float2 *statistics = reinterpret_cast<float2 *>(memory + shape::ELEMENTS);
    query_walk *walks =
        reinterpret_cast<query_walk *>(statistics + 2 * QUERIES); /* this step, next */
    int *place = reinterpret_cast<int *>(walks + 2);              /* what is not worth registers */
    if (threadIdx.x == 0) {
        place[0] = kv_head;
        place[1] = part;
        place[2] = head_begin;
        place[3] = head_end;
        place[4] = first_kv_head * ratio; /* of this pass */
        place[5] = key->position;
        place[6] = key->keys;
        query_walk walk = {
            head_begin, key->query_begin - 1, 0, 0, 0, key->query_begin < key->query_end};
        advance<QUERIES>(&walk, tiles, key, head_end);
        walks[0] = walk;
        advance<QUERIES>(&walk, tiles, key, head_end);
        walks[1] = walk;
    }
    place[7 + threadIdx.x] =
        (int)threadIdx.x; /* so that nothing made from it is kept over the loop */
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * M * 16;
    const bf16 *from = x.qkv + (int64_t)key->token * x.qkv_stride + (sizes.heads + kv_head) * dim;
    load_rows<D, KEYS, THREADS>(threadIdx.x, memory, from, x.qkv_stride, key->keys, dim);
    load_rows<D, KEYS, THREADS>(threadIdx.x, memory + KEYS * D, from + sizes.kv_heads * dim,
                                x.qkv_stride, key->keys, dim);
    __syncthreads(); /* the first two steps are known */
    if (walks[0].more) load_step<shape, D>(threadIdx.x, stages, statistics, walks, tiles, &x, dim);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads(); /* keys, values and the first step have arrived */

    const int k_at = row_at<D>(row + lane % 16, lane / 16);
    uint32_t k_held[M][shape::KEYS_HELD > 0 ? shape::KEYS_HELD : 1][4];
    uint32_t v_held[M][shape::VALUES_HELD > 0 ? shape::VALUES_HELD : 1][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int c = 0; c < shape::KEYS_HELD; c++) {
            ldmatrix_x4(k_held[m][c], memory + further<D>(k_at, c * 2) + m * 16 * D);
        }
#pragma unroll
        for (int c = 0; c < shape::VALUES_HELD; c++) {
            ldmatrix_x4(v_held[m][c], memory + KEYS * D + further<D>(k_at, c * 2) + m * 16 * D);
        }
    }
    float dk[M][N][4] = {}, dv[M][N][4] = {};
    const float factor = sizes.scale * LOG2_E;
#pragma unroll 1
    for (int stage = 0;; stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads(); /* the step has arrived; values, ds and the other stage have been read */
        const query_walk *next = walks + (stage ^ 1);
        if (!walks[stage].more) break;
        if (next->more)
            load_step<shape, D>(place[7 + threadIdx.x], stages + (stage ^ 1) * shape::STAGE_SIZE,
                                statistics + (stage ^ 1) * QUERIES, next, tiles, &x, dim);
#pragma unroll 1
        for (int c = 0; c < QUERIES / 16; c++) {
            past_keys<shape, D>(dk, dv, k_held, v_held, memory, ds,
                                shape::STAGE + stage * shape::STAGE_SIZE + c * 16 * D,
                                statistics + stage * QUERIES + c * 16, c,
                                walks[stage].position + c * 16, place[7 + threadIdx.x], place[5],
                                place[6], column, factor, sizes.window);
        }
        const int end = walks[stage].position + QUERIES - place[5]; /* of the keys that are seen */
        float4 *slot =
            x.dq +
            (((int64_t)(walks[stage].head - place[4]) * counts->slots + walks[stage].slot) *
                 shape::HALVES +
             half) *
                shape::SLOT_VECTORS +
            walks[stage].begin / QUERIES * shape::DQ_VECTORS;
        __syncthreads(); /* ds is there, the stage has been read, and so has what the step is */
        if (threadIdx.x == 0) {
            query_walk walk = *next;
            advance<QUERIES>(&walk, tiles, key, place[3]);
            walks[stage] = walk;
        }
        write_share<shape, D>(place[7 + threadIdx.x], slot, memory + column, ds, end);
    }

    const int kv = place[0];
    zero_unasked(&x, key, place[2], place[3] - place[2], column, shape::COLUMNS, dim, THREADS);
    if (x.dkv != NULL) {
        float4 *to = x.dkv +
                     ((((int64_t)kv * x.parts + place[1]) * x.most_keys + (key - key_tiles)) *
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
    /* The stages, which all have read, are a place for rows; where they are too small, what is before them is too. */
    if (shape::STAGING < shape::STAGE) __syncthreads(); /* the last ds has been read */
    bf16 *dk_column =
        x.dqkv + (int64_t)(key->token + row) * x.dqkv_stride + (sizes.heads + kv) * dim + column;
    const int v_ahead = sizes.kv_heads * dim;
    bf16 *staging = memory + shape::STAGING + row * shape::COLUMNS;
    write_fragments<M, N>(dk_column, x.dqkv_stride, place[6] - row, dim - column, dk, sizes.scale,
                          staging);
    write_fragments<M, N>(dk_column + v_ahead, x.dqkv_stride, place[6] - row, dim - column, dv,
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

/* dq of a step of a tile of queries and head: its slots, in order of keys.  Reads 4 D bytes a query, head and tile of keys
 * that it sees. */
template <int D, int QUERIES>
static __global__ void __launch_bounds__(backward_shape<D, QUERIES>::THREADS)
    attention_dq_kernel(backward_tensors x, const plan_counts *counts, const query_tile *tiles,
                        attention_sizes sizes, int pass)
{
    typedef backward_shape<D, QUERIES> shape;
    enum { M = shape::DQ_M, N = shape::DQ_N };
    int block = blockIdx.x;
    const int half = block % shape::HALVES;
    block /= shape::HALVES;
    const int begin = block % shape::STEPS;
    block /= shape::STEPS;
    const int ratio = sizes.heads / sizes.kv_heads, at_once = kv_heads_at_once(&x, counts, sizes);
    const int local = block % sizes.heads, head = pass * at_once * ratio + local;
    const int tile = block / sizes.heads;
    if (local >= at_once * ratio || head >= sizes.heads || tile >= counts->backward) return;
    const query_tile *t = tiles + tile;
    const int warp = threadIdx.x / 32, row = warp / shape::COLUMN_WARPS * M * 16;
    const int column = half * shape::COLUMNS + warp % shape::COLUMN_WARPS * N * 8;
    const int rows = t->rows - begin * QUERIES;
    if (rows <= 0) return;
    float sum[M][N][4] = {};
    const int64_t apart = (int64_t)shape::HALVES * shape::SLOT_VECTORS;
    add_fragments<M, N, shape::THREADS>(sum,
                                        x.dq + ((int64_t)local * counts->slots + t->slot) * apart +
                                            half * shape::SLOT_VECTORS + begin * shape::DQ_VECTORS,
                                        t->prompt_count + t->own_count, apart);
    SHARED(uint4, staging, [shape::DQ_VECTORS / 2]);
    write_fragments<M, N>(x.dqkv + (int64_t)(t->token + begin * QUERIES + row) * x.dqkv_stride +
                              head * sizes.head_dim + column,
                          x.dqkv_stride, rows - row, sizes.head_dim - column, sum, sizes.scale,
                          reinterpret_cast<bf16 *>(staging) + warp * M * 16 * N * 8);
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

/* How the work and the scratch of a call are divided: by its shape alone. */
typedef struct division {
    int D;                        /* head_dim of the kernels */
    int parts, heads_per_part;    /* of a kv head's query heads */
    int64_t keys, queries;        /* most tiles */
    int64_t slots;                /* most of a head */
    size_t statistics, dkv, slot; /* bytes; slot: of one slot */
} division;

/* A query at token t sees at most t / keys + 2 tiles of keys, of two segments.  Tiles of queries end at tokens that are
 * BACKWARD_ROWS apart, but for the last of each segment.  A window of w keys and its tile of queries meet at most
 * (w + rows) / keys + 4. */
static int64_t most_slots(int64_t T, int64_t N, attention_shape s)
{
    const int64_t keys = key_rows(s.head_dim), full = T / BACKWARD_ROWS;
    const int64_t all = full * (T / keys + 2) - full * (full - 1) / 2 * BACKWARD_ROWS / keys +
                        full + N * (T / keys + 2) + 1;
    if (s.window == 0) return all;
    const int64_t near = (full + N) * ((s.window + BACKWARD_ROWS) / keys + 4) + 1;
    return near < all ? near : all;
}

static division divide(int64_t T, int64_t N, attention_shape s)
{
    enum { BLOCKS = 1024 }; /* enough for some waves of blocks of different length on any GPU */
    division d = {};
    const int ratio = s.heads / s.kv_heads, keys = key_rows(s.head_dim);
    d.D = s.head_dim <= 64 ? 64 : s.head_dim <= 96 ? 96 : s.head_dim <= 128 ? 128 : 256;
    const int64_t blocks = (T / keys + 1) * s.kv_heads;
    const int64_t parts = (BLOCKS + blocks - 1) / blocks;
    d.parts = parts < ratio ? (int)parts : ratio;
    d.heads_per_part = (ratio + d.parts - 1) / d.parts;
    if (d.heads_per_part == 1 && ratio > 1) d.heads_per_part = 2; /* half the shares of dk and dv */
    d.parts = (ratio + d.heads_per_part - 1) / d.heads_per_part;
    d.keys = T / keys + N;
    d.queries = T / BACKWARD_ROWS + N;
    d.slots = most_slots(T, N, s);
    d.statistics = sizeof(float2) * BACKWARD_ROWS * (size_t)(s.heads * d.queries);
    if (d.parts > 1)
        d.dkv = 2 * sizeof(float) * (size_t)keys * (size_t)d.D *
                (size_t)(d.keys * s.kv_heads * d.parts);
    d.slot = sizeof(float) * BACKWARD_ROWS * (size_t)d.D;
    return d;
}

template <int D, int QUERIES>
static cudpo_status launch(const backward_tensors *x, const plan_view *p, const division *d,
                           attention_shape s, cudpo_stream stream)
{
    typedef backward_shape<D, QUERIES> shape;
    const attention_sizes sizes = {s.heads, s.kv_heads, s.head_dim, s.window, s.scale};
    const int64_t each = x->capacity / (d->slots * (s.heads / s.kv_heads)); /* kv heads a pass */
    for (int pass = 0; pass * each < s.kv_heads; pass++) {
        LAUNCH((attention_backward_kernel<D, QUERIES>),
               (unsigned)(d->keys * s.kv_heads * d->parts * shape::HALVES), shape::THREADS,
               shape::BYTES, stream, *x, p->counts, p->backward, p->key, sizes, pass);
        CUDPO_TRY(LAUNCHED());
        LAUNCH((attention_dq_kernel<D, QUERIES>),
               (unsigned)(d->queries * s.heads * shape::STEPS * shape::HALVES), shape::THREADS, 0,
               stream, *x, p->counts, p->backward, sizes, pass);
        CUDPO_TRY(LAUNCHED());
    }
    if (d->parts > 1)
        LAUNCH((attention_dkv_kernel<D, QUERIES>),
               (unsigned)(d->keys * s.kv_heads * 2 * shape::HALVES), shape::THREADS, 0, stream, *x,
               p->counts, p->key, sizes);
    return LAUNCHED();
}

/* May blocks have so much shared memory here? */
template <int D, int QUERIES> static bool fits(void)
{
    const cudaError_t error = cudaFuncSetAttribute(attention_backward_kernel<D, QUERIES>,
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   (int)backward_shape<D, QUERIES>::BYTES);
    if (error != cudaSuccess) (void)cudaGetLastError(); /* it is answered */
    return error == cudaSuccess;
}

/* Bytes for `kv_heads` of the kv heads at a time. */
extern "C" size_t cuda_attention_backward_scratch(int64_t T, int64_t segments,
                                                  attention_shape shape, dtype type, int kv_heads)
{
    const division d = divide(T, segments, shape);
    if (type == DTYPE_F32) return d.statistics;
    return d.statistics + d.dkv +
           d.slot * (size_t)(d.slots * kv_heads * (shape.heads / shape.kv_heads));
}

/* Gradients of a pack's attention: see backend.h.
 *  Out:     dqkv  [T,Q+2KV] f32 or bf16; dq of tokens outside of the asking range of their segment is 0.
 *  In:      dout, out [T,Q], qkv [T,Q+2KV] of dqkv's type, lse [T,H] f32: of the forward pass; what the asking range of no
 *           segment has is not read.      plan, shape: as in the forward pass, and so is what bf16 asks for.
 *           s     cuda_attention_backward_scratch(T, N, shape, type, n) bytes for some n of 1 .. kv_heads; the result
 *                 does not depend on n.  With fewer, the pass over the kernels is repeated as often as the plan needs, and
 *                 launched as often as the worst plan of T and N would need.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, dqkv untouched; CUDPO_EDEVICE.
 *  10 A Q flops for A visible pairs; at least 2 (4Q + 4KV) + 8H bytes a token, and 8 D bytes for each query, head and tile
 *  of keys that it sees: shares of dq, written and read again.  bf16: p and ds are rounded to bf16, sums are in fp32. */
extern "C" cudpo_status cuda_attention_backward(tensor dqkv, tensor dout, tensor qkv, tensor out,
                                                tensor lse, tensor plan, attention_shape shape,
                                                scratch s, cudpo_stream stream)
{
    const int64_t T = qkv.rows;
    CUDPO_REQUIRE(attention_shape_valid(shape));
    CUDPO_REQUIRE(is_matrix(qkv) && is_float(qkv, T, qkv_columns(shape)) && T <= MAX_TOKENS);
    CUDPO_REQUIRE(is_float(dqkv, T, qkv_columns(shape)) && dqkv.type == qkv.type);
    CUDPO_REQUIRE(is_float(out, T, query_columns(shape)) && out.type == qkv.type);
    CUDPO_REQUIRE(is_float(dout, T, query_columns(shape)) && dout.type == qkv.type);
    CUDPO_REQUIRE(is_f32(lse, T, shape.heads));
    CUDPO_REQUIRE(plan_segments(plan, T) >= 0);
    if (qkv.type == DTYPE_BF16) {
        CUDPO_REQUIRE(shape.head_dim % 8 == 0);
        CUDPO_REQUIRE(is_vectorisable(qkv) && is_vectorisable(dqkv));
        CUDPO_REQUIRE(is_vectorisable(out) && is_vectorisable(dout));
        CUDPO_REQUIRE(is_near(qkv) && is_near(dqkv) && is_near(dout));
    }
    CUDPO_REQUIRE(are_disjoint(dqkv, qkv) && are_disjoint(dqkv, dout) && are_disjoint(dqkv, out));
    CUDPO_REQUIRE(are_disjoint(dqkv, lse) && are_disjoint(dqkv, plan));
    const plan_view p = plan_at(plan.data, T, plan_segments(plan, T));
    const division d = divide(T, p.N, shape);
    CUDPO_REQUIRE(d.queries * 8 * shape.heads <= INT32_MAX); /* blocks */
    CUDPO_REQUIRE(T == 0 || (s.data != NULL && (uintptr_t)s.data % 16 == 0));
    CUDPO_REQUIRE(T == 0 || s.bytes >= cuda_attention_backward_scratch(T, p.N, shape, qkv.type, 1));
    if (T == 0 || p.N == 0) return CUDPO_OK;
    if (qkv.type == DTYPE_F32)
        return attention_backward_f32(dqkv, dout, qkv, out, lse, &p, (float *)s.data, shape,
                                      stream);
    char *memory = (char *)s.data;
    backward_tensors x = {};
    x.dqkv = (bf16 *)dqkv.data;
    x.dout = (const bf16 *)dout.data;
    x.qkv = (const bf16 *)qkv.data;
    x.dqkv_stride = (int)dqkv.stride;
    x.dout_stride = (int)dout.stride;
    x.qkv_stride = (int)qkv.stride;
    x.statistics = (float2 *)memory;
    x.dkv = d.parts > 1 ? (float4 *)(memory + d.statistics) : NULL;
    x.dq = (float4 *)(memory + d.statistics + d.dkv);
    x.most_backward = d.queries;
    x.most_keys = d.keys;
    x.capacity = (int64_t)((s.bytes - d.statistics - d.dkv) / d.slot);
    x.parts = d.parts;
    x.heads_per_part = d.heads_per_part;
    LAUNCH(attention_statistics_kernel, (unsigned)(d.queries * shape.heads), STATISTICS_THREADS, 0,
           stream, x, (const bf16 *)out.data, out.stride, (const float *)lse.data, lse.stride,
           p.counts, p.backward, shape.heads, shape.head_dim);
    CUDPO_TRY(LAUNCHED());
    switch (d.D) {
    case 64:
        (void)fits<64, 64>();
        return launch<64, 64>(&x, &p, &d, shape, stream);
    case 96:
        (void)fits<96, 64>();
        return launch<96, 64>(&x, &p, &d, shape, stream);
    case 128:
        if (shape.head_dim == 128 && fits<128, 64>())
            return launch<128, 64>(&x, &p, &d, shape, stream);
        (void)fits<128, 32>();
        return launch<128, 32>(&x, &p, &d, shape, stream);
    default:
        (void)fits<256, 16>();
        return launch<256, 16>(&x, &p, &d, shape, stream);
    }
}
