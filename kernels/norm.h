/* norm.h - RMSNorm of rows, and of heads, which are rows too: the kernels behind rmsnorm.cu and head_norm.cu.
 *
 * A token has n rows of D elements: its heads, or one row of C.  With xhat = x rstd and g = dy w:
 *     y = xhat w,   dx (+)= rstd (g - xhat mean(g xhat)),   dw += sum over rows of dy xhat.
 * A row of whole 16-byte vectors, 1024 of them at most, stays in registers: a team of LANES threads has the row, a
 * thread has VECTORS of its vectors.  Other rows take the loops at the end: a block has a row, and reads it twice. */
#ifndef CUDPO_KERNELS_NORM_H
#define CUDPO_KERNELS_NORM_H

#include "check.h"
#include "column_sum.h"
#include "piece.h"
#include "vector.h"

enum {
    NORM_THREADS = 256,
    NORM_WARPS = NORM_THREADS / 32,
    NORM_LOADS =
        4 /* vectors of an operand that a thread has in flight: rows too short for that come in batches */
};

static_assert((int)NORM_BLOCKS <= (int)SUM_ROWS, "column_sum adds up what all blocks leave");

/* Row h of token t begins at data + t * stride + h * D. */
template <typename Real> struct rows {
    Real *data; /* NULL: absent */
    int64_t stride;
};

template <typename Real> struct norm_arguments {
    rows<Real> y, sum;          /* out; sum may be x, or absent: then there is no branch */
    rows<float> rstd;           /* out; element h of token t */
    rows<const Real> x, branch; /* branch may be absent */
    const Real *w;
    int64_t count, n, D; /* rows in all, up to 2^31 - 1; rows of a token; elements of a row */
    float epsilon;
};

template <typename Real> struct norm_backward_arguments {
    rows<Real> dx; /* out where it is overwritten, then it may be dy; in-out where it accumulates */
    float *partial; /* [blocks,D] out: a row is a block's share of dw */
    rows<const Real> dy, x;
    rows<const float> rstd;
    const Real *w;
    int64_t count, n, D;
};

/* Row r of all as a row of a token. */
struct token_row {
    int64_t t, h;

    template <typename Real>
    __device__ __forceinline__ Real *of(const rows<Real> &matrix, int64_t D) const
    {
        return matrix.data + t * matrix.stride + h * D;
    }
};
__device__ __forceinline__ token_row token_row_of(int64_t r, int64_t n)
{
    if (n == 1) return {r, 0}; /* saves a division */
    const int64_t t = r / n;
    return {t, r - t * n};
}

/* The sum over each team of LANES threads, in all of them.  The whole block calls; a barrier must stand between two uses
 * of the same part [NORM_WARPS], which is shared. */
template <int LANES> __device__ __forceinline__ float team_sum(float x, float *part)
{
#pragma unroll
    for (int offset = (LANES < 32 ? LANES : 32) / 2; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    }
    if constexpr (LANES > 32) {
        enum { WARPS = LANES / 32 };
        const int warp = threadIdx.x / 32, first = warp / WARPS * WARPS;
        if (threadIdx.x % 32 == 0) part[warp] = x;
        __syncthreads(); /* all parts are written */
        x = part[first];
#pragma unroll
        for (int w = 1; w < WARPS; w++) {
            x += part[first + w];
        }
    }
    return x;
}

__device__ __forceinline__ float norm_rstd(float squares, int64_t D, float epsilon)
{
    return 1.0f / sqrtf(squares / (float)D + epsilon);
}

template <typename Real> __device__ __forceinline__ uint4 load_bits(const Real *p)
{
    return *reinterpret_cast<const uint4 *>(p);
}
/* Of what nobody reads again soon: it is the first to leave the cache. */
template <typename Real> __device__ __forceinline__ uint4 load_bits_once(const Real *p)
{
    return __ldcs(reinterpret_cast<const uint4 *>(p));
}

/* x + y, rounded to their type. */
template <typename Real> __device__ __forceinline__ uint4 add_bits(uint4 x, uint4 y)
{
    float a[lanes<Real>::COUNT], b[lanes<Real>::COUNT];
    unpack(a, x);
    unpack(b, y);
#pragma unroll
    for (int j = 0; j < lanes<Real>::COUNT; j++) {
        a[j] += b[j];
    }
    return pack(a);
}

/* A batch of rows per team, once.  D elements of x, and of branch, sum where present, and of y moved a row, and its
 * rstd; w comes from the caches. */
template <typename Real, int LANES, int VECTORS>
static __global__ void __launch_bounds__(NORM_THREADS, 3) norm_kernel(norm_arguments<Real> a)
{
    enum { N = lanes<Real>::COUNT, TEAMS = NORM_THREADS / LANES, BATCH = NORM_LOADS / VECTORS };
    static_assert(LANES <= 32 || BATCH == 1, "part serves one sum");
    SHARED(float, part, [NORM_WARPS]);
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES, D = (int)a.D;
    const int64_t first = (int64_t)blockIdx.x * (TEAMS * BATCH) + team;
    uint4 x[BATCH][VECTORS], branch[BATCH][VECTORS], w[VECTORS];
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        const int column = (v * LANES + lane) * N;
        w[v] = column < D ? load_bits(a.w + column) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            const int64_t r = first + b * TEAMS;
            const token_row row = token_row_of(r, a.n);
            x[b][v] = branch[b][v] = make_uint4(0, 0, 0, 0); /* adds nothing to the sum */
            if (r >= a.count || column >= D) continue;
            x[b][v] = load_bits(row.of(a.x, a.D) + column);
            if (a.branch.data != NULL)
                branch[b][v] = load_bits_once(row.of(a.branch, a.D) + column);
        }
    }
#pragma unroll
    for (int b = 0; b < BATCH; b++) {
        const int64_t r = first + b * TEAMS;
        const token_row row = token_row_of(r, a.n);
        float squares = 0.0f;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            const int column = (v * LANES + lane) * N;
            if (a.branch.data != NULL) x[b][v] = add_bits<Real>(x[b][v], branch[b][v]);
            if (a.sum.data != NULL && r < a.count && column < D)
                store_bits(row.of(a.sum, a.D) + column, x[b][v]);
            float value[N];
            unpack(value, x[b][v]);
#pragma unroll
            for (int j = 0; j < N; j++) {
                squares += value[j] * value[j];
            }
        }
        const float rstd = norm_rstd(team_sum<LANES>(squares, part), a.D, a.epsilon);
        if (r < a.count && lane == 0) *row.of(a.rstd, 1) = rstd;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            const int column = (v * LANES + lane) * N;
            if (r >= a.count || column >= D) continue;
            float value[N], weight[N];
            unpack(value, x[b][v]);
            unpack(weight, w[v]);
#pragma unroll
            for (int j = 0; j < N; j++) {
                value[j] = value[j] * rstd * weight[j];
            }
            store_bits(row.of(a.y, a.D) + column, pack(value));
        }
    }
}

/* The block's sums of dw into its row of partial [D]: the teams of a warp by shuffles, then the spans of whole warps one
 * after the other. */
template <typename Real, int LANES, int VECTORS>
__device__ __forceinline__ void block_partial(float *partial,
                                              float (&dw)[VECTORS][lanes<Real>::COUNT], int D)
{
    enum { N = lanes<Real>::COUNT, SPAN = LANES < 32 ? 32 : LANES, SPANS = NORM_THREADS / SPAN };
    SHARED(float, total, [VECTORS * N][LANES]);
    const int lane = threadIdx.x % SPAN, span = threadIdx.x / SPAN;
#pragma unroll
    for (int offset = LANES; offset < 32; offset *= 2) {
#pragma unroll
        for (int j = 0; j < VECTORS * N; j++) {
            dw[j / N][j % N] += __shfl_xor_sync(0xffffffffu, dw[j / N][j % N], offset);
        }
    }
#pragma unroll 1
    for (int turn = 0; turn < SPANS; turn++) {
        if (span == turn && lane < LANES) {
#pragma unroll
            for (int j = 0; j < VECTORS * N; j++) {
                if (turn > 0) dw[j / N][j % N] += total[j][lane];
                if (turn + 1 < SPANS) total[j][lane] = dw[j / N][j % N];
            }
        }
        if (turn + 1 < SPANS) __syncthreads(); /* the span's sums are there for the next */
    }
    if (span + 1 < SPANS || lane >= LANES) return;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        const int column = (v * LANES + lane) * N;
#pragma unroll
        for (int j = 0; column < D && j < N; j += 4) {
            const float four[4] = {dw[v][j], dw[v][j + 1], dw[v][j + 2], dw[v][j + 3]};
            store_bits(partial + column + j, pack(four));
        }
    }
}

/* What a block of the backward pass takes on: few vectors a thread, so that three blocks of an SM take turns in loading
 * and adding up.  A team of several warps has one row at a time, because part serves one sum. */
template <int LANES, int VECTORS> struct norm_backward_shape {
    enum {
        TEAMS = NORM_THREADS / LANES,
        BATCH = LANES <= 32 ? NORM_LOADS / VECTORS : 1,
        ROWS = TEAMS * BATCH,
        BLOCKS_PER_SM = VECTORS == 1 || (VECTORS == 2 && LANES > 32) ? 3 : 2
    };
};

/* A persistent grid: the blocks take batches of rows in turn and keep their share of dw in registers.  D elements of dy,
 * x, dx, and of dx again where it accumulates, moved a row.  The threads of an SM have 64 to 96 KB in flight, where
 * latency times bandwidth is 20 KB: room for the sums in between, without loading ahead. */
template <typename Real, int LANES, int VECTORS, bool ACCUMULATE>
static __global__ void __launch_bounds__(NORM_THREADS,
                                         (norm_backward_shape<LANES, VECTORS>::BLOCKS_PER_SM))
    norm_backward_kernel(norm_backward_arguments<Real> a)
{
    typedef norm_backward_shape<LANES, VECTORS> shape;
    enum { N = lanes<Real>::COUNT, TEAMS = shape::TEAMS, BATCH = shape::BATCH };
    SHARED(float, part, [2][NORM_WARPS]); /* in turn: one barrier a batch is enough */
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES, D = (int)a.D;
    float dw[VECTORS][N];
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            dw[v][j] = 0.0f;
        }
    }
    int turn = 0;
    for (int64_t begin = (int64_t)blockIdx.x * (TEAMS * BATCH); begin < a.count;
         begin += (int64_t)gridDim.x * (TEAMS * BATCH), turn ^= 1) {
        uint4 dy[BATCH][VECTORS], x[BATCH][VECTORS], dx[BATCH][VECTORS];
        float rstd[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            const int64_t r = begin + b * TEAMS + team;
            const token_row row = token_row_of(r, a.n);
            rstd[b] = r < a.count ? *row.of(a.rstd, 1) : 0.0f;
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
                const int column = (v * LANES + lane) * N;
                dy[b][v] = x[b][v] = dx[b][v] = make_uint4(0, 0, 0, 0); /* adds nothing */
                if (r >= a.count || column >= D) continue;
                dy[b][v] = load_bits_once(row.of(a.dy, a.D) + column);
                x[b][v] = load_bits_once(row.of(a.x, a.D) + column);
                if (ACCUMULATE) dx[b][v] = load_bits(row.of(a.dx, a.D) + column);
            }
        }
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            const int64_t r = begin + b * TEAMS + team;
            const token_row row = token_row_of(r, a.n);
            float dot = 0.0f;
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
                const int column = (v * LANES + lane) * N;
                if (column >= D) continue;
                float slope[N], value[N], weight[N];
                unpack(slope, dy[b][v]);
                unpack(value, x[b][v]);
                load_vector(weight, a.w + column);
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const float product = slope[j] * (value[j] * rstd[b]);
                    dw[v][j] += product;
                    dot += product * weight[j];
                }
            }
            const float mean = team_sum<LANES>(dot, part[turn]) / (float)a.D;
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
                const int column = (v * LANES + lane) * N;
                if (r >= a.count || column >= D) continue;
                float slope[N], value[N], weight[N], sum[N];
                unpack(slope, dy[b][v]);
                unpack(value, x[b][v]);
                load_vector(weight, a.w + column);
                unpack(sum, dx[b][v]);
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const float xhat = value[j] * rstd[b];
                    sum[j] += rstd[b] * (slope[j] * weight[j] - xhat * mean);
                }
                store_bits(row.of(a.dx, a.D) + column, pack(sum));
            }
        }
    }
    block_partial<Real, LANES, VECTORS>(a.partial + blockIdx.x * a.D, dw, D);
}

/* The same in loops over single elements.  A block has a row and reads it twice: 3 more elements moved per element. */
template <typename Real>
static __global__ void __launch_bounds__(NORM_THREADS) norm_loop_kernel(norm_arguments<Real> a)
{
    SHARED(float, part, [NORM_WARPS]);
    const token_row row = token_row_of(blockIdx.x, a.n);
    const Real *x = row.of(a.x, a.D);
    float squares = 0.0f;
    for (int64_t i = threadIdx.x; i < a.D; i += NORM_THREADS) {
        float value = to_float(x[i]);
        if (a.branch.data != NULL) {
            const float sum = value + to_float(row.of(a.branch, a.D)[i]);
            value = to_float(from_float<Real>(sum));
        }
        if (a.sum.data != NULL) row.of(a.sum, a.D)[i] = from_float<Real>(value);
        squares += value * value;
    }
    const float rstd = norm_rstd(team_sum<NORM_THREADS>(squares, part), a.D, a.epsilon);
    if (threadIdx.x == 0) *row.of(a.rstd, 1) = rstd;
    if (a.sum.data != NULL) x = row.of(a.sum, a.D); /* each thread reads what it wrote */
    for (int64_t i = threadIdx.x; i < a.D; i += NORM_THREADS) {
        row.of(a.y, a.D)[i] = from_float<Real>(to_float(x[i]) * rstd * to_float(a.w[i]));
    }
}

template <typename Real, bool ACCUMULATE>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_backward_loop_kernel(norm_backward_arguments<Real> a)
{
    SHARED(float, part, [2][NORM_WARPS]); /* in turn: one barrier a row is enough */
    float *partial = a.partial + blockIdx.x * a.D;
    int turn = 0;
    for (int64_t r = blockIdx.x; r < a.count; r += gridDim.x, turn ^= 1) {
        const token_row row = token_row_of(r, a.n);
        const Real *dy = row.of(a.dy, a.D), *x = row.of(a.x, a.D);
        Real *dx = row.of(a.dx, a.D);
        const float rstd = *row.of(a.rstd, 1);
        float dot = 0.0f;
        for (int64_t i = threadIdx.x; i < a.D; i += NORM_THREADS) {
            const float product = to_float(dy[i]) * (to_float(x[i]) * rstd);
            partial[i] = r == blockIdx.x ? product : partial[i] + product;
            dot += product * to_float(a.w[i]);
        }
        const float mean = team_sum<NORM_THREADS>(dot, part[turn]) / (float)a.D;
        for (int64_t i = threadIdx.x; i < a.D; i += NORM_THREADS) {
            const float xhat = to_float(x[i]) * rstd;
            const float slope = rstd * (to_float(dy[i]) * to_float(a.w[i]) - xhat * mean);
            dx[i] = from_float<Real>(ACCUMULATE ? to_float(dx[i]) + slope : slope);
        }
    }
}

template <typename Real, int LANES, int VECTORS>
static cudpo_status norm_launch(const norm_arguments<Real> &a, cudpo_stream stream)
{
    const int64_t batch = NORM_THREADS / LANES * (NORM_LOADS / VECTORS);
    LAUNCH((norm_kernel<Real, LANES, VECTORS>), blocks_for(a.count, batch), NORM_THREADS, 0, stream,
           a);
    return LAUNCHED();
}

template <typename Real>
static cudpo_status norm_launch_loop(const norm_arguments<Real> &a, cudpo_stream stream)
{
    LAUNCH((norm_loop_kernel<Real>), (unsigned)a.count, NORM_THREADS, 0, stream, a);
    return LAUNCHED();
}

template <typename Real, int LANES, int VECTORS, bool ACCUMULATE>
static cudpo_status norm_backward_launch(const norm_backward_arguments<Real> &a, tensor dw,
                                         cudpo_stream stream)
{
    typedef norm_backward_shape<LANES, VECTORS> shape;
    const unsigned blocks = norm_blocks(a.count, shape::ROWS, shape::BLOCKS_PER_SM);
    LAUNCH((norm_backward_kernel<Real, LANES, VECTORS, ACCUMULATE>), blocks, NORM_THREADS, 0,
           stream, a);
    CUDPO_TRY(LAUNCHED());
    return column_sum(dw, a.partial, (int)blocks, stream);
}

template <typename Real, bool ACCUMULATE>
static cudpo_status norm_backward_launch_loop(const norm_backward_arguments<Real> &a, tensor dw,
                                              cudpo_stream stream)
{
    const unsigned blocks = norm_blocks(a.count, 1, 3);
    LAUNCH((norm_backward_loop_kernel<Real, ACCUMULATE>), blocks, NORM_THREADS, 0, stream, a);
    CUDPO_TRY(LAUNCHED());
    return column_sum(dw, a.partial, (int)blocks, stream);
}

#endif /* CUDPO_KERNELS_NORM_H */
