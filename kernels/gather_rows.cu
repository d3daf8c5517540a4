/* gather_rows.cu - rows of a matrix by index, the way back, and rows times a number. */
#include "indexed.h"

enum { THREADS = 256, WARPS = THREADS / 32, PIECES = 4 };

/* Warps that a row of `units` needs, 32 * PIECES each. */
static int64_t warps_for(int64_t units)
{
    return (units + 32 * PIECES - 1) / (32 * PIECES);
}

/* A warp copies 32 * PIECES units of U of one row; all of a lane's reads are in flight together. */
template <typename U>
static __global__ void __launch_bounds__(THREADS)
    gather_kernel(U *__restrict__ out, const U *__restrict__ x, const int32_t *__restrict__ index,
                  int64_t R, int64_t T_, int64_t columns, int64_t chunks, int64_t out_stride,
                  int64_t stride, int64_t index_stride, int32_t *fault, int bit)
{
    const int64_t work = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int64_t r = work / chunks, column = work % chunks * 32 * PIECES + threadIdx.x % 32;
    if (r >= R) return;
    const int64_t from = index[r * index_stride];
    const bool good = from >= 0 && from < T_;
    if (!good && column == 0 && fault != nullptr) atomicOr(fault, bit);
    U piece[PIECES];
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        piece[p] = U();
        if (good && column + p * 32 < columns) piece[p] = x[from * stride + column + p * 32];
    }
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        if (column + p * 32 < columns) out[r * out_stride + column + p * 32] = piece[p];
    }
}

/* As gather_indexed, in units of U. */
template <typename U>
static cudpo_status gather_units(tensor out, tensor x, tensor index, tensor fault, int bit,
                                 cudpo_stream stream)
{
    const int64_t each = (int64_t)(sizeof(U) / dtype_size(x.type)), columns = x.cols / each;
    const int64_t chunks = warps_for(columns);
    LAUNCH((gather_kernel<U>), blocks_for(out.rows * chunks, WARPS), THREADS, 0, stream,
           (U *)out.data, (const U *)x.data, (const int32_t *)index.data, out.rows, x.rows, columns,
           chunks, out.stride / each, x.stride / each, index.stride, (int32_t *)fault.data, bit);
    return LAUNCHED();
}

static bool in_vectors(tensor out, tensor x)
{
    return is_vectorisable(out) && is_vectorisable(x);
}

bool gather_fits(tensor out, tensor x)
{
    const int64_t each = in_vectors(out, x) ? (int64_t)(16 / dtype_size(x.type)) : 1;
    return fits_grid(out.rows * warps_for(out.cols / each), WARPS);
}

cudpo_status gather_indexed(tensor out, tensor x, tensor index, tensor fault, int bit,
                            cudpo_stream stream)
{
    if (out.rows == 0) return CUDPO_OK;
    if (in_vectors(out, x)) return gather_units<uint4>(out, x, index, fault, bit, stream);
    if (x.type == DTYPE_F32) return gather_units<uint32_t>(out, x, index, fault, bit, stream);
    return gather_units<uint16_t>(out, x, index, fault, bit, stream);
}

/* out [R,C] = x[index].
 *  Out:     out    [R,C] f32 or bf16: x's rows, bit by bit; zeros for an index outside of x.
 *  In:      x      [T,C] of out's type.   index [R] i32.
 *  In/Out:  fault  [1] i32 or absent: FAULT_INDEX.
 *  out and fault overlap nothing.
 *  Bytes:   2 R C of out's type, and 4 R.  No scratch. */
extern "C" cudpo_status cuda_gather_rows(tensor out, tensor x, tensor index, tensor fault,
                                         cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_matrix(out));
    CUDPO_REQUIRE(out.type == x.type);
    CUDPO_REQUIRE(out.cols == x.cols);
    CUDPO_REQUIRE(is_i32(index, out.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(out, x));
    CUDPO_REQUIRE(tensor_disjoint(out, index));
    CUDPO_REQUIRE(tensor_disjoint(out, fault));
    CUDPO_REQUIRE(tensor_disjoint(x, fault));
    CUDPO_REQUIRE(tensor_disjoint(index, fault));
    CUDPO_REQUIRE(gather_fits(out, x));
    return gather_indexed(out, x, index, fault, FAULT_INDEX, stream);
}

/* A warp has one row of dx: it finds the entries of its index and writes their sum, chunk by chunk; so nothing is set to
 * zero before.  Moves T C written, and R C read. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS)
    scatter_kernel(T *__restrict__ dx, const T *__restrict__ drow, const uint64_t *order,
                   const float *scale, int64_t T_, int64_t R, int64_t C, int64_t stride,
                   int64_t drow_stride, int64_t scale_stride)
{
    enum { EACH = CHUNK / 32 / N };
    const int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (t >= T_) return;
    const int lane = threadIdx.x % 32;
    const int64_t begin = entries_below(order, R, (uint64_t)t << 32);
    const int64_t end = entries_below(order, R, (uint64_t)(t + 1) << 32);
    for (int64_t edge = 0; edge < C; edge += CHUNK) {
        float sum[EACH][N] = {};
        add_rows<N>(sum, drow + edge, drow_stride, C - edge, order, begin, end, 1, scale,
                    scale_stride);
#pragma unroll
        for (int p = 0; p < EACH; p++) {
            const int64_t column = edge + (p * 32 + lane) * N;
            if (column < C) store_quad(dx + t * stride + column, sum[p]);
        }
    }
}

extern "C" size_t cuda_scatter_rows_scratch(int64_t R)
{
    return order_scratch(R);
}

/* dx [T,C] = 0, then dx[index[r]] += scale[r] * drow[r], r in order.
 *  Out:     dx     [T,C] f32 or bf16, T < 2^31.  Sums are float32 and round once, to dx's type.  All zeros where R = 0.
 *  In:      drow   [R,C] of dx's type.   index [R] i32, R < 2^31.   scale [R] f32 or absent: 1.
 *  Scratch: cuda_scatter_rows_scratch(R) bytes.
 *  In/Out:  fault  [1] i32 or absent: FAULT_INDEX; the row is left out.
 *  dx, scratch and fault overlap nothing.
 *  Bytes:   T C and R C of dx's type; the order of R rows besides, 50 R or so.
 *  One warp adds all rows of an index: meant for few of them, such as the completions of a group. */
extern "C" cudpo_status cuda_scatter_rows(tensor dx, tensor drow, tensor index, tensor scale,
                                          scratch s, tensor fault, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(dx));
    CUDPO_REQUIRE(dx.rows <= INT32_MAX);
    CUDPO_REQUIRE(is_matrix(drow));
    CUDPO_REQUIRE(drow.rows <= INT32_MAX);
    CUDPO_REQUIRE(drow.type == dx.type);
    CUDPO_REQUIRE(drow.cols == dx.cols);
    CUDPO_REQUIRE(is_i32(index, drow.rows, 1));
    CUDPO_REQUIRE(!tensor_present(scale) || is_f32(scale, drow.rows, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(dx, drow));
    CUDPO_REQUIRE(tensor_disjoint(dx, index));
    CUDPO_REQUIRE(tensor_disjoint(dx, scale));
    CUDPO_REQUIRE(tensor_disjoint(dx, fault));
    CUDPO_REQUIRE(tensor_disjoint(drow, fault));
    CUDPO_REQUIRE(tensor_disjoint(index, fault));
    CUDPO_REQUIRE(tensor_disjoint(scale, fault));
    const size_t bytes = cuda_scatter_rows_scratch(drow.rows);
    CUDPO_REQUIRE(is_scratch(s, bytes));
    CUDPO_REQUIRE(is_apart(s, bytes, dx));
    CUDPO_REQUIRE(is_apart(s, bytes, drow));
    CUDPO_REQUIRE(is_apart(s, bytes, index));
    CUDPO_REQUIRE(is_apart(s, bytes, scale));
    CUDPO_REQUIRE(is_apart(s, bytes, fault));
    if (dx.rows == 0) return CUDPO_OK;
    const uint64_t *order;
    CUDPO_TRY(order_indices(&order, index, dx.rows, s, fault, FAULT_INDEX, stream));
    const unsigned blocks = blocks_for(dx.rows, WARPS);
    FLOAT_TYPE(dx.type, T, {
        if (has_quads(dx) && has_quads(drow))
            LAUNCH((scatter_kernel<T, 4>), blocks, THREADS, 0, stream, (T *)dx.data,
                   (const T *)drow.data, order, (const float *)scale.data, dx.rows, drow.rows,
                   dx.cols, dx.stride, drow.stride, scale.stride);
        else
            LAUNCH((scatter_kernel<T, 1>), blocks, THREADS, 0, stream, (T *)dx.data,
                   (const T *)drow.data, order, (const float *)scale.data, dx.rows, drow.rows,
                   dx.cols, dx.stride, drow.stride, scale.stride);
    });
    return LAUNCHED();
}

/* A warp multiplies 32 * PIECES pieces of N elements of one row. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS)
    scale_kernel(T *x, const float *__restrict__ scale, int64_t R, int64_t C, int64_t chunks,
                 int64_t stride, int64_t scale_stride)
{
    const int64_t work = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int64_t r = work / chunks;
    if (r >= R) return;
    const int64_t column = (work % chunks * 32 * PIECES + threadIdx.x % 32) * N;
    const float factor = scale[r * scale_stride];
    T *row = x + r * stride;
    float piece[PIECES][N];
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        if (column + p * 32 * N < C) load_quad(piece[p], row + column + p * 32 * N);
    }
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        if (column + p * 32 * N >= C) continue;
#pragma unroll
        for (int j = 0; j < N; j++) {
            piece[p][j] *= factor;
        }
        store_quad(row + column + p * 32 * N, piece[p]);
    }
}

/* x [R,C] *= scale [R], row by row.
 *  In/Out:  x  [R,C] f32 or bf16; products are float32 and round once, to x's type.
 *  In:      scale  [R] f32; does not overlap x.
 *  Bytes:   2 R C of x's type, and 4 R.  No scratch. */
extern "C" cudpo_status cuda_scale_rows(tensor x, tensor scale, cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_f32(scale, x.rows, 1));
    CUDPO_REQUIRE(tensor_disjoint(x, scale));
    if (x.rows == 0) return CUDPO_OK;
    const bool quads = has_quads(x);
    const int64_t chunks = warps_for(x.cols / (quads ? 4 : 1));
    CUDPO_REQUIRE(fits_grid(x.rows * chunks, WARPS));
    const unsigned blocks = blocks_for(x.rows * chunks, WARPS);
    FLOAT_TYPE(x.type, T, {
        if (quads)
            LAUNCH((scale_kernel<T, 4>), blocks, THREADS, 0, stream, (T *)x.data,
                   (const float *)scale.data, x.rows, x.cols, chunks, x.stride, scale.stride);
        else
            LAUNCH((scale_kernel<T, 1>), blocks, THREADS, 0, stream, (T *)x.data,
                   (const float *)scale.data, x.rows, x.cols, chunks, x.stride, scale.stride);
    });
    return LAUNCHED();
}
