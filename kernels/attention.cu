/* attention.cu - attention over a pack, forward, in bf16 on tensor cores.
 *
 * A block takes a tile of queries of one segment and one head past two ranges of keys, the prompt's and the segment's own,
 * and keeps a running maximum, sum and weighted mean of values for each query.  Source: Dao 2023, arXiv:2307.08691. */
#include "attention_f32.h"

enum { STAGES = 2, WARPS = 4, THREADS = WARPS * 32 };

/* What a block of the forward pass is made of: each of its warps has FRAGMENTS times 16 queries. */
template <int D> struct forward_shape {
    enum {
        FRAGMENTS = D <= 128 ? 2 : 1,
        ROWS = WARPS * FRAGMENTS * 16,
        PARTS = FORWARD_ROWS / ROWS, /* blocks to a tile of the plan */
        KEYS = D <= 64 ? 64 : 32,
        HELD = D <= 64, /* queries stay in registers */
        ELEMENTS = (ROWS + 2 * STAGES * KEYS) * D,
        BYTES = ELEMENTS * (int)sizeof(bf16) + (6 + THREADS) * (int)sizeof(int)
    };
};

/* The tensors of the forward pass. */
typedef struct forward_tensors {
    bf16 *out;       /* [T,Q] */
    float *lse;      /* [T,H] */
    const bf16 *qkv; /* [T,Q+2KV] */
    int64_t lse_stride;
    int out_stride, qkv_stride;
} forward_tensors;

/* Scores s of 16 queries with keys at `position` on, -inf where the query does not see the key.  This thread has keys
 * 8j + column, + 1; its queries are at positions query, query + 8. */
template <int N>
__device__ __forceinline__ void mask_scores(float (&s)[N][4], int position, int end, int query,
                                            int column, int window)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int last = min(query + half * 8, end - 1) - position - column;
        const int first = first_visible(query + half * 8, window) - position - column;
#pragma unroll
        for (int j = 0; j < N; j++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                if (j * 8 + e > last || j * 8 + e < first) s[j][half * 2 + e] = -INFINITY;
            }
        }
    }
}

/* Scores s become weights e^(scale (s - maximum)), with factor = scale log2 e; sums, maxima and accumulators follow.  The
 * maxima are of scores that are not scaled yet, so that a score costs one multiply-add. */
template <int N, int M>
__device__ __forceinline__ void soften(float (&s)[N][4], float (&acc)[M][4], float (&maximum)[2],
                                       float (&sum)[2], float factor)
{
    float old[2], shift[2], part[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        old[half] = maximum[half];
        float m = old[half];
#pragma unroll
        for (int j = 0; j < N; j++) {
            m = fmaxf(m, fmaxf(s[j][half * 2], s[j][half * 2 + 1]));
        }
        m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
        m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
        maximum[half] = m;
        shift[half] = m == -INFINITY ? 0.0f : m * factor; /* nothing seen yet: no NaN */
        part[half] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[j][e] = exp2_approx(fmaf(s[j][e], factor, -shift[e / 2]));
            part[e / 2] += s[j][e];
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float keep = exp2_approx(fmaf(old[half], factor, -shift[half]));
        sum[half] = fmaf(sum[half], keep, part[half]);
#pragma unroll
        for (int j = 0; j < M; j++) {
            acc[j][half * 2] *= keep;
            acc[j][half * 2 + 1] *= keep;
        }
    }
}

/* One tile of keys for the warp's queries: s = q k^T, weights, acc += weights v. */
template <int D>
__device__ __forceinline__ void attend(
    float (&acc)[forward_shape<D>::FRAGMENTS][D / 8][4],
    float (&maximum)[forward_shape<D>::FRAGMENTS][2], float (&sum)[forward_shape<D>::FRAGMENTS][2],
    const uint32_t (&held)[forward_shape<D>::FRAGMENTS][forward_shape<D>::HELD ? D / 16 : 1][4],
    const bf16 *memory, int q_at, int k_at, int v_at, int position, int keys, int query,
    float factor, int window)
{
    typedef forward_shape<D> shape;
    enum { M = shape::FRAGMENTS, N = shape::KEYS / 8 };
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * M * 16;
    float s[M][N][4] = {};
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            if (shape::HELD) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    a[m][i] = held[m][shape::HELD ? c : 0][i];
                }
            } else {
                ldmatrix_x4(a[m], memory + further<D>(q_at, c * 2) + m * 16 * D);
            }
        }
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            uint32_t r[4];
            ldmatrix_x4(r, memory + further<D>(k_at, c * 2) + j * 8 * D);
            const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16_bf16(s[m][j], a[m], b0, s[m][j]);
                mma_m16n8k16_bf16(s[m][j + 1], a[m], b1, s[m][j + 1]);
            }
        }
    }
    const int first = query + row, last = first + M * 16 - 1;
    const bool whole = keys >= shape::KEYS && position + shape::KEYS - 1 <= first &&
                       first_visible(last, window) <= position;
#pragma unroll
    for (int m = 0; m < M; m++) {
        if (!whole) {
            mask_scores(s[m], position, position + keys, first + m * 16 + lane / 4, lane % 4 * 2,
                        window);
        }
        soften(s[m], acc[m], maximum[m], sum[m], factor);
    }
#pragma unroll
    for (int c = 0; c < shape::KEYS / 16; c++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) { /* two neighbouring tiles of weights are the left operand */
            a[m][0] = pack_bf16(s[m][2 * c][0], s[m][2 * c][1]);
            a[m][1] = pack_bf16(s[m][2 * c][2], s[m][2 * c][3]);
            a[m][2] = pack_bf16(s[m][2 * c + 1][0], s[m][2 * c + 1][1]);
            a[m][3] = pack_bf16(s[m][2 * c + 1][2], s[m][2 * c + 1][3]);
        }
#pragma unroll
        for (int j = 0; j < D / 8; j += 2) {
            uint32_t r[4];
            ldmatrix_x4_trans(r, memory + further<D>(v_at, j) + c * 16 * D);
            const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16_bf16(acc[m][j], a[m], b0, acc[m][j]);
                mma_m16n8k16_bf16(acc[m][j + 1], a[m], b1, acc[m][j + 1]);
            }
        }
    }
}

/* The warp's means and log-sum-exps; rows are those of the warp that are queries.  Means go through the queries' place in
 * shared memory, which no other warp reads, to leave in 16-byte pieces. */
template <int D>
__device__ __forceinline__ void write_queries(bf16 *out, float *lse, bf16 *staging,
                                              float (&acc)[forward_shape<D>::FRAGMENTS][D / 8][4],
                                              float (&maximum)[forward_shape<D>::FRAGMENTS][2],
                                              float (&sum)[forward_shape<D>::FRAGMENTS][2],
                                              int rows, const forward_tensors *x, int head_dim,
                                              float scale)
{
    enum { M = forward_shape<D>::FRAGMENTS, CHUNKS = D / 8 };
    const int lane = threadIdx.x % 32, group = lane / 4;
    __syncwarp(); /* all lanes have read their queries */
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = m * 16 + half * 8 + group;
            float total = sum[m][half];
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            const float share = 1.0f / total;
#pragma unroll
            for (int j = 0; j < CHUNKS; j++) {
                *reinterpret_cast<uint32_t *>(staging + chunk_at<D>(row, j) + lane % 4 * 2) =
                    pack_bf16(acc[m][j][half * 2] * share, acc[m][j][half * 2 + 1] * share);
            }
            if (lane % 4 == 0 && row < rows)
                lse[row * x->lse_stride] = fmaf(maximum[m][half], scale, logf(total));
        }
    }
    __syncwarp(); /* the means are staged */
#pragma unroll
    for (int i = 0; i < M * 16 * CHUNKS / 32; i++) {
        const int at = lane + i * 32, row = at / CHUNKS, chunk = at % CHUNKS;
        if (row < rows && chunk * 8 < head_dim)
            *reinterpret_cast<uint4 *>(out + row * x->out_stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(staging + chunk_at<D>(row, chunk));
    }
}

/* A block per tile, part of it and head, neighbouring heads next to each other because they share keys.  4 A D flops a
 * head for A visible pairs.  Reads D (2 + 4 n/ROWS) bytes a query of n visible keys, mostly from the second cache. */
template <int D>
static __global__ void __launch_bounds__(THREADS, D <= 128 ? 2 : 1)
    attention_kernel(forward_tensors x, const plan_counts *counts, const query_tile *tiles,
                     attention_sizes sizes, plan_claim claim)
{
    typedef forward_shape<D> shape;
    enum { M = shape::FRAGMENTS, ROWS = shape::ROWS, KEYS = shape::KEYS };
    const int head = blockIdx.x % sizes.heads;
    const int tile = blockIdx.x / sizes.heads / shape::PARTS;
    const int begin = blockIdx.x / sizes.heads % shape::PARTS * ROWS;
    if (!is_planned(counts, claim) || tile >= counts->forward) return;
    const query_tile *t = tiles + tile;
    const int rows = min((int)ROWS, t->rows - begin);
    if (rows <= 0) return;

    DYN_SHARED(bf16, memory);
    bf16 *q = memory, *keys = q + ROWS * D, *values = keys + STAGES * KEYS * D;
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * M * 16;
    const int dim = sizes.head_dim, kv_head = head / (sizes.heads / sizes.kv_heads);
    const int k_column = (sizes.heads + kv_head) * dim, v_column = k_column + sizes.kv_heads * dim;
    const int64_t first_token = t->token + begin;
    int *place =
        reinterpret_cast<int *>(memory + shape::ELEMENTS); /* what is not worth registers */
    if (threadIdx.x == 0) {
        place[0] = t->token + begin;
        place[1] = rows;
        place[2] = t->prompt_length + t->index + begin; /* position of the first query */
        place[3] = head;
        place[4] = k_column;
        place[5] = v_column;
    }
    place[6 + threadIdx.x] =
        (int)threadIdx.x; /* so that nothing made from it is kept over the loop */

    key_walk walk = walk_of(t, begin, rows, sizes.window);
    load_rows<D, ROWS, THREADS>(threadIdx.x, q, x.qkv + first_token * x.qkv_stride + head * dim,
                                x.qkv_stride, rows, dim);
    load_rows<D, KEYS, THREADS>(threadIdx.x, keys,
                                x.qkv + (int64_t)walk.token * x.qkv_stride + k_column, x.qkv_stride,
                                walk.left, dim);
    load_rows<D, KEYS, THREADS>(threadIdx.x, values,
                                x.qkv + (int64_t)walk.token * x.qkv_stride + v_column, x.qkv_stride,
                                walk.left, dim);
    cp_async_commit();

    float acc[M][D / 8][4] = {}, maximum[M][2], sum[M][2];
    uint32_t held[M][shape::HELD ? D / 16 : 1][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
        maximum[m][0] = maximum[m][1] = -INFINITY;
        sum[m][0] = sum[m][1] = 0.0f;
    }
    const int q_at = row_at<D>(row + lane % 16, lane / 16);
    const int k_lane = ROWS * D + row_at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    const int v_lane = (ROWS + STAGES * KEYS) * D + row_at<D>(lane % 16, lane / 16);
    if (shape::HELD) {
        cp_async_wait<0>();
        __syncthreads(); /* queries have arrived */
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int c = 0; c < (shape::HELD ? D / 16 : 1); c++) {
                ldmatrix_x4(held[m][c], memory + further<D>(q_at, c * 2) + m * 16 * D);
            }
        }
    }
    int stage = 0; /* where it begins among the stages */
#pragma unroll 1
    while (walk.left > 0) {
        cp_async_wait<0>();
        __syncthreads(); /* this stage has arrived, and nobody reads the other any more */
        const int position = walk.position, left = walk.left, query = place[2];
        pass<KEYS>(&walk);
        if (walk.left > 0) {
            const bf16 *from = x.qkv + (int64_t)walk.token * x.qkv_stride;
            const int k = place[4], v = place[5], thread = place[6 + threadIdx.x];
            load_rows<D, KEYS, THREADS>(thread, keys + (KEYS * D - stage), from + k, x.qkv_stride,
                                        walk.left, dim);
            load_rows<D, KEYS, THREADS>(thread, values + (KEYS * D - stage), from + v, x.qkv_stride,
                                        walk.left, dim);
            cp_async_commit();
        }
        /* Keys after the last query of the warp, and warps without queries, have nothing to do. */
        if (row < place[1] && position <= query + row + M * 16 - 1)
            attend<D>(acc, maximum, sum, held, memory, q_at, k_lane + stage, v_lane + stage,
                      position, left, query, sizes.scale * LOG2_E, sizes.window);
        stage = KEYS * D - stage;
    }
    const int64_t token = place[0];
    if (row < place[1])
        write_queries<D>(x.out + (token + row) * x.out_stride + place[3] * dim,
                         x.lse + (token + row) * x.lse_stride + place[3], q + row * D, acc, maximum,
                         sum, place[1] - row, &x, dim, sizes.scale);
}

template <int D>
static cudpo_status launch(const forward_tensors *x, const plan_view *plan, attention_shape s,
                           plan_claim claim, cudpo_stream stream)
{
    typedef forward_shape<D> shape;
    (void)cudaFuncSetAttribute(attention_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               shape::BYTES); /* where it fails, so does the launch */
    LAUNCH((attention_kernel<D>), (unsigned)(plan->most_forward * shape::PARTS * s.heads), THREADS,
           shape::BYTES, stream, *x, plan->counts, plan->forward, sizes_of(s), claim);
    return LAUNCHED();
}

/* Attention of a pack's asking tokens: see backend.h.  Source: Dao 2023, arXiv:2307.08691, over the two ranges of keys.
 *  Out:     out   [T,Q] f32 or bf16.        lse  [T,H] f32, natural logarithms.
 *           Rows before the first and after the last asking token of a segment keep what they hold.
 *  In:      qkv   [T,Q+2KV] of out's type, T <= 2^19.
 *           plan  of cuda_attention_plan for the same T, head_dim and window, and N segments; (T/128 + N) H < 2^28.
 *           shape head_dim 1 .. 256, scale > 0.  In bf16 head_dim is a multiple of 8 and rows of qkv and out are 16-byte
 *           aligned and less than 2^24 elements apart; head_dim other than 64, 96, 128 and 256 costs as much as the next of
 *           these.
 *           out, lse and fault overlap nothing.
 *  Faults:  FAULT_PLAN: the plan was made for another T, N, window or tile of keys.  Outputs keep what they hold.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE.
 *  4 A Q flops for A visible pairs of query and key; 2 (2Q + 2KV) + 4H bytes a token and, from the second cache, 4 D bytes
 *  a visible key, head and 128 queries (64 where D > 128).  bf16: weights are rounded to bf16, sums are in fp32. */
extern "C" cudpo_status cuda_attention(tensor out, tensor lse, tensor qkv, tensor plan,
                                       attention_shape shape, tensor fault, cudpo_stream stream)
{
    const int64_t T = qkv.rows;
    CUDPO_REQUIRE(attention_shape_valid(shape));
    CUDPO_REQUIRE(is_float(qkv, T, qkv_columns(shape)));
    CUDPO_REQUIRE(qkv.rows <= MAX_TOKENS);
    CUDPO_REQUIRE(is_float(out, T, query_columns(shape)));
    CUDPO_REQUIRE(out.type == qkv.type);
    CUDPO_REQUIRE(is_f32(lse, T, shape.heads));
    CUDPO_REQUIRE(plan_segments(plan, T) >= 0);
    CUDPO_REQUIRE(is_fault(fault));
    const plan_view p = plan_at(plan.data, T, plan_segments(plan, T));
    CUDPO_REQUIRE(are_blocks(p.most_forward, shape.heads));
    if (qkv.type == DTYPE_BF16) {
        CUDPO_REQUIRE(shape.head_dim % 8 == 0);
        CUDPO_REQUIRE(is_vectorisable(qkv) && is_near(qkv));
        CUDPO_REQUIRE(is_vectorisable(out) && is_near(out));
    }
    CUDPO_REQUIRE(tensor_disjoint(out, qkv) && tensor_disjoint(lse, qkv));
    CUDPO_REQUIRE(tensor_disjoint(out, plan) && tensor_disjoint(lse, plan));
    CUDPO_REQUIRE(tensor_disjoint(out, lse));
    CUDPO_REQUIRE(tensor_disjoint(fault, out) && tensor_disjoint(fault, lse));
    CUDPO_REQUIRE(tensor_disjoint(fault, qkv) && tensor_disjoint(fault, plan));
    if (T == 0 || p.N == 0) return CUDPO_OK;
    const plan_claim claim = claim_of(&p, shape, fault);
    if (qkv.type == DTYPE_F32) return attention_f32(out, lse, qkv, &p, shape, claim, stream);
    const forward_tensors x = {(bf16 *)out.data, (float *)lse.data, (const bf16 *)qkv.data,
                               lse.stride,       row_stride(out),   row_stride(qkv)};
    if (shape.head_dim <= 64) return launch<64>(&x, &p, shape, claim, stream);
    if (shape.head_dim <= 96) return launch<96>(&x, &p, shape, claim, stream);
    if (shape.head_dim <= 128) return launch<128>(&x, &p, shape, claim, stream);
    return launch<256>(&x, &p, shape, claim, stream);
}
