/* map.cu - one elementwise stage of an expression: what a program does that fuses nothing. */
#include "check.h"
#include "kernels.h"
#include "quad.h"

#include <cmath>

enum { THREADS = 256 };

/* An operand that is broadcast: its row r / repeat for row r of the output, and its one column or all of them. */
struct operand {
    const void *data;
    int64_t stride, repeat;
    bool half, wide;
};

template <int N>
__device__ __forceinline__ void load_operand(float (&x)[N], const operand &a, int64_t row,
                                             int64_t column)
{
    const int64_t at = row / a.repeat * a.stride + (a.wide ? column : 0);
    if (a.data == nullptr) return;
    if (a.wide) {
        if (a.half)
            load_quad(x, (const bf16 *)a.data + at);
        else
            load_quad(x, (const float *)a.data + at);
        return;
    }
    const float one = a.half ? to_float(((const bf16 *)a.data)[at]) : ((const float *)a.data)[at];
#pragma unroll
    for (int j = 0; j < N; j++) {
        x[j] = one;
    }
}

__device__ __forceinline__ float apply(map_function f, float a, float b, float k)
{
    switch (f) {
    case MAP_ADD:
        return a + b;
    case MAP_SUBTRACT:
        return a - b;
    case MAP_MULTIPLY:
        return a * b;
    case MAP_DIVIDE:
        return a / b;
    case MAP_SCALE:
        return k * a;
    case MAP_SHIFT:
        return a + k;
    case MAP_EXP:
        return expf(a);
    case MAP_LOG:
        return logf(a);
    case MAP_SQRT:
        return sqrtf(a);
    case MAP_SIGMOID:
        return 1.0f / (1.0f + expf(-a));
    default:
        return a;
    }
}

/* N elements of a row a thread.  Each operand is read once for each element of out. */
template <typename Real, int N>
static __global__ void __launch_bounds__(THREADS)
    map_kernel(Real *out, int64_t stride, int64_t rows, int64_t pieces, map_function f, operand a,
               operand b, const int32_t *index, int64_t index_stride, float k)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / pieces;
    if (row >= rows) return;
    const int64_t column = (i - row * pieces) * N;
    float x[N] = {}, y[N] = {};
    load_operand(x, a, row, column);
    load_operand(y, b, row, column);
#pragma unroll
    for (int j = 0; j < N; j++) {
        if (f == MAP_ONEHOT)
            x[j] -= column + j == index[row * index_stride] ? 1.0f : 0.0f;
        else if (f == MAP_CAUSAL)
            x[j] = column + j - row <= (int64_t)k ? x[j] : -INFINITY;
        else
            x[j] = apply(f, x[j], y[j], k);
    }
    store_quad(out + row * stride + column, x);
}

/* A float matrix that broadcasts to [R,C]. */
static bool is_operand(tensor t, tensor out)
{
    return is_matrix(t) && (t.cols == out.cols || t.cols == 1) && t.rows >= 1 &&
           out.rows % t.rows == 0;
}

/* The same elements at the same places, or none in common. */
static bool is_in_place(tensor t, tensor out)
{
    return tensor_disjoint(t, out) ||
           (t.data == out.data && t.stride == out.stride && t.rows == out.rows &&
            t.cols == out.cols && t.type == out.type);
}

static operand operand_of(tensor t, tensor out)
{
    if (!tensor_present(t)) return {nullptr, 0, 1, false, false};
    return {t.data, t.stride, out.rows / t.rows, t.type == DTYPE_BF16, t.cols == out.cols};
}

static bool has_quads_too(tensor t, tensor out)
{
    return !tensor_present(t) || t.cols != out.cols || has_quads(t);
}

/* out = f(a, b, k), element by element; see map_function.
 *  Out:     out  [R,C] f32 or bf16; may be a or b itself.
 *  In:      a    [R or a divisor of it, C or 1] f32 or bf16: row r R' / R, and its one column for all.
 *           b    the same, of a function of two; [R,1] i32 of MAP_ONEHOT; else absent.   k  finite; of MAP_CAUSAL within 2^62.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, out untouched; CUDPO_EDEVICE.
 *  Bytes: R C e of each operand and of out, e the bytes of an element; a broadcast one is read once from memory. */
extern "C" cudpo_status cuda_map(tensor out, map_function f, tensor a, tensor b, float k,
                                 cudpo_stream stream)
{
    CUDPO_REQUIRE(is_matrix(out));
    CUDPO_REQUIRE(f < MAP_FUNCTIONS);
    CUDPO_REQUIRE(std::isfinite(k) && (f != MAP_CAUSAL || std::fabs(k) < 0x1p62f));
    if (out.rows == 0) return CUDPO_OK;
    CUDPO_REQUIRE(is_operand(a, out) && is_in_place(a, out));
    if (map_takes_two(f))
        CUDPO_REQUIRE(is_operand(b, out) && is_in_place(b, out));
    else if (f == MAP_ONEHOT)
        CUDPO_REQUIRE(is_i32(b, out.rows, 1) && tensor_disjoint(b, out));
    else
        CUDPO_REQUIRE(!tensor_present(b));
    const tensor second = map_takes_two(f) ? b : tensor{};
    const bool quads = has_quads(out) && has_quads_too(a, out) && has_quads_too(second, out);
    const int64_t pieces = quads ? out.cols / 4 : out.cols;
    CUDPO_REQUIRE(fits_grid(out.rows * pieces, THREADS));
    const unsigned blocks = blocks_for(out.rows * pieces, THREADS);
    FLOAT_TYPE(out.type, Real, {
        if (quads)
            LAUNCH((map_kernel<Real, 4>), blocks, THREADS, 0, stream, (Real *)out.data, out.stride,
                   out.rows, pieces, f, operand_of(a, out), operand_of(second, out),
                   (const int32_t *)b.data, b.stride, k);
        else
            LAUNCH((map_kernel<Real, 1>), blocks, THREADS, 0, stream, (Real *)out.data, out.stride,
                   out.rows, pieces, f, operand_of(a, out), operand_of(second, out),
                   (const int32_t *)b.data, b.stride, k);
    });
    return LAUNCHED();
}
