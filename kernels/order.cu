/* order.cu - the order of indices: tiles sorted in shared memory, then the place of each entry among all.
 *
 * An entry is a number that no other entry has, so that any sort of entries is a stable sort of indices.  The work is
 * n log^2(TILE) / 2 exchanges and n / TILE * log(TILE) probes for each of n entries, which stay in the caches: next to
 * the rows that are then read in this order it is small up to about a million entries. */
#include "indexed.h"

enum { TILE = ORDER_TILE, THREADS = TILE / 2 };

/* Fills the last tile; larger than any entry, because positions end before 2^31. */
#define PADDING 0xffffffffffffffffu

size_t order_scratch(int64_t n)
{
    return order_bytes(n);
}

/* A tile per block, bitonic (Batcher 1968): runs of `run` entries, ascending and descending in turn, are merged into runs
 * of twice that, by exchanges over a distance that halves.  Each thread has one pair.  4 bytes read, 8 written an entry. */
static __global__ void __launch_bounds__(THREADS)
    sort_tiles_kernel(uint64_t *tile, const int32_t *index, int64_t stride, int64_t n,
                      int64_t limit, int32_t *fault, int bit)
{
    SHARED(uint64_t, entry, [TILE]);
    const int64_t begin = (int64_t)blockIdx.x * TILE;
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        const int64_t position = begin + i;
        uint64_t x = PADDING;
        if (position < n) {
            const int32_t value = index[position * stride];
            const bool good = value >= 0 && value < limit;
            if (!good && fault != nullptr) atomicOr(fault, bit);
            x = (uint64_t)(good ? (uint32_t)value : NO_INDEX) << 32 | (uint64_t)position;
        }
        entry[i] = x;
    }
    for (int run = 2; run <= TILE; run *= 2) {
        for (int distance = run / 2; distance > 0; distance /= 2) {
            __syncthreads(); /* the entries are there, exchanged over the distance before */
            const int pair = threadIdx.x;
            const int a = pair / distance * 2 * distance + pair % distance, b = a + distance;
            const bool ascending = (a & run) == 0;
            const uint64_t x = entry[a], y = entry[b];
            if ((x > y) == ascending) {
                entry[a] = y;
                entry[b] = x;
            }
        }
    }
    __syncthreads(); /* the last exchange is done */
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        tile[begin + i] = entry[i];
    }
}

/* An entry per thread: its place is how many entries of all tiles are less. */
static __global__ void __launch_bounds__(THREADS)
    place_kernel(uint64_t *order, const uint64_t *tile, int64_t tiles)
{
    const uint64_t x = tile[(int64_t)blockIdx.x * THREADS + threadIdx.x];
    if (x == PADDING) return;
    int64_t place = 0;
    for (int64_t t = 0; t < tiles; t++) {
        place += entries_below(tile + t * TILE, TILE, x);
    }
    order[place] = x;
}

cudpo_status order_indices(const uint64_t **order, tensor index, int64_t limit, scratch s,
                           tensor fault, int bit, cudpo_stream stream)
{
    const int64_t n = index.rows, tiles = order_tiles(n);
    uint64_t *tile = (uint64_t *)s.data, *all = tile + tiles * TILE;
    *order = all;
    if (n == 0) return CUDPO_OK;
    LAUNCH(sort_tiles_kernel, (unsigned)tiles, THREADS, 0, stream, tile,
           (const int32_t *)index.data, index.stride, n, limit, (int32_t *)fault.data, bit);
    LAUNCH(place_kernel, (unsigned)(tiles * (TILE / THREADS)), THREADS, 0, stream, all, tile,
           tiles);
    return LAUNCHED();
}
