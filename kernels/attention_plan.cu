/* attention_plan.cu - the tiles of a pack, from segments in device memory. */
#include "attention.h"

enum { THREADS = 256, WARPS = THREADS / 32, RANKED = 1 << 13 };

/* Exclusive sum over the block, and the sum of all in `total`.  part [WARPS] is shared. */
__device__ __forceinline__ int scan_sum(int x, int *part, int *total)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = x;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const int below = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += below;
    }
    if (lane == 31) part[warp] = sum;
    __syncthreads(); /* the sums of all warps are there */
    int before = 0, all = 0;
    for (int w = 0; w < WARPS; w++) {
        if (w < warp) before += part[w];
        all += part[w];
    }
    __syncthreads(); /* part may be written again */
    *total = all;
    return before + sum - x;
}

/* Inclusive maximum over the block; in thread THREADS - 1 it is that of all.  A barrier must follow before
 * part is written again. */
__device__ __forceinline__ int scan_max(int x, int *part)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const int below = __shfl_up_sync(0xffffffffu, x, offset);
        if (lane >= offset) x = max(x, below);
    }
    if (lane == 31) part[warp] = x;
    __syncthreads(); /* the maxima of all warps are there */
    for (int w = 0; w < warp; w++) {
        x = max(x, part[w]);
    }
    return x;
}

/* How many of the wanted tokens come before token t. */
__device__ __forceinline__ int64_t wanted_before(const int32_t *wanted, int64_t U, int64_t t)
{
    int64_t low = 0, high = U;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (wanted[middle] < t) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* What the kernel works on. */
typedef struct plan_inputs {
    const int32_t *segments, *wanted; /* wanted NULL: all tokens ask */
    int32_t *fault;                   /* or NULL */
    int64_t stride, U;
    int window, key_rows;
    int64_t plan_key;
} plan_inputs;

/* Does segment n continue the pack, and does its prompt lead its group?  `leader` is the last segment up to n that has no
 * prompt. */
__device__ __forceinline__ bool continues_pack(const plan_inputs *in, int64_t n, int64_t N,
                                               int64_t T, int leader)
{
    const int32_t *s = in->segments + n * in->stride, *before = s - in->stride;
    const int64_t begin = s[SEGMENT_BEGIN], length = s[SEGMENT_LENGTH];
    const int64_t end =
        n == 0 ? 0 : (int64_t)before[SEGMENT_BEGIN] + (int64_t)before[SEGMENT_LENGTH];
    if (begin != end || length < 0 || begin + length > T) return false;
    if (n == N - 1 && begin + length != T) return false;
    if (s[SEGMENT_PROMPT_LENGTH] == 0) return true;
    if (leader < 0) return false;
    const int32_t *prompt = in->segments + leader * in->stride;
    return s[SEGMENT_PROMPT_BEGIN] == prompt[SEGMENT_BEGIN] &&
           s[SEGMENT_PROMPT_LENGTH] == prompt[SEGMENT_LENGTH];
}

/* Bits of the faults that the block finds; the same in every thread. */
__device__ __forceinline__ int find_faults(const plan_inputs *in, int64_t N, int64_t T, int *part,
                                           int *carried)
{
    bool broken = N == 0 && T > 0, unordered = false;
    int leader = -1;
    for (int64_t base = 0; base < N; base += THREADS) {
        const int64_t n = base + threadIdx.x;
        const bool leads = n < N && in->segments[n * in->stride + SEGMENT_PROMPT_LENGTH] == 0;
        const int last = max(leader, scan_max(leads ? (int)n : -1, part));
        if (n < N && !continues_pack(in, n, N, T, last)) broken = true;
        if (threadIdx.x == THREADS - 1) *carried = last;
        __syncthreads(); /* carried is written */
        leader = *carried;
        __syncthreads(); /* and read */
    }
    for (int64_t u = threadIdx.x; u < in->U; u += THREADS) {
        const int64_t t = in->wanted[u];
        if (t < 0 || t >= T || (u > 0 && in->wanted[u - 1] >= t)) unordered = true;
    }
    return (__syncthreads_or(broken) ? FAULT_SEGMENT : 0) |
           (__syncthreads_or(unordered) ? FAULT_INDEX : 0);
}

__device__ __forceinline__ int tiles_of(int rows, int each)
{
    return (rows + each - 1) / each;
}

/* The segments with the numbers of their first tiles. */
__device__ __forceinline__ void plan_segments_of_pack(const plan_view *p, const plan_inputs *in,
                                                      int *part)
{
    int forward = 0, backward = 0, keys = 0;
    for (int64_t base = 0; base < p->N; base += THREADS) {
        const int64_t n = base + threadIdx.x;
        plan_segment s = {};
        if (n < p->N) {
            const int32_t *from = in->segments + n * in->stride;
            s.begin = from[SEGMENT_BEGIN];
            s.length = from[SEGMENT_LENGTH];
            s.prompt_length = from[SEGMENT_PROMPT_LENGTH];
            s.prompt_begin = s.prompt_length > 0 ? from[SEGMENT_PROMPT_BEGIN] : 0;
            s.ask_end = s.length;
            if (in->wanted != NULL) {
                const int64_t first = wanted_before(in->wanted, in->U, s.begin);
                const int64_t end = wanted_before(in->wanted, in->U, (int64_t)s.begin + s.length);
                s.ask_begin = first < end ? in->wanted[first] - s.begin : 0;
                s.ask_end = first < end ? in->wanted[end - 1] + 1 - s.begin : 0;
            }
            s.group_end = (int)n + 1;
            while (s.prompt_length == 0 && s.group_end < p->N &&
                   in->segments[s.group_end * in->stride + SEGMENT_PROMPT_LENGTH] != 0) {
                s.group_end++;
            }
        }
        int more_forward, more_backward, more_keys;
        const int asking = s.ask_end - s.ask_begin;
        s.first_forward = forward + scan_sum(tiles_of(asking, FORWARD_ROWS), part, &more_forward);
        s.first_backward =
            backward + scan_sum(tiles_of(asking, BACKWARD_ROWS), part, &more_backward);
        s.first_key = keys + scan_sum(tiles_of(s.length, in->key_rows), part, &more_keys);
        if (n < p->N) p->segment[n] = s;
        forward += more_forward;
        backward += more_backward;
        keys += more_keys;
    }
    if (threadIdx.x == 0) {
        p->counts->forward = forward;
        p->counts->backward = backward;
        p->counts->keys = keys;
    }
    __syncthreads(); /* the segments and counts are there for all */
}

enum tile_kind { FORWARD, BACKWARD, KEY };

/* The segment of a tile: the last whose first tile is not after it. */
template <int KIND>
__device__ __forceinline__ plan_segment segment_of_tile(const plan_view *p, int tile, int *number)
{
    int low = 0, high = (int)p->N - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        const plan_segment *s = p->segment + middle;
        const int first = KIND == FORWARD    ? s->first_forward
                          : KIND == BACKWARD ? s->first_backward
                                             : s->first_key;
        if (first <= tile) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const plan_segment s = p->segment[low];
    *number = tile - (KIND == FORWARD    ? s.first_forward
                      : KIND == BACKWARD ? s.first_backward
                                         : s.first_key);
    return s;
}

template <int KIND>
__device__ __forceinline__ query_tile query_tile_of(const plan_view *p, const plan_inputs *in,
                                                    int i)
{
    enum { ROWS = KIND == FORWARD ? FORWARD_ROWS : BACKWARD_ROWS };
    int number;
    const plan_segment s = segment_of_tile<KIND>(p, i, &number);
    query_tile t = {};
    t.index = s.ask_begin + number * ROWS;
    t.rows = min((int)ROWS, s.ask_end - t.index);
    t.token = s.begin + t.index;
    t.prompt_begin = s.prompt_begin;
    t.prompt_length = s.prompt_length;
    const int first = first_visible(s.prompt_length + t.index, in->window);
    if (first < s.prompt_length) {
        t.prompt_first = first / in->key_rows;
        t.prompt_count = tiles_of(s.prompt_length, in->key_rows) - t.prompt_first;
    }
    t.own_first = max(0, first - s.prompt_length) / in->key_rows;
    t.own_count = (t.index + t.rows - 1) / in->key_rows + 1 - t.own_first;
    return t;
}

__device__ __forceinline__ key_tile key_tile_of(const plan_view *p, const plan_inputs *in, int i)
{
    int number;
    const plan_segment s = segment_of_tile<KEY>(p, i, &number);
    key_tile t = {};
    const int index = number * in->key_rows;
    t.number = number;
    t.token = s.begin + index;
    t.keys = min(in->key_rows, s.length - index);
    t.position = s.prompt_length + index;
    const int own = tiles_of(s.ask_end - s.ask_begin, BACKWARD_ROWS);
    const int unseeing = max(0, index - s.ask_begin) / BACKWARD_ROWS; /* tiles that end before it */
    t.own_end = s.first_backward + own;
    t.query_begin = s.first_backward + min(own, unseeing);
    t.query_end = s.group_end < p->N ? p->segment[s.group_end].first_backward : p->counts->backward;
    t.ask_begin = s.begin + s.ask_begin;
    t.ask_end = s.begin + s.ask_end;
    return t;
}

/* Where number i of n stands when the most work comes first, and equal work in order.  Quadratic, so long lists stay as
 * they are. */
__device__ __forceinline__ int rank_of(const int32_t *work, int i, int n)
{
    if (n > RANKED) return i;
    const int mine = work[i];
    int rank = 0;
    for (int j = 0; j < n; j++) {
        rank += work[j] > mine || (work[j] == mine && j < i);
    }
    return rank;
}

/* One block: a pack has a few hundred tiles. */
static __global__ void __launch_bounds__(THREADS) attention_plan_kernel(plan_view p, plan_inputs in)
{
    SHARED(int, part, [WARPS]);
    SHARED(int, carried, [1]);
    const int faults = find_faults(&in, p.N, p.T, part, carried);
    if (threadIdx.x == 0) {
        *p.counts = plan_counts();
        p.counts->key = in.plan_key;
    }
    if (faults != 0) {
        if (threadIdx.x == 0 && in.fault != NULL) atomicOr(in.fault, faults);
        return;
    }
    plan_segments_of_pack(&p, &in, part);
    const int forward = p.counts->forward, backward = p.counts->backward, keys = p.counts->keys;
    for (int i = threadIdx.x; i < forward; i += THREADS) {
        const query_tile t = query_tile_of<FORWARD>(&p, &in, i);
        p.forward_work[i] = t.prompt_length + t.index + t.rows -
                            first_visible(t.prompt_length + t.index, in.window);
    }
    for (int i = threadIdx.x; i < keys; i += THREADS) {
        const key_tile t = key_tile_of(&p, &in, i);
        p.key_work[i] = t.query_end - t.query_begin;
    }
    int slots = 0;
    for (int base = 0; base < backward; base += THREADS) {
        const int i = base + (int)threadIdx.x;
        query_tile t = {};
        if (i < backward) t = query_tile_of<BACKWARD>(&p, &in, i);
        int more;
        t.slot = slots + scan_sum(t.prompt_count + t.own_count, part, &more);
        if (i < backward) p.backward[i] = t;
        slots += more;
    }
    if (threadIdx.x == 0) p.counts->slots = slots;
    __syncthreads(); /* all work is known */
    for (int i = threadIdx.x; i < forward; i += THREADS) {
        p.forward[rank_of(p.forward_work, i, forward)] = query_tile_of<FORWARD>(&p, &in, i);
    }
    for (int i = threadIdx.x; i < keys; i += THREADS) {
        p.key[rank_of(p.key_work, i, keys)] = key_tile_of(&p, &in, i);
    }
}

/* 0 where there can be no plan. */
extern "C" int64_t cuda_attention_plan_words(int64_t T, int64_t segments)
{
    return is_pack_size(T, segments) ? plan_words(T, segments) : 0;
}

/* The tiles of a pack for attention of that shape (of which head_dim and window matter).
 *  Out:     plan      [cuda_attention_plan_words(T, N)] i32, 16-byte aligned.
 *  In:      segments  [N,4] i32, N <= 2^19.      wanted  [U] i32, dense, or absent: all ask.
 *           T         tokens, 0 .. 2^19.
 *           Neither plan nor fault overlaps the other, segments or wanted.
 *  Faults:  FAULT_SEGMENT: the segments are no pack of T tokens; FAULT_INDEX: wanted does not rise within the pack.  The
 *           plan is then empty: forward and backward of it write nothing.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, plan untouched; CUDPO_EDEVICE.
 *  Reads 16 N + 4 U bytes, writes 48 bytes a segment and tile, at most T/128 + T/64 + T/64 + 3 N tiles. */
extern "C" cudpo_status cuda_attention_plan(tensor plan, tensor segments, tensor wanted, int64_t T,
                                            attention_shape shape, tensor fault,
                                            cudpo_stream stream)
{
    CUDPO_REQUIRE(attention_shape_valid(shape));
    CUDPO_REQUIRE(T >= 0 && T <= MAX_TOKENS);
    CUDPO_REQUIRE(is_i32(segments, segments.rows, SEGMENT_FIELDS));
    CUDPO_REQUIRE(!tensor_present(wanted) || is_i32(wanted, wanted.rows, 1));
    CUDPO_REQUIRE(!tensor_present(wanted) || wanted.stride == 1);
    CUDPO_REQUIRE(plan_segments(plan, T) == segments.rows);
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_REQUIRE(tensor_disjoint(plan, segments) && tensor_disjoint(plan, wanted));
    CUDPO_REQUIRE(tensor_disjoint(fault, segments) && tensor_disjoint(fault, wanted));
    CUDPO_REQUIRE(tensor_disjoint(fault, plan));
    const plan_inputs in = {(const int32_t *)segments.data,
                            (const int32_t *)wanted.data,
                            (int32_t *)fault.data,
                            segments.stride,
                            tensor_present(wanted) ? wanted.rows : 0,
                            shape.window,
                            key_rows(shape.head_dim),
                            plan_key(T, segments.rows, shape)};
    LAUNCH(attention_plan_kernel, 1, THREADS, 0, stream, plan_at(plan.data, T, segments.rows), in);
    return LAUNCHED();
}
