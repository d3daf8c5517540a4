/* embed.cu - rows of the embedding table for tokens, and their gradient. */
#include "indexed.h"

/* x [T,C] = table[token].
 *  Out:     x      [T,C] f32 or bf16: the table's rows, bit by bit; zeros for a token outside of the table.
 *  In:      table  [V,C] of x's type.   token [T] i32.
 *  In/Out:  fault  [1] i32 or absent: FAULT_TOKEN.
 *  x and fault overlap nothing.
 *  Bytes:   2 T C of x's type, and 4 T.  No scratch. */
extern "C" cudpo_status cuda_embed(tensor x, tensor table, tensor token, tensor fault,
                                   cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(table));
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(x.type == table.type);
    CUDPO_REQUIRE(x.cols == table.cols);
    CUDPO_REQUIRE(is_i32(token, x.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(x, table));
    CUDPO_REQUIRE(tensor_disjoint(x, token));
    CUDPO_REQUIRE(tensor_disjoint(x, fault));
    CUDPO_REQUIRE(tensor_disjoint(table, fault));
    CUDPO_REQUIRE(tensor_disjoint(token, fault));
    CUDPO_REQUIRE(gather_fits(x, table));
    return gather_indexed(x, table, token, fault, FAULT_TOKEN, stream);
}

enum { THREADS = 512, WARPS = THREADS / 32, TILE = 64 };

/* A run is the entries of one token.  One block has the runs that begin at its TILE entries of the order, and of those
 * CHUNK columns: a warp a run, its rows in order.  A run longer than TILE is the block's last, and all warps share it:
 * warp w has rows w, w + WARPS, .., and their sums are added warp by warp.  So the order of a token's sum is decided by
 * its own rows alone.  Moves T C of dx, and twice the rows of dtable that gain. */
template <typename W, typename T, int N>
static __global__ void __launch_bounds__(THREADS)
    embed_backward_kernel(W *dtable, const T *dx, const uint64_t *order, int64_t T_, int64_t V,
                          int64_t C, int64_t table_stride, int64_t stride, int64_t chunks)
{
    enum { PIECES = CHUNK / 32 / N };
    SHARED(uint32_t, token, [2 * TILE]); /* of the block's entries and as many more */
    SHARED(int, length, [TILE]);         /* of the run that begins there; 0: none, or a long one */
    SHARED(int, longest, [1]);           /* where a long run begins; -1: there is none */
    SHARED(float, part, [WARPS][CHUNK]);
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int64_t begin = blockIdx.x / chunks * TILE, edge = blockIdx.x % chunks * CHUNK;
    const int64_t width = C - edge; /* columns from the chunk's first to the end of the row */
    dtable += edge;
    dx += edge;
    if (thread < 2 * TILE)
        token[thread] = begin + thread < T_ ? index_of(order[begin + thread]) : NO_INDEX;
    if (thread == 0) longest[0] = -1;
    __syncthreads(); /* token and longest are set */
    if (thread < TILE) {
        const uint32_t own = token[thread];
        const uint32_t before = thread > 0  ? token[thread - 1]
                                : begin > 0 ? index_of(order[begin - 1])
                                            : NO_INDEX;
        int n = 0;
        if (own < V && own != before) {
            n = 1;
#pragma unroll
            for (int step = TILE / 2; step > 0; step /= 2) {
                if (token[thread + n + step - 1] == own) n += step;
            }
            if (token[thread + TILE] == own) {
                longest[0] = thread;
                n = 0;
            }
        }
        length[thread] = n;
    }
    __syncthreads(); /* length and longest are known */
    for (int i = warp; i < TILE; i += WARPS) {
        if (length[i] == 0) continue;
        float sum[PIECES][N] = {};
        add_rows<N>(sum, dx, stride, width, order, begin + i, begin + i + length[i], 1, nullptr, 0);
        W *to = dtable + (int64_t)token[i] * table_stride;
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
            const int column = (p * 32 + lane) * N;
            if (column >= width) continue;
            float old[N];
            load_quad(old, to + column);
#pragma unroll
            for (int j = 0; j < N; j++) {
                sum[p][j] += old[j];
            }
            store_quad(to + column, sum[p]);
        }
    }
    if (longest[0] < 0) return;
    const uint32_t own = token[longest[0]];
    const int64_t end = entries_below(order, T_, (uint64_t)(own + 1) << 32);
    float sum[PIECES][N] = {};
    add_rows<N>(sum, dx, stride, width, order, begin + longest[0] + warp, end, WARPS, nullptr, 0);
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            part[warp][(p * 32 + lane) * N + j] = sum[p][j];
        }
    }
    __syncthreads(); /* all parts are there */
    if (thread >= CHUNK || thread >= width) return;
    float total = part[0][thread];
    for (int w = 1; w < WARPS; w++) {
        total += part[w][thread];
    }
    W *to = dtable + (int64_t)own * table_stride + thread;
    *to = from_float<W>(to_float(*to) + total);
}

/* A tile of entries and a chunk of columns each. */
static int64_t blocks_of(tensor dx)
{
    const int64_t tiles = (dx.rows + TILE - 1) / TILE, chunks = (dx.cols + CHUNK - 1) / CHUNK;
    return tiles * chunks;
}

extern "C" size_t cuda_embed_backward_scratch(int64_t T)
{
    return order_scratch(T);
}

/* dtable [V,C] += dx [T,C] by token.
 *  In/Out:  dtable  [V,C] f32 or bf16, V < 2^31.  A row gains the float32 sum of its rows of dx, and rounds once.
 *  In:      dx      [T,C] f32 or bf16, of its own type.   token [T] i32, T < 2^31.
 *  Scratch: cuda_embed_backward_scratch(T) bytes.
 *  In/Out:  fault   [1] i32 or absent: FAULT_TOKEN; the token's row is left out.
 *  dtable, scratch and fault overlap nothing.
 *  Bytes:   T C of dx and 2 U C of dtable for U different tokens; the order of T tokens besides, 50 T or so.
 *  The bits of a row depend on its own rows of dx alone, in their order: up to 64 are added one after the other, more
 *  are dealt to 16 sums, which are then added. */
extern "C" cudpo_status cuda_embed_backward(tensor dtable, tensor dx, tensor token, scratch s,
                                            tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(dtable));
    CUDPO_REQUIRE(dtable.rows <= INT32_MAX);
    CUDPO_REQUIRE(is_matrix(dx));
    CUDPO_REQUIRE(dx.cols == dtable.cols);
    CUDPO_REQUIRE(dx.rows <= INT32_MAX);
    CUDPO_REQUIRE(blocks_of(dx) <= INT32_MAX);
    CUDPO_REQUIRE(is_i32(token, dx.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(dtable, dx));
    CUDPO_REQUIRE(tensor_disjoint(dtable, token));
    CUDPO_REQUIRE(tensor_disjoint(dtable, fault));
    CUDPO_REQUIRE(tensor_disjoint(dx, fault));
    CUDPO_REQUIRE(tensor_disjoint(token, fault));
    const size_t bytes = cuda_embed_backward_scratch(dx.rows);
    CUDPO_REQUIRE(is_scratch(s, bytes));
    CUDPO_REQUIRE(is_apart(s, bytes, dtable));
    CUDPO_REQUIRE(is_apart(s, bytes, dx));
    CUDPO_REQUIRE(is_apart(s, bytes, token));
    CUDPO_REQUIRE(is_apart(s, bytes, fault));
    if (dx.rows == 0) return CUDPO_OK;
    const int64_t T_ = dx.rows, V = dtable.rows, C = dx.cols, chunks = blocks_for(C, CHUNK);
    const unsigned blocks = (unsigned)blocks_of(dx);
    const uint64_t *order;
    CUDPO_TRY(order_indices(&order, token, V, s, fault, FAULT_TOKEN, stream));
    const bool quads = has_quads(dtable) && has_quads(dx);
    FLOAT_TYPE(dtable.type, W, {
        FLOAT_TYPE(dx.type, T, {
            if (quads)
                LAUNCH((embed_backward_kernel<W, T, 4>), blocks, THREADS, 0, stream,
                       (W *)dtable.data, (const T *)dx.data, order, T_, V, C, dtable.stride,
                       dx.stride, chunks);
            else
                LAUNCH((embed_backward_kernel<W, T, 1>), blocks, THREADS, 0, stream,
                       (W *)dtable.data, (const T *)dx.data, order, T_, V, C, dtable.stride,
                       dx.stride, chunks);
        });
    });
    return LAUNCHED();
}
