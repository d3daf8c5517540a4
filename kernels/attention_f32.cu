/* attention_f32.cu - attention over a pack in fp32, forward and backward: plain, for comparisons.
 *
 * As in attention_backward.cu, but dq is computed by a kernel of its own, which computes the scores again. */
#include "attention_f32.h"

enum { THREADS = 128 };

/* Tiles are ROWS x ROWS; LANES threads share a row, and have each LANES-th 16-byte vector of it. */
template <int D> struct f32_shape {
    enum {
        ROWS = D <= 128 ? 32 : 16,
        LANES = THREADS / ROWS,
        SCORES = ROWS / LANES,
        VECTORS = D / 4 / LANES,
        STRIDE = D + 4, /* rows that neighbours read at once start in different banks */
        TILE = ROWS * STRIDE,
        SCORE_STRIDE = ROWS + 1
    };
};

/* Rows of a matrix into shared memory, zeros where there are none. */
template <int D>
__device__ __forceinline__ void load_tile(float *shared, const float *global, int64_t stride,
                                          int valid, int head_dim)
{
    typedef f32_shape<D> shape;
    const int columns = (head_dim + 3) / 4 * 4; /* all that is read of a row */
    for (int i = threadIdx.x; i < shape::ROWS * columns; i += THREADS) {
        const int row = i / columns, column = i % columns;
        shared[row * shape::STRIDE + column] =
            row < valid && column < head_dim ? global[row * stride + column] : 0.0f;
    }
}

/* Products of this thread's row of a with rows lane, lane + LANES, .. of b. */
template <int D>
__device__ __forceinline__ void products(float (&s)[f32_shape<D>::SCORES], const float *a,
                                         const float *b, int head_dim)
{
    typedef f32_shape<D> shape;
    const int lane = threadIdx.x % shape::LANES, row = threadIdx.x / shape::LANES;
#pragma unroll
    for (int j = 0; j < shape::SCORES; j++) {
        s[j] = 0.0f;
    }
#pragma unroll 2
    for (int d = 0; d < head_dim; d += 4) {
        float x[4];
        load_vector(x, a + row * shape::STRIDE + d);
#pragma unroll
        for (int j = 0; j < shape::SCORES; j++) {
            float y[4];
            load_vector(y, b + (lane + j * shape::LANES) * shape::STRIDE + d);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[j] += x[e] * y[e];
            }
        }
    }
}

/* acc += this thread's row of weights times b. */
template <int D>
__device__ __forceinline__ void add_rows(float (&acc)[f32_shape<D>::VECTORS][4],
                                         const float *weights, const float *b, int head_dim)
{
    typedef f32_shape<D> shape;
    const int lane = threadIdx.x % shape::LANES, row = threadIdx.x / shape::LANES;
#pragma unroll 2
    for (int i = 0; i < shape::ROWS; i++) {
        const float w = weights[row * shape::SCORE_STRIDE + i];
#pragma unroll
        for (int v = 0; v < shape::VECTORS; v++) {
            if ((lane + v * shape::LANES) * 4 >= head_dim) continue;
            float y[4];
            load_vector(y, b + i * shape::STRIDE + (lane + v * shape::LANES) * 4);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                acc[v][e] += w * y[e];
            }
        }
    }
}

template <int D>
__device__ __forceinline__ void write_row(float *to, const float (&acc)[f32_shape<D>::VECTORS][4],
                                          float factor, int head_dim)
{
    typedef f32_shape<D> shape;
    const int lane = threadIdx.x % shape::LANES;
#pragma unroll
    for (int v = 0; v < shape::VECTORS; v++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int column = (lane + v * shape::LANES) * 4 + e;
            if (column < head_dim) to[column] = acc[v][e] * factor;
        }
    }
}

/* Over the threads of a row, in all of them. */
template <int LANES> __device__ __forceinline__ float row_max(float x)
{
#pragma unroll
    for (int offset = 1; offset < LANES; offset *= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    }
    return x;
}
template <int LANES> __device__ __forceinline__ float row_sum(float x)
{
#pragma unroll
    for (int offset = 1; offset < LANES; offset *= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    }
    return x;
}

__device__ __forceinline__ bool sees(int query, int key, int window)
{
    return key <= query && (window == 0 || query - key < window);
}

/* The tensors, by the names of the backward pass. */
typedef struct f32_tensors {
    float *out, *lse, *dqkv, *delta; /* delta [T,H] */
    const float *qkv, *dout;
    int64_t out_stride, lse_stride, dqkv_stride, qkv_stride, dout_stride;
} f32_tensors;

/* The queries of a block: ROWS of a tile of the plan and one head. */
typedef struct block_queries {
    const query_tile *tile;
    int head, begin, rows, position;
    int64_t token;
} block_queries;

template <int D>
__device__ __forceinline__ block_queries queries_of_block(const plan_counts *counts,
                                                          const query_tile *tiles, int heads)
{
    enum { ROWS = f32_shape<D>::ROWS, PARTS = FORWARD_ROWS / ROWS };
    block_queries b = {};
    const int tile = blockIdx.x / heads / PARTS;
    if (tile >= counts->forward) return b;
    b.tile = tiles + tile;
    b.head = blockIdx.x % heads;
    b.begin = blockIdx.x / heads % PARTS * ROWS;
    b.rows = min((int)ROWS, b.tile->rows - b.begin);
    b.position = b.tile->prompt_length + b.tile->index + b.begin;
    b.token = b.tile->token + b.begin;
    return b;
}

/* A block per ROWS queries and head. */
template <int D>
static __global__ void __launch_bounds__(THREADS)
    attention_f32_kernel(f32_tensors x, const plan_counts *counts, const query_tile *tiles,
                         attention_sizes sizes, plan_claim claim)
{
    typedef f32_shape<D> shape;
    enum { ROWS = shape::ROWS, LANES = shape::LANES };
    if (!is_planned(counts, claim)) return;
    const block_queries b = queries_of_block<D>(counts, tiles, sizes.heads);
    if (b.rows <= 0) return;
    DYN_SHARED(float, memory);
    float *q = memory, *k = q + shape::TILE, *v = k + shape::TILE, *weights = v + shape::TILE;
    const int dim = sizes.head_dim, kv_head = b.head / (sizes.heads / sizes.kv_heads);
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
    const float *k_column = x.qkv + (int64_t)(sizes.heads + kv_head) * dim;
    const float *v_column = k_column + (int64_t)sizes.kv_heads * dim;
    load_tile<D>(q, x.qkv + b.token * x.qkv_stride + (int64_t)b.head * dim, x.qkv_stride, b.rows,
                 dim);
    key_walk walk = walk_of(b.tile, b.begin, b.rows, sizes.window);
    float acc[shape::VECTORS][4] = {}, maximum = -INFINITY, sum = 0.0f;
    for (; walk.left > 0; pass<ROWS>(&walk)) {
        load_tile<D>(k, k_column + walk.token * x.qkv_stride, x.qkv_stride, walk.left, dim);
        load_tile<D>(v, v_column + walk.token * x.qkv_stride, x.qkv_stride, walk.left, dim);
        __syncthreads(); /* queries, keys and values are there */
        float s[shape::SCORES];
        products<D>(s, q, k, dim);
        float most = maximum;
#pragma unroll
        for (int j = 0; j < shape::SCORES; j++) {
            const int key = lane + j * LANES;
            const bool seen =
                key < walk.left && sees(b.position + row, walk.position + key, sizes.window);
            s[j] = seen ? s[j] * sizes.scale : -INFINITY;
            most = fmaxf(most, s[j]);
        }
        most = row_max<LANES>(most);
        const float shift = most == -INFINITY ? 0.0f : most; /* nothing seen yet: no NaN */
        const float keep = expf(maximum - shift);
        float part = 0.0f;
#pragma unroll
        for (int j = 0; j < shape::SCORES; j++) {
            s[j] = expf(s[j] - shift);
            part += s[j];
            weights[row * shape::SCORE_STRIDE + lane + j * LANES] = s[j];
        }
        maximum = most;
        sum = sum * keep + part;
#pragma unroll
        for (int n = 0; n < shape::VECTORS; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                acc[n][e] *= keep;
            }
        }
        __syncwarp(); /* the weights of a row are there for its threads */
        add_rows<D>(acc, weights, v, dim);
        __syncthreads(); /* keys, values and weights have been read */
    }
    sum = row_sum<LANES>(sum);
    if (row >= b.rows) return;
    write_row<D>(x.out + (b.token + row) * x.out_stride + (int64_t)b.head * dim, acc, 1.0f / sum,
                 dim);
    if (lane == 0) x.lse[(b.token + row) * x.lse_stride + b.head] = maximum + logf(sum);
}

/* dq and delta: a block per ROWS queries and head. */
template <int D>
static __global__ void __launch_bounds__(THREADS)
    attention_dq_f32_kernel(f32_tensors x, const plan_counts *counts, const query_tile *tiles,
                            attention_sizes sizes, plan_claim claim, plan_counts *copy)
{
    typedef f32_shape<D> shape;
    enum { ROWS = shape::ROWS, LANES = shape::LANES };
    if (!is_planned_for_all(copy, counts, claim)) return;
    const block_queries b = queries_of_block<D>(counts, tiles, sizes.heads);
    if (b.rows <= 0) return;
    DYN_SHARED(float, memory);
    float *q = memory, *dout = q + shape::TILE, *k = dout + shape::TILE, *v = k + shape::TILE;
    float *weights = v + shape::TILE;
    const int dim = sizes.head_dim, kv_head = b.head / (sizes.heads / sizes.kv_heads);
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
    const int64_t column = (int64_t)b.head * dim, token = b.token + row;
    const float *k_column = x.qkv + (int64_t)(sizes.heads + kv_head) * dim;
    const float *v_column = k_column + (int64_t)sizes.kv_heads * dim;
    load_tile<D>(q, x.qkv + b.token * x.qkv_stride + column, x.qkv_stride, b.rows, dim);
    load_tile<D>(dout, x.dout + b.token * x.dout_stride + column, x.dout_stride, b.rows, dim);
    float delta = 0.0f, lse = INFINITY;
    if (row < b.rows) {
        for (int d = lane; d < dim; d += LANES) {
            delta = fmaf(x.dout[token * x.dout_stride + column + d],
                         x.out[token * x.out_stride + column + d], delta);
        }
        lse = x.lse[token * x.lse_stride + b.head];
    }
    delta = row_sum<LANES>(delta);
    if (row < b.rows && lane == 0) x.delta[token * sizes.heads + b.head] = delta;
    key_walk walk = walk_of(b.tile, b.begin, b.rows, sizes.window);
    float acc[shape::VECTORS][4] = {};
    for (; walk.left > 0; pass<ROWS>(&walk)) {
        load_tile<D>(k, k_column + walk.token * x.qkv_stride, x.qkv_stride, walk.left, dim);
        load_tile<D>(v, v_column + walk.token * x.qkv_stride, x.qkv_stride, walk.left, dim);
        __syncthreads(); /* queries, dout, keys and values are there */
        float s[shape::SCORES], dp[shape::SCORES];
        products<D>(s, q, k, dim);
        products<D>(dp, dout, v, dim);
#pragma unroll
        for (int j = 0; j < shape::SCORES; j++) {
            const int key = lane + j * LANES;
            const bool seen =
                key < walk.left && sees(b.position + row, walk.position + key, sizes.window);
            const float p = seen ? expf(s[j] * sizes.scale - lse) : 0.0f;
            weights[row * shape::SCORE_STRIDE + key] = p * (dp[j] - delta);
        }
        __syncwarp(); /* the weights of a row are there for its threads */
        add_rows<D>(acc, weights, k, dim);
        __syncthreads(); /* keys, values and weights have been read */
    }
    if (row < b.rows) write_row<D>(x.dqkv + token * x.dqkv_stride + column, acc, sizes.scale, dim);
}

/* Tokens token .. token+rows-1 that nobody asks about get dq = 0 in columns 0 .. columns-1 of their rows from dq on. */
__device__ __forceinline__ void zero_unasked(float *dq, int64_t stride, int token, int rows,
                                             int columns, const key_tile *key)
{
    for (int row = 0; row < rows; row++) {
        if (token + row >= key->ask_begin && token + row < key->ask_end) continue;
        for (int c = threadIdx.x; c < columns; c += THREADS) {
            dq[row * stride + c] = 0.0f;
        }
    }
}

/* dk and dv: a block per ROWS keys and kv head, past all its heads and the queries that see the keys. */
template <int D>
static __global__ void __launch_bounds__(THREADS, 2)
    attention_dkv_f32_kernel(f32_tensors x, const plan_counts *counts, const query_tile *tiles,
                             const key_tile *key_tiles, attention_sizes sizes, int parts)
{
    typedef f32_shape<D> shape;
    enum { ROWS = shape::ROWS, LANES = shape::LANES };
    const int kv_head = blockIdx.x % sizes.kv_heads;
    const int begin = blockIdx.x / sizes.kv_heads % parts * ROWS;
    const int tile = blockIdx.x / sizes.kv_heads / parts;
    if (tile >= counts->keys) return;
    const key_tile *key = key_tiles + tile;
    const int keys = min((int)ROWS, key->keys - begin), first = key->position + begin;
    if (keys <= 0) return;
    DYN_SHARED(float, memory);
    float *k = memory, *v = k + shape::TILE, *q = v + shape::TILE, *dout = q + shape::TILE;
    float *weights = dout + shape::TILE, *slopes = weights + ROWS * shape::SCORE_STRIDE;
    const int dim = sizes.head_dim, ratio = sizes.heads / sizes.kv_heads;
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
    const int64_t token = key->token + begin, k_column = (int64_t)(sizes.heads + kv_head) * dim;
    const int64_t v_column = k_column + (int64_t)sizes.kv_heads * dim;
    load_tile<D>(k, x.qkv + token * x.qkv_stride + k_column, x.qkv_stride, keys, dim);
    load_tile<D>(v, x.qkv + token * x.qkv_stride + v_column, x.qkv_stride, keys, dim);
    float dk[shape::VECTORS][4] = {}, dv[shape::VECTORS][4] = {};
    for (int head = kv_head * ratio; head < (kv_head + 1) * ratio; head++) {
        for (int i = key->query_begin; i < key->query_end; i++) {
            const query_tile *t = tiles + i;
            for (int r = 0; r < t->rows; r += ROWS) {
                const int rows = min((int)ROWS, t->rows - r),
                          query = t->prompt_length + t->index + r;
                if (query + rows <= first) continue;
                if (sizes.window > 0 && query - (first + keys - 1) >= sizes.window) continue;
                const int64_t from = t->token + r, column = (int64_t)head * dim;
                load_tile<D>(q, x.qkv + from * x.qkv_stride + column, x.qkv_stride, rows, dim);
                load_tile<D>(dout, x.dout + from * x.dout_stride + column, x.dout_stride, rows,
                             dim);
                __syncthreads(); /* keys, values, queries and dout are there */
                float s[shape::SCORES], dp[shape::SCORES];
                products<D>(s, k, q, dim);
                products<D>(dp, v, dout, dim);
#pragma unroll
                for (int j = 0; j < shape::SCORES; j++) {
                    const int n = lane + j * LANES;
                    float p = 0.0f, ds = 0.0f;
                    if (n < rows && row < keys && sees(query + n, first + row, sizes.window)) {
                        p = expf(s[j] * sizes.scale - x.lse[(from + n) * x.lse_stride + head]);
                        ds = p * (dp[j] - x.delta[(from + n) * sizes.heads + head]);
                    }
                    weights[row * shape::SCORE_STRIDE + n] = p;
                    slopes[row * shape::SCORE_STRIDE + n] = ds;
                }
                __syncwarp(); /* the weights of a row are there for its threads */
                add_rows<D>(dv, weights, dout, dim);
                add_rows<D>(dk, slopes, q, dim);
                __syncthreads(); /* queries, dout and weights have been read */
            }
        }
    }
    zero_unasked(x.dqkv + token * x.dqkv_stride + (int64_t)kv_head * ratio * dim, x.dqkv_stride,
                 (int)token, keys, ratio * dim, key);
    if (row >= keys) return;
    write_row<D>(x.dqkv + (token + row) * x.dqkv_stride + k_column, dk, sizes.scale, dim);
    write_row<D>(x.dqkv + (token + row) * x.dqkv_stride + v_column, dv, 1.0f, dim);
}

/* Shared memory of n tiles and m arrays of scores. */
template <int D> static int tile_bytes(int n, int m)
{
    typedef f32_shape<D> shape;
    return (n * shape::TILE + m * shape::ROWS * shape::SCORE_STRIDE) * (int)sizeof(float);
}

template <int D>
static cudpo_status launch_forward(const f32_tensors *x, const plan_view *p, attention_shape s,
                                   plan_claim claim, cudpo_stream stream)
{
    const attention_sizes sizes = sizes_of(s);
    const int bytes = tile_bytes<D>(3, 1);
    (void)cudaFuncSetAttribute(attention_f32_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               bytes); /* where it fails, so does the launch */
    LAUNCH((attention_f32_kernel<D>),
           (unsigned)(p->most_forward * (FORWARD_ROWS / f32_shape<D>::ROWS) * sizes.heads), THREADS,
           bytes, stream, *x, p->counts, p->forward, sizes, claim);
    return LAUNCHED();
}

template <int D>
static cudpo_status launch_backward(const f32_tensors *x, const plan_view *p, plan_counts *counts,
                                    attention_shape s, plan_claim claim, cudpo_stream stream)
{
    const attention_sizes sizes = sizes_of(s);
    const int dq_bytes = tile_bytes<D>(4, 1), dkv_bytes = tile_bytes<D>(4, 2);
    const int keys = key_rows(sizes.head_dim), parts = keys / f32_shape<D>::ROWS;
    (void)cudaFuncSetAttribute(attention_dq_f32_kernel<D>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, dq_bytes);
    LAUNCH((attention_dq_f32_kernel<D>),
           (unsigned)(p->most_forward * (FORWARD_ROWS / f32_shape<D>::ROWS) * sizes.heads), THREADS,
           dq_bytes, stream, *x, p->counts, p->forward, sizes, claim, counts);
    CUDPO_TRY(LAUNCHED());
    (void)cudaFuncSetAttribute(attention_dkv_f32_kernel<D>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, dkv_bytes);
    LAUNCH((attention_dkv_f32_kernel<D>), (unsigned)((p->T / keys + p->N) * parts * sizes.kv_heads),
           THREADS, dkv_bytes, stream, *x, counts, p->backward, p->key, sizes, parts);
    return LAUNCHED();
}

cudpo_status attention_f32(tensor out, tensor lse, tensor qkv, const plan_view *plan,
                           attention_shape shape, plan_claim claim, cudpo_stream stream)
{
    f32_tensors x = {};
    x.out = (float *)out.data;
    x.lse = (float *)lse.data;
    x.qkv = (const float *)qkv.data;
    x.out_stride = out.stride;
    x.lse_stride = lse.stride;
    x.qkv_stride = qkv.stride;
    if (shape.head_dim <= 64) return launch_forward<64>(&x, plan, shape, claim, stream);
    if (shape.head_dim <= 128) return launch_forward<128>(&x, plan, shape, claim, stream);
    return launch_forward<256>(&x, plan, shape, claim, stream);
}

cudpo_status attention_backward_f32(tensor dqkv, tensor dout, tensor qkv, tensor out, tensor lse,
                                    const plan_view *plan, void *memory, attention_shape shape,
                                    plan_claim claim, cudpo_stream stream)
{
    f32_tensors x = {};
    x.out = (float *)out.data;
    x.lse = (float *)lse.data;
    x.dqkv = (float *)dqkv.data;
    plan_counts *counts = (plan_counts *)memory;
    x.delta = (float *)(counts + 1);
    x.qkv = (const float *)qkv.data;
    x.dout = (const float *)dout.data;
    x.out_stride = out.stride;
    x.lse_stride = lse.stride;
    x.dqkv_stride = dqkv.stride;
    x.qkv_stride = qkv.stride;
    x.dout_stride = dout.stride;
    if (shape.head_dim <= 64) return launch_backward<64>(&x, plan, counts, shape, claim, stream);
    if (shape.head_dim <= 128) return launch_backward<128>(&x, plan, counts, shape, claim, stream);
    return launch_backward<256>(&x, plan, counts, shape, claim, stream);
}
