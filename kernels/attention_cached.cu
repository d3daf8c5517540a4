/* attention_cached.cu - decoding: keys and values are kept in caches, and each sequence asks with one query. */
#include "attention.h"
#include "piece.h"

enum { THREADS = 128, WARPS = THREADS / 32, PER_LANE = MAX_HEAD_DIM / 32 };

static int64_t key_columns(attention_shape s)
{
    return (int64_t)s.kv_heads * s.head_dim;
}

/* A piece of k and the same of v a thread. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    cache_store_kernel(tensor k_cache, tensor v_cache, const Real *qkv, int64_t stride, tensor slot,
                       int64_t queries, int64_t pieces, int *fault)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= slot.rows * pieces) return;
    const place at = place_of<N>(i, pieces);
    const int32_t row = ((const int32_t *)slot.data)[at.row * slot.stride];
    if (row < 0 || row >= k_cache.rows) {
        if (fault != NULL && at.column == 0) atomicOr(fault, (int)FAULT_INDEX);
        return;
    }
    const Real *from = qkv + at.row * stride + queries + at.column;
    float k[N], v[N];
    load_piece(k, from);
    load_piece(v, from + pieces * N);
    store_piece((Real *)k_cache.data + row * k_cache.stride + at.column, k);
    store_piece((Real *)v_cache.data + row * v_cache.stride + at.column, v);
}

/* k_cache[slot[t]] = k of token t,  v_cache[slot[t]] = v of token t.
 *  Out:     k_cache, v_cache  [M,KV] f32 or bf16; other rows stay.  Of a slot that is no row, nothing is written, and
 *                    FAULT_INDEX is set.  They and fault overlap nothing.
 *  In:      qkv   [T,Q+2KV] like the caches; T KV at most 2^31-1 times 128 threads.
 *           slot  [T] i32 in 0 .. M-1, all different.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, outputs untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: T (4 KV e + 4), e = 2 or 4 for an element. */
extern "C" cudpo_status cuda_cache_store(tensor k_cache, tensor v_cache, tensor qkv, tensor slot,
                                         attention_shape shape, tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(attention_shape_valid(shape));
    const int64_t Q = query_columns(shape), KV = key_columns(shape);
    CUDPO_REQUIRE(is_float(qkv, qkv.rows, qkv_columns(shape)));
    CUDPO_REQUIRE(is_float(k_cache, k_cache.rows, KV) && k_cache.type == qkv.type);
    CUDPO_REQUIRE(is_like(v_cache, k_cache));
    CUDPO_REQUIRE(is_i32(slot, qkv.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(fits_grid(qkv.rows * KV, THREADS));
    CUDPO_REQUIRE(tensor_disjoint(k_cache, v_cache) && tensor_disjoint(k_cache, qkv));
    CUDPO_REQUIRE(tensor_disjoint(v_cache, qkv) && tensor_disjoint(k_cache, slot));
    CUDPO_REQUIRE(tensor_disjoint(v_cache, slot) && tensor_disjoint(fault, k_cache));
    CUDPO_REQUIRE(tensor_disjoint(fault, v_cache) && tensor_disjoint(fault, qkv));
    CUDPO_REQUIRE(tensor_disjoint(fault, slot));
    if (qkv.rows == 0) return CUDPO_OK;
    const bool vectors = is_vectorisable(k_cache) && is_vectorisable(v_cache) &&
                         is_vectorisable(tensor_cols(qkv, Q, KV)) &&
                         is_vectorisable(tensor_cols(qkv, Q + KV, KV));
    FLOAT_TYPE(qkv.type, Real, {
        PIECES(vectors, lanes<Real>::COUNT, N, {
            const int64_t pieces = KV / N;
            LAUNCH((cache_store_kernel<Real, N>), blocks_for(qkv.rows * pieces, THREADS), THREADS,
                   0, stream, k_cache, v_cache, (const Real *)qkv.data, qkv.stride, slot, Q, pieces,
                   (int *)fault.data);
        });
    });
    return LAUNCHED();
}

/* Softmax so far: the largest score, the sum of exp(score - largest), and the same sum of values. */
struct softmax_state {
    float largest, sum, value[PER_LANE];
};

/* A block has one query: a head of a sequence.  Warp w takes keys w, w + WARPS, ..; lane l elements l, l + 32, ..  The
 * warps' states are joined in order. */
template <typename Real>
static __global__ void __launch_bounds__(THREADS)
    attention_cached_kernel(tensor out, tensor qkv, tensor k_cache, tensor v_cache, tensor first,
                            tensor length, attention_shape shape, int *fault)
{
    SHARED(float, largest, [WARPS]);
    SHARED(float, sum, [WARPS]);
    SHARED(float, value, [WARPS][MAX_HEAD_DIM]);
    const int64_t b = blockIdx.x / shape.heads;
    const int head = (int)(blockIdx.x % shape.heads), D = shape.head_dim;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t begin = ((const int32_t *)first.data)[b * first.stride];
    const int64_t count = ((const int32_t *)length.data)[b * length.stride];
    const bool valid = begin >= 0 && count >= 1 && begin + count <= k_cache.rows;
    const int64_t column = (int64_t)(head / (shape.heads / shape.kv_heads)) * D;
    const Real *query = (const Real *)qkv.data + b * qkv.stride + (int64_t)head * D;
    const int mine = (D - lane + 31) / 32; /* elements of this lane */
    float q[PER_LANE];
    softmax_state s = {-INFINITY, 0.0f, {}};
#pragma unroll
    for (int j = 0; j < PER_LANE; j++) {
        q[j] = j < mine ? to_float(query[lane + 32 * j]) * shape.scale : 0.0f;
    }
    const int64_t hidden = shape.window > 0 && count > shape.window ? count - shape.window : 0;
    for (int64_t i = hidden + warp; valid && i < count; i += WARPS) {
        const Real *k = (const Real *)k_cache.data + (begin + i) * k_cache.stride + column;
        const Real *v = (const Real *)v_cache.data + (begin + i) * v_cache.stride + column;
        float score = 0.0f;
#pragma unroll
        for (int j = 0; j < PER_LANE; j++) {
            if (j < mine) score += q[j] * to_float(k[lane + 32 * j]);
        }
        score = warp_sum(score);
        const float most = fmaxf(s.largest, score);
        const float before = expf(s.largest - most), now = expf(score - most);
        s.largest = most;
        s.sum = s.sum * before + now;
#pragma unroll
        for (int j = 0; j < PER_LANE; j++) {
            if (j < mine) s.value[j] = s.value[j] * before + now * to_float(v[lane + 32 * j]);
        }
    }
    if (lane == 0) {
        largest[warp] = s.largest;
        sum[warp] = s.sum;
    }
#pragma unroll
    for (int j = 0; j < PER_LANE; j++) {
        value[warp][lane + 32 * j] = s.value[j];
    }
    __syncthreads(); /* all states are written */
    float most = largest[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) {
        most = fmaxf(most, largest[w]);
    }
    for (int d = threadIdx.x; d < D; d += THREADS) {
        float total = 0.0f, weighted = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float share = expf(largest[w] - most); /* 0 for a warp without a key */
            total += sum[w] * share;
            weighted += value[w][d] * share;
        }
        ((Real *)out.data)[b * out.stride + (int64_t)head * D + d] =
            from_float<Real>(valid ? weighted / total : NAN);
    }
    if (!valid && fault != NULL && threadIdx.x == 0) atomicOr(fault, (int)FAULT_INDEX);
}

/* out[b] = attention of one query over rows first[b] .. first[b] + length[b] - 1 of the caches, of which its own key is
 * the last; with a window, over the last `window` of them.
 *  Out:     out   [B,Q] f32 or bf16.  NaN where the rows are none of the caches' or none at all: then FAULT_INDEX is set.
 *           out and fault overlap nothing.
 *  In:      qkv   [B,Q+2KV] like out, of which q is read; B H at most 2^31-1.    k_cache, v_cache  [M,KV] like out.
 *           first, length  [B] i32.    head_dim up to 256, scale > 0.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, out untouched; CUDPO_EDEVICE if the launch failed.
 *  Bytes: a query reads 2 length D e; the heads that share keys find them in the caches.  4 length D operations a query.
 *  For reading, not for training: one query a block does not fill a GPU. */
extern "C" cudpo_status cuda_attention_cached(tensor out, tensor qkv, tensor k_cache,
                                              tensor v_cache, tensor first, tensor length,
                                              attention_shape shape, tensor fault,
                                              cudpo_stream stream)
{
    CUDPO_REQUIRE(attention_shape_valid(shape));
    const int64_t B = qkv.rows;
    CUDPO_REQUIRE(is_float(qkv, B, qkv_columns(shape)));
    CUDPO_REQUIRE(qkv.rows <= INT32_MAX / shape.heads);
    CUDPO_REQUIRE(is_float(out, B, query_columns(shape)) && out.type == qkv.type);
    CUDPO_REQUIRE(is_float(k_cache, k_cache.rows, key_columns(shape)));
    CUDPO_REQUIRE(k_cache.type == qkv.type);
    CUDPO_REQUIRE(is_like(v_cache, k_cache));
    CUDPO_REQUIRE(is_i32(first, B, 1));
    CUDPO_REQUIRE(is_i32(length, B, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(out, qkv) && tensor_disjoint(out, k_cache));
    CUDPO_REQUIRE(tensor_disjoint(out, v_cache) && tensor_disjoint(out, first));
    CUDPO_REQUIRE(tensor_disjoint(out, length) && tensor_disjoint(fault, out));
    CUDPO_REQUIRE(tensor_disjoint(fault, qkv) && tensor_disjoint(fault, k_cache));
    CUDPO_REQUIRE(tensor_disjoint(fault, v_cache) && tensor_disjoint(fault, first));
    CUDPO_REQUIRE(tensor_disjoint(fault, length));
    if (B == 0) return CUDPO_OK;
    FLOAT_TYPE(out.type, Real, {
        LAUNCH((attention_cached_kernel<Real>), (unsigned)(B * shape.heads), THREADS, 0, stream,
               out, qkv, k_cache, v_cache, first, length, shape, (int *)fault.data);
    });
    return LAUNCHED();
}
