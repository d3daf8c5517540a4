/* indexed.h - what ops on rows by index share: fetching rows, the order of indices, sums of the rows of one index. */
#ifndef CUDPO_KERNELS_INDEXED_H
#define CUDPO_KERNELS_INDEXED_H

#include "kernels.h"
#include "quad.h"

/* out[r] = x[index[r]], bit by bit; an index outside of x sets `bit` of the fault word and makes a row of zeros.
 * Types alike, shapes, overlap and gather_fits() checked by the caller (gather_rows.cu). */
cudpo_status gather_indexed(tensor out, tensor x, tensor index, tensor fault, int bit,
                            cudpo_stream stream);
bool gather_fits(tensor out, tensor x); /* its blocks are no more than a grid can have */

/* The positions 0 .. n-1 of index [n] i32, ordered by index, those of one index by position (order.cu).  Entries are
 * index << 32 | position, ascending; positions whose index is not in 0 .. limit-1 come last, with an index of
 * NO_INDEX, and set `bit` of the fault word.  *order points into the scratch, which the caller has checked. */
#define NO_INDEX 0xffffffffu
size_t order_scratch(int64_t n); /* 0 where n is not in 1 .. 2^31-1 */
cudpo_status order_indices(const uint64_t **order, tensor index, int64_t limit, scratch s,
                           tensor fault, int bit, cudpo_stream stream);

__device__ __forceinline__ uint32_t index_of(uint64_t entry)
{
    return (uint32_t)(entry >> 32);
}
__device__ __forceinline__ int64_t position_of(uint64_t entry)
{
    return (int64_t)(entry & 0xffffffffu);
}

/* How many of n ascending entries are less than x. */
__device__ __forceinline__ int64_t entries_below(const uint64_t *entry, int64_t n, uint64_t x)
{
    int64_t low = 0, high = n; /* entries before low are less, those from high on are not */
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (entry[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A warp adds rows in pieces of N columns: lane l has columns (32 p + l) N .. of each chunk of CHUNK. */
enum { CHUNK = 256, ROWS_IN_FLIGHT = 4 };

/* sum += factor * x[position] over entries begin, begin + step, .. before end, in that order; factor = scale[position],
 * or 1 without a scale.  x points at the chunk's first column, from which on a row has `width` columns.  Several rows are
 * read before the first is added, because a row alone is too little to keep in flight. */
template <int N, typename T>
__device__ __forceinline__ void add_rows(float (&sum)[CHUNK / 32 / N][N], const T *x,
                                         int64_t stride, int64_t width, const uint64_t *order,
                                         int64_t begin, int64_t end, int64_t step,
                                         const float *scale, int64_t scale_stride)
{
    enum { PIECES = CHUNK / 32 / N };
    const int lane = threadIdx.x % 32;
    for (int64_t i = begin; i < end; i += ROWS_IN_FLIGHT * step) {
        float row[ROWS_IN_FLIGHT][PIECES][N], factor[ROWS_IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < ROWS_IN_FLIGHT; u++) {
            const bool any = i + u * step < end;
            const int64_t position = any ? position_of(order[i + u * step]) : 0;
            factor[u] = any && scale != nullptr ? scale[position * scale_stride] : 1.0f;
#pragma unroll
            for (int p = 0; p < PIECES; p++) {
                const int column = (p * 32 + lane) * N;
                if (any && column < width) {
                    load_quad(row[u][p], x + position * stride + column);
                } else {
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        row[u][p][j] = 0.0f; /* adds nothing */
                    }
                }
            }
        }
#pragma unroll
        for (int u = 0; u < ROWS_IN_FLIGHT; u++) {
#pragma unroll
            for (int p = 0; p < PIECES; p++) {
#pragma unroll
                for (int j = 0; j < N; j++) {
                    sum[p][j] += factor[u] * row[u][p][j];
                }
            }
        }
    }
}

#endif /* CUDPO_KERNELS_INDEXED_H */
