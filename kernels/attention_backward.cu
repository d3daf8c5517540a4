/* attention_backward.cu - attention over a pack, backward, in bf16 on tensor cores.
 *
 * With p = e^(scale q k^T - lse) and delta = sum(dout * out) of each query:
 *     dv = p^T dout,   ds = p (dout v^T - delta),   dq = scale ds k,   dk = scale ds^T q.
 * Source: Dao 2023, arXiv:2307.08691.  A block keeps the dk and dv of a tile of keys and takes all queries that see it
 * past them.  The ds of a pair of tiles goes to a slot of its own, in bf16 as it is multiplied; a second kernel takes the
 * slots of a tile of queries in order of keys.  ds is half as large as the share in dq that it makes with D = 128, and the
 * first kernel, which is short of registers, is rid of a multiplication and a barrier. */
#include "attention_dkv.h"
#include "attention_dq.h"
#include "attention_f32.h"

/* lse and delta of a tile of queries and head, eight lanes a row.  Reads 4 D + 4 bytes a row and head. */
enum { STATISTICS_THREADS = 128, STATISTICS_LANES = 8 };

static __global__ void __launch_bounds__(STATISTICS_THREADS)
    attention_statistics_kernel(backward_tensors x, const bf16 *out, int64_t out_stride,
                                const float *lse, int64_t lse_stride, const plan_counts *counts,
                                const query_tile *tiles, int heads, int head_dim, plan_claim claim,
                                plan_counts *copy)
{
    const int head = blockIdx.x % heads, tile = blockIdx.x / heads;
    if (!is_planned_for_all(copy, counts, claim) || tile >= counts->backward) return;
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

template <int D, int QUERIES>
static cudpo_status launch(const backward_tensors *x, const plan_view *p, const division *d,
                           attention_shape s, cudpo_stream stream)
{
    typedef backward_shape<D, QUERIES> shape;
    const attention_sizes sizes = sizes_of(s);
    const int64_t each = x->capacity / (d->slots * (s.heads / s.kv_heads)); /* kv heads a pass */
    for (int pass = 0; pass * each < s.kv_heads; pass++) {
        LAUNCH((attention_backward_kernel<D, QUERIES>),
               (unsigned)(d->keys * s.kv_heads * d->parts * shape::HALVES), shape::THREADS,
               shape::BYTES, stream, *x, p->counts, p->backward, p->key, sizes, pass);
        CUDPO_TRY(LAUNCHED());
        LAUNCH((attention_dq_kernel<D>), (unsigned)(d->queries * s.heads), dq_shape<D>::THREADS,
               dq_shape<D>::BYTES, stream, *x, p->counts, p->backward, sizes, pass);
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
    (void)cudaFuncSetAttribute(attention_dq_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)dq_shape<D>::BYTES); /* where it fails, so does the launch */
    if (error != cudaSuccess) (void)cudaGetLastError();  /* it is answered */
    return error == cudaSuccess;
}

/* Bytes for `kv_heads` of the kv heads at a time; 0 where the launcher refuses the sizes. */
extern "C" size_t cuda_attention_backward_scratch(int64_t T, int64_t segments,
                                                  attention_shape shape, dtype type, int kv_heads)
{
    return attention_backward_bytes(T, segments, shape, type, kv_heads);
}

/* Gradients of a pack's attention: see backend.h.
 *  Out:     dqkv  [T,Q+2KV] f32 or bf16; dq of tokens outside of the asking range of their segment is 0.
 *  In:      dout, out [T,Q], qkv [T,Q+2KV] of dqkv's type, lse [T,H] f32: of the forward pass; what the asking range of no
 *           segment has is not read.      plan, shape: as in the forward pass, with (T/64 + N) H < 2^28.
 *           In bf16 rows are 16-byte aligned, and those of qkv, dqkv and dout less than 2^24 elements apart.
 *           s     cuda_attention_backward_scratch(T, N, shape, type, n) bytes for some n of 1 .. kv_heads; the result
 *                 does not depend on n.  With fewer, the pass over the kernels is repeated as often as the plan needs, and
 *                 launched as often as the worst plan of T and N would need.
 *           dqkv, fault and all of s overlap nothing.
 *  Faults:  FAULT_PLAN, as in the forward pass: dqkv keeps what it holds.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, dqkv untouched; CUDPO_EDEVICE.
 *  10 A Q flops for A visible pairs; at least 2 (4Q + 4KV) + 8H bytes a token, and 4 bytes for each query, head and key of
 *  the tiles that it sees: ds, written and read again.  bf16: p and ds are rounded to bf16, sums are in fp32. */
extern "C" cudpo_status cuda_attention_backward(tensor dqkv, tensor dout, tensor qkv, tensor out,
                                                tensor lse, tensor plan, attention_shape shape,
                                                scratch s, tensor fault, cudpo_stream stream)
{
    const int64_t T = qkv.rows;
    CUDPO_REQUIRE(attention_shape_valid(shape));
    CUDPO_REQUIRE(is_float(qkv, T, qkv_columns(shape)));
    CUDPO_REQUIRE(qkv.rows <= MAX_TOKENS);
    CUDPO_REQUIRE(is_like(dqkv, qkv));
    CUDPO_REQUIRE(is_float(out, T, query_columns(shape)));
    CUDPO_REQUIRE(out.type == qkv.type);
    CUDPO_REQUIRE(is_like(dout, out));
    CUDPO_REQUIRE(is_f32(lse, T, shape.heads));
    CUDPO_REQUIRE(plan_segments(plan, T) >= 0);
    CUDPO_REQUIRE(is_fault(fault));
    plan_view p = plan_at(plan.data, T, plan_segments(plan, T));
    CUDPO_REQUIRE(are_blocks(most_queries(T, p.N), shape.heads));
    if (qkv.type == DTYPE_BF16) {
        CUDPO_REQUIRE(shape.head_dim % 8 == 0);
        CUDPO_REQUIRE(is_vectorisable(qkv) && is_near(qkv));
        CUDPO_REQUIRE(is_vectorisable(dqkv) && is_near(dqkv));
        CUDPO_REQUIRE(is_vectorisable(dout) && is_near(dout));
        CUDPO_REQUIRE(is_vectorisable(out));
    }
    CUDPO_REQUIRE(is_scratch(s, cuda_attention_backward_scratch(T, p.N, shape, qkv.type, 1)));
    CUDPO_REQUIRE(tensor_disjoint(dqkv, qkv) && tensor_disjoint(dqkv, dout));
    CUDPO_REQUIRE(tensor_disjoint(dqkv, out) && tensor_disjoint(dqkv, lse));
    CUDPO_REQUIRE(tensor_disjoint(dqkv, plan) && tensor_disjoint(dqkv, fault));
    CUDPO_REQUIRE(is_apart(s, s.bytes, dqkv) && is_apart(s, s.bytes, qkv));
    CUDPO_REQUIRE(is_apart(s, s.bytes, dout) && is_apart(s, s.bytes, out));
    CUDPO_REQUIRE(is_apart(s, s.bytes, lse) && is_apart(s, s.bytes, plan));
    CUDPO_REQUIRE(is_apart(s, s.bytes, fault) && tensor_disjoint(fault, plan));
    CUDPO_REQUIRE(tensor_disjoint(fault, qkv) && tensor_disjoint(fault, dout));
    CUDPO_REQUIRE(tensor_disjoint(fault, out) && tensor_disjoint(fault, lse));
    if (T == 0 || p.N == 0) return CUDPO_OK;
    const division d = divide(T, p.N, shape);
    const plan_claim claim = claim_of(&p, shape, fault);
    if (qkv.type == DTYPE_F32)
        return attention_backward_f32(dqkv, dout, qkv, out, lse, &p, s.data, shape, claim, stream);
    char *memory = (char *)s.data;
    backward_tensors x = {};
    x.dqkv = (bf16 *)dqkv.data;
    x.dout = (const bf16 *)dout.data;
    x.qkv = (const bf16 *)qkv.data;
    x.dqkv_stride = row_stride(dqkv);
    x.dout_stride = row_stride(dout);
    x.qkv_stride = row_stride(qkv);
    plan_counts *copy = (plan_counts *)memory;
    x.statistics = (float2 *)(memory + d.counts);
    x.dkv = d.parts > 1 ? (float4 *)(memory + d.counts + d.statistics) : NULL;
    x.ds = (uint32_t *)(memory + d.counts + d.statistics + d.dkv);
    x.most_backward = d.queries;
    x.most_keys = d.keys;
    x.capacity = (int64_t)((s.bytes - d.counts - d.statistics - d.dkv) / d.slot);
    x.parts = d.parts;
    x.heads_per_part = d.heads_per_part;
    x.factor = shape.scale * LOG2_E;
    LAUNCH(attention_statistics_kernel, (unsigned)(d.queries * shape.heads), STATISTICS_THREADS, 0,
           stream, x, (const bf16 *)out.data, out.stride, (const float *)lse.data, lse.stride,
           p.counts, p.backward, shape.heads, shape.head_dim, claim, copy);
    CUDPO_TRY(LAUNCHED());
    p.counts = copy;
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
