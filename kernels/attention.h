/* attention.h - what the attention kernels share: the plan of a pack, and tiles of rows in shared memory.
 *
 * The plan is made on the device from segments that the host never sees: lists of tiles of queries and of keys, each with
 * all that a block needs to know.  Grids are upper bounds; blocks without a tile return at once. */
#ifndef CUDPO_KERNELS_ATTENTION_H
#define CUDPO_KERNELS_ATTENTION_H

#include "check.h"
#include "kernels.h"
#include "vector.h"

enum { MAX_STRIDE = 1 << 24 /* so that a tile of 128 rows spans less than 2^31 elements */ };

/* What a plan was made for, in one number: its window, if that hides anything, segments, tokens and tiles of keys. */
static inline int64_t plan_key(int64_t T, int64_t N, attention_shape s)
{
    const int64_t window = s.window < T ? s.window : 0;
    return window << 41 | N << 21 | T << 1 | (key_rows(s.head_dim) == 64);
}

/* A plan in memory, its lists with the most entries they can have. */
typedef struct plan_view {
    plan_counts *counts;
    plan_segment *segment; /* [N] */
    query_tile *forward;   /* [T / FORWARD_ROWS + N], longest work first */
    query_tile *backward;  /* [T / BACKWARD_ROWS + N], in order of tokens */
    key_tile *key;         /* [T / 64 + N], longest work first */
    int32_t *forward_work, *key_work;
    int64_t T, N, most_forward, most_backward, most_keys;
} plan_view;

static inline plan_view plan_at(void *words, int64_t T, int64_t N)
{
    plan_view p = {};
    p.T = T;
    p.N = N;
    p.most_forward = most_forward(T, N);
    p.most_backward = most_queries(T, N);
    p.most_keys = most_keys(T, N);
    p.counts = (plan_counts *)words;
    p.segment = (plan_segment *)(p.counts + 1);
    p.forward = (query_tile *)(p.segment + N);
    p.backward = p.forward + p.most_forward;
    p.key = (key_tile *)(p.backward + p.most_backward);
    p.forward_work = (int32_t *)(p.key + p.most_keys);
    p.key_work = p.forward_work + p.most_forward;
    return p;
}

/* Is this a plan of T tokens; for how many segments?  -1: it is none. */
static inline int64_t plan_segments(tensor plan, int64_t T)
{
    if (!is_i32(plan, plan.rows, 1) || (uintptr_t)plan.data % 16 != 0) return -1;
    const int64_t none = plan_words(T, 0), each = plan_words(T, 1) - none;
    const int64_t N = (plan.rows - none) / each;
    return is_pack_size(T, N) && plan_words(T, N) == plan.rows ? N : -1;
}

static inline int64_t query_columns(attention_shape s)
{
    return (int64_t)s.heads * s.head_dim;
}

static inline int64_t qkv_columns(attention_shape s)
{
    return ((int64_t)s.heads + 2 * (int64_t)s.kv_heads) * s.head_dim;
}

/* Can the kernels count elements of a tile in 32 bits? */
static inline bool is_near(tensor t)
{
    return t.stride < MAX_STRIDE;
}

/* Elements from one row to the next.  Of a single row a tensor's stride says nothing, and need not keep rows aligned. */
static inline int row_stride(tensor t)
{
    return (int)(t.rows > 1 ? t.stride : t.cols);
}

/* What is the same for all blocks of a call. */
typedef struct attention_sizes {
    int heads, kv_heads, head_dim, window;
    float scale;
} attention_sizes;

static inline attention_sizes sizes_of(attention_shape s)
{
    return {s.heads, s.kv_heads, s.head_dim, s.window, s.scale};
}

/* The plan that a call needs, and where it says that it has another. */
typedef struct plan_claim {
    int64_t key; /* plan_key() */
    int32_t *fault;
} plan_claim;

static inline plan_claim claim_of(const plan_view *p, attention_shape s, tensor fault)
{
    return {plan_key(p->T, p->N, s), (int32_t *)fault.data};
}

/* Was the plan made for this call?  If not, its blocks do nothing but say so. */
__device__ __forceinline__ bool is_planned(const plan_counts *counts, plan_claim claim)
{
    if (counts->key == claim.key) return true;
    if (claim.fault != NULL && threadIdx.x == 0) atomicOr(claim.fault, (int)FAULT_PLAN);
    return false;
}

/* The same in the first kernel of several.  The others, which have no registers to spare, take `copy` for the plan's counts:
 * all of them are 0 if it was not. */
__device__ __forceinline__ bool is_planned_for_all(plan_counts *copy, const plan_counts *counts,
                                                   plan_claim claim)
{
    const bool planned = is_planned(counts, claim);
    if (blockIdx.x == 0 && threadIdx.x < sizeof(plan_counts) / 4)
        ((int32_t *)copy)[threadIdx.x] = planned ? ((const int32_t *)counts)[threadIdx.x] : 0;
    return planned;
}

#define LOG2_E 1.4426950408889634f

/* The keys at positions first .. last of what a query at `position` sees, where keys end before position `end`. */
__device__ __forceinline__ int first_visible(int position, int window)
{
    return window > 0 ? max(0, position - window + 1) : 0;
}

/* The way of a block over keys: `left` of them from `token` on, whose first is at `position`, then own_left of its own
 * segment, if it is still at those of the prompt. */
typedef struct key_walk {
    int token, position, left, own_token, own_left;
} key_walk;

/* All keys that queries begin .. begin+rows-1 of a tile see; at least one. */
__device__ __forceinline__ key_walk walk_of(const query_tile *t, int begin, int rows, int window)
{
    const int index = t->index + begin, prompt = t->prompt_length;
    const int first = first_visible(prompt + index, window), skipped = max(0, first - prompt);
    key_walk w;
    w.own_token = t->token - t->index + skipped;
    w.own_left = index + rows - skipped;
    w.token = t->prompt_begin + first;
    w.left = prompt - first;
    w.position = first;
    if (w.left <= 0) {
        w.token = w.own_token;
        w.left = w.own_left;
        w.own_left = 0;
    }
    return w;
}

/* Past the next KEYS of them, or to where the prompt ends. */
template <int KEYS> __device__ __forceinline__ void pass(key_walk *w)
{
    if (w->left > KEYS) {
        w->token += KEYS;
        w->position += KEYS;
        w->left -= KEYS;
    } else {
        w->token = w->own_token;
        w->position += w->left;
        w->left = w->own_left;
        w->own_left = 0;
    }
}

/* Rows of D bf16 in shared memory, in chunks of 16 bytes.  The chunks of a row are permuted so that 8 consecutive rows have
 * their chunk c in 8 different groups of banks, which is what one phase of ldmatrix reads.  With D % 64 == 0 all rows
 * start in the same group; with D % 64 == 32 in two by turns, and with D % 32 == 16 in four. */
template <int D> struct swizzle {
    static_assert(D % 16 == 0, "a row starts in one of few groups of banks");
    enum {
        MASK = D % 64 == 0   ? 7
               : D % 32 == 0 ? 3
                             : 1,
        SHIFT = D % 64 == 0   ? 0
                : D % 32 == 0 ? 1
                              : 2
    };
};

template <int D> __device__ __forceinline__ int chunk_at(int row, int chunk)
{
    return row * D + (chunk ^ (row >> swizzle<D>::SHIFT & swizzle<D>::MASK)) * 8;
}

/* The same in two steps: an index for the row and an odd or even chunk of it, and from that one, to which whole rows may
 * have been added 16 at a time, the index of the chunk `even` further.  One register is enough for a row's chunks. */
template <int D> __device__ __forceinline__ int row_at(int row, int odd)
{
    return chunk_at<D>(row, odd);
}
template <int D> __device__ __forceinline__ int further(int at, int even)
{
    enum { MASK = swizzle<D>::MASK };
    return (at ^ (even & MASK) * 8) + (even & ~MASK) * 8;
}

/* Ask for rows x columns 0 .. head_dim-1 of a matrix, as the block's thread of that number; zeros below `valid` rows and
 * right of head_dim, where nothing is read. */
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_rows(int thread, bf16 *shared, const bf16 *global, int stride,
                                          int valid, int head_dim)
{
    enum { CHUNKS = D / 8 };
    static_assert(ROWS * CHUNKS % THREADS == 0, "every thread asks for as many chunks");
    if (THREADS % CHUNKS == 0) { /* a thread stays in its column */
        const int chunk = thread % CHUNKS, top = thread / CHUNKS;
        const int step = THREADS / CHUNKS * stride;
        const int at = top * stride + chunk * 8;
        valid = chunk * 8 < head_dim ? valid - top : 0;
#pragma unroll
        for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
            const int below = i * (THREADS / CHUNKS);
            cp_async_16(shared + chunk_at<D>(top + below, chunk), global + (at + i * step),
                        below < valid ? 16 : 0);
        }
    } else {
#pragma unroll
        for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
            const int at = thread + i * THREADS, row = at / CHUNKS, chunk = at % CHUNKS;
            cp_async_16(shared + chunk_at<D>(row, chunk), global + row * stride + chunk * 8,
                        row < valid && chunk * 8 < head_dim ? 16 : 0);
        }
    }
}

#endif /* CUDPO_KERNELS_ATTENTION_H */
