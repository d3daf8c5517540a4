/* token_logprob.cu - from logits to the log-prob of a label, statistics and the gradient, each row read once.
 *
 * Let k be near the largest logit z of a row, E = exp(z - k), and S the sum of E.  Then softmax = E / S, so that E, but
 * -(S - E) at the label, is S (softmax - onehot): a row's gradient but for the factor 1 / S, which is its `scale`.  So E
 * can be stored while S is still unknown; bf16 keeps its relative precision whatever the factor.  k is the maximum of the
 * first chunk of the row that is not all -inf.  Where a later chunk exceeds it by more than LIMIT, k becomes that chunk's
 * maximum, and what was stored so far is multiplied by exp(k before - k): rare, and right all the same, but that bf16
 * rounds what it stored once more, by up to 2^-8 of it.  What n such steps have rounded has a probability below
 * e^(-LIMIT (n - 1)), so nothing that matters is rounded more than twice.
 *
 * S is summed without the label's E, which joins it at the end: so neither the label's gradient nor a log-prob near 0
 * cancels, and no log-prob exceeds 0. */
#include "check.h"
#include "kernels.h"
#include "kernels/token_logprob.h"
#include "vector.h"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    DEPTH = 3,                  /* 16-byte vectors of a chunk in one thread */
    SLOTS = 3,                  /* chunks at hand: one to work on, two or three on their way */
    MAX_VOCABULARY = 0x40000000 /* elements of a row and of a few chunks are counted in an int */
};

/* E stays below e^20: 2^63 of its squares fit a float, and an error of 2^-24 in z - k is no more than 1e-6 of E. */
#define LIMIT 20.0f
#define LOG2_E 1.44269504f

/* Memory of a block.  4 blocks to an SM have 96 KB of logits on their way at any time. */
typedef struct row_memory {
    uint4 logits[SLOTS][DEPTH]
                [THREADS]; /* [..][t] is thread t's alone: what it holds needs no barrier */
    float maximum[WARPS];
    double sums[4][WARPS];
} row_memory;

/* Sums over the logits z but, where they are of E, the label's. */
typedef struct row_sums {
    double exponentials, squares; /* of E */
    double weighted;              /* of E (z - k) */
    double logits;
} row_sums;

/* The first of the W elements of a row that are vector v of this thread in a chunk. */
template <int W> __device__ __forceinline__ int element(int chunk, int v)
{
    return ((chunk * DEPTH + v) * THREADS + (int)threadIdx.x) * W;
}

/* Ask for this thread's vectors of a chunk of an aligned row.  One group of copies, if an empty one. */
template <typename T>
__device__ __forceinline__ void request(row_memory *m, const T *row, int chunk, int V)
{
    enum { W = lanes<T>::COUNT };
#pragma unroll
    for (int v = 0; v < DEPTH; v++) {
        const int i = element<W>(chunk, v);
        if (i + W <= V) cp_async_16(&m->logits[chunk % SLOTS][v][threadIdx.x], row + i);
    }
    cp_async_commit();
}

/* Have this thread's vectors of a chunk in shared memory, -inf beyond the end of the row: those that were asked for
 * SLOTS chunks ago, the others element by element. */
template <typename T, bool ALIGNED>
__device__ __forceinline__ void receive(row_memory *m, const T *row, int chunk, int V)
{
    enum { W = lanes<T>::COUNT };
    if (ALIGNED) cp_async_wait<SLOTS - 1>();
#pragma unroll(ALIGNED ? DEPTH : 1)
    for (int v = 0; v < DEPTH; v++) {
        const int i = element<W>(chunk, v);
        if (ALIGNED && i + W <= V) continue;
        float z[W];
#pragma unroll
        for (int j = 0; j < W; j++) {
            z[j] = i + j < V ? to_float(row[i + j]) : -INFINITY;
        }
        m->logits[chunk % SLOTS][v][threadIdx.x] = pack(z);
    }
}

/* W elements of a gradient whose rows are aligned. */
__device__ __forceinline__ void store_whole(float *p, const float (&x)[4])
{
    __stcs(reinterpret_cast<uint4 *>(p), pack(x));
}
__device__ __forceinline__ void store_whole(bf16 *p, const float (&x)[4])
{
    __stcs(reinterpret_cast<uint2 *>(p), make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])));
}
__device__ __forceinline__ void store_whole(bf16 *p, const float (&x)[8])
{
    __stcs(reinterpret_cast<uint4 *>(p), pack(x));
}

template <typename G, int W, bool ALIGNED>
__device__ __forceinline__ void store(G *gradient, const float (&e)[W], int i, int V)
{
    if (ALIGNED && i + W <= V) {
        store_whole(gradient + i, e);
    } else {
#pragma unroll
        for (int j = 0; j < W; j++) {
            if (i + j < V) gradient[i + j] = from_float<G>(e[j]);
        }
    }
}

/* Multiply what this thread has stored of the chunks before `chunk` by factor^2. */
template <typename T, typename G, bool ALIGNED>
__device__ __forceinline__ void rescale(G *gradient, int chunk, float factor, int V)
{
    enum { W = lanes<T>::COUNT };
#pragma unroll 1
    for (int v = 0; v < chunk * DEPTH; v++) {
        const int i = element<W>(0, v);
        float e[W];
#pragma unroll
        for (int j = 0; j < W; j++) {
            e[j] = to_float(gradient[i + j]) * factor * factor;
        }
        store<G, W, ALIGNED>(gradient, e, i, V);
    }
}

/* The largest number of a block, in every thread; NaN is no number. */
__device__ __forceinline__ float block_max(float x, float *part)
{
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads(); /* all parts are written */
    float most = part[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) {
        most = fmaxf(most, part[w]);
    }
    return most; /* the next chunk's barrier stands between these reads and the next writes */
}

/* Make the sums those of another k. */
__device__ __forceinline__ void rebase(row_sums *s, float before, float k)
{
    const double d = (double)before - (double)k, factor = exp(d);
    s->weighted = factor * (s->weighted + d * s->exponentials);
    s->exponentials *= factor;
    s->squares *= factor * factor;
}

/* The largest of this thread's logits in a chunk. */
template <int W> __device__ __forceinline__ float largest(const uint4 (&logits)[DEPTH][THREADS])
{
    float most = -INFINITY;
#pragma unroll
    for (int v = 0; v < DEPTH; v++) {
        float z[W];
        unpack(z, logits[v][threadIdx.x]);
#pragma unroll
        for (int j = 0; j < W; j++) {
            most = fmaxf(most, z[j]);
        }
    }
    return most;
}

/* One of this thread's logits in a chunk is larger than the label's, `target`, or as large and before it. */
template <int W>
__device__ __forceinline__ bool is_beaten(const uint4 (&logits)[DEPTH][THREADS], int chunk,
                                          int label, float target)
{
    bool beaten = false;
#pragma unroll 1
    for (int v = 0; v < DEPTH; v++) {
        const int i = element<W>(chunk, v);
        float z[W];
        unpack(z, logits[v][threadIdx.x]);
#pragma unroll
        for (int j = 0; j < W; j++) {
            beaten |= z[j] > target || (z[j] == target && i + j < label);
        }
    }
    return beaten;
}

/* Add up this thread's logits of a chunk, and store E where there is a gradient. */
template <typename G, int W, bool GRADIENT, bool STATS, bool ALIGNED>
__device__ __forceinline__ void add_chunk(row_sums *sums, G *gradient,
                                          const uint4 (&logits)[DEPTH][THREADS], int chunk, float k,
                                          int label, int V)
{
    float exponentials = 0.0f, squares = 0.0f, weighted = 0.0f, all = 0.0f;
    /* Not all three vectors of 8 at once, which would take more registers than there are. */
#pragma unroll(W > 4 ? 1 : DEPTH)
    for (int v = 0; v < DEPTH; v++) {
        const int i = element<W>(chunk, v);
        float z[W];
        unpack(z, logits[v][threadIdx.x]);
#pragma unroll
        for (int j = 0; j < W; j++) {
            const float d = z[j] - k; /* rounds once, relative to itself; one FMA would lose that */
            const float e = exp2_approx(d * LOG2_E);
            const float other = i + j == label ? 0.0f : e;
            exponentials += other;
            if (STATS) {
                squares += other * other;
                weighted += other * fmaxf(d, -88.0f); /* E is 0 there: 0 * -88, not 0 * -inf */
                all += i + j < V ? z[j] : 0.0f;
            }
            z[j] = e;
        }
        if (GRADIENT) store<G, W, ALIGNED>(gradient, z, i, V);
    }
    sums->exponentials += (double)exponentials;
    if (STATS) {
        sums->squares += (double)squares;
        sums->weighted += (double)weighted;
        sums->logits += (double)all;
    }
}

/* Read the row, add it up, and store E where there is a gradient.  Returns k: -inf where no logit is above it.  `beaten` is
 * set where another logit than the label's, `target`, is the first largest. */
template <typename T, typename G, bool GRADIENT, bool STATS, bool ALIGNED>
__device__ __forceinline__ float read_row(row_sums *sums, bool *beaten, row_memory *m, T *row,
                                          int label, float target, int V)
{
    enum { W = lanes<T>::COUNT, CHUNK = THREADS * DEPTH * W };
    G *gradient = reinterpret_cast<G *>(row);
    float k = -INFINITY;
    for (int chunk = 0; ALIGNED && chunk < SLOTS; chunk++) {
        request(m, row, chunk, V);
    }
    for (int chunk = 0; chunk * CHUNK < V; chunk++) {
        const uint4(&logits)[DEPTH][THREADS] = m->logits[chunk % SLOTS];
        receive<T, ALIGNED>(m, row, chunk, V);
        const float most = largest<W>(logits);
        if (STATS && most >= target && !*beaten)
            *beaten = is_beaten<W>(logits, chunk, label, target);
        /* Not only the vote: all threads have read this chunk now, and `target`, so both may be overwritten.  A gradient
         * of half the size covers, with its chunk n, the logits of chunk n / 2, which is this one or an earlier one. */
        if (__syncthreads_or(most - k > LIMIT)) {
            const float before = k;
            k = block_max(most, m->maximum);
            if (before > -INFINITY) { /* else all sums, and all that was stored, are 0 or NaN */
                rebase(sums, before, k);
                /* In two halves, so that exp(before - k) does not vanish before its product with a large E does. */
                if (GRADIENT)
                    rescale<T, G, ALIGNED>(gradient, chunk,
                                           exp2_approx((before - k) * (0.5f * LOG2_E)), V);
            }
        }
        add_chunk<G, W, GRADIENT, STATS, ALIGNED>(sums, gradient, logits, chunk,
                                                  k > -INFINITY ? k : 0.0f, label, V);
        if (ALIGNED)
            request(m, row, chunk + SLOTS, V); /* into the slot that this thread has just used */
    }
    return k;
}

/* log(e^d / (rest + e^d)), which is at most 0. */
__device__ __forceinline__ double log_share(double d, double rest)
{
    return d > -1.0 ? 0.0 - log1p(rest * exp(-d)) : d - log(rest + exp(d));
}

__device__ __forceinline__ void write_stats(float *stats, const row_sums *s, double d, double e,
                                            bool hit, int V)
{
    const double sum = s->exponentials + e;
    const double weighted = s->weighted + (e > 0.0 ? e * d : 0.0);
    stats[STAT_MEAN_LOGIT] = (float)(s->logits / (double)V);
    stats[STAT_ENTROPY] = (float)(log(sum) - weighted / sum);
    stats[STAT_HIT] = hit ? 1.0f : 0.0f;
    stats[STAT_SUM_P2] = (float)((s->squares + e * e) / (sum * sum));
}

template <typename T, typename G, bool GRADIENT, bool STATS, bool ALIGNED>
__device__ __forceinline__ void score_row(row_memory *m, float *logp, float *stats, float *scale,
                                          T *row, int label, int V, int *fault)
{
    const bool known = label >= 0 && label < V;
    if (!known) label = -1; /* no element's index */
    const float target = known ? to_float(row[label]) : NAN;
    row_sums sums = {0.0, 0.0, 0.0, 0.0};
    bool beaten = target != target; /* a NaN is the largest of nothing */
    const float k =
        read_row<T, G, GRADIENT, STATS, ALIGNED>(&sums, &beaten, m, row, label, target, V);
    /* Its barrier also stands between the E that some thread stored at the label, and the gradient that follows it. */
    sums.exponentials = block_sum<WARPS>(sums.exponentials, m->sums[0]);
    if (STATS) {
        sums.squares = block_sum<WARPS>(sums.squares, m->sums[1]);
        sums.weighted = block_sum<WARPS>(sums.weighted, m->sums[2]);
        sums.logits = block_sum<WARPS>(sums.logits, m->sums[3]);
        beaten = __syncthreads_or(beaten);
    }
    if (threadIdx.x > 0) return;
    const double d = (double)target - (double)k, e = known ? exp(d) : 0.0;
    *logp = (float)log_share(d, sums.exponentials);
    if (STATS) write_stats(stats, &sums, d, e, !beaten, V);
    if (GRADIENT) *scale = (float)(1.0 / (sums.exponentials + e));
    if (GRADIENT && known)
        reinterpret_cast<G *>(row)[label] = from_float<G>((float)-sums.exponentials);
    if (!known && fault != NULL) atomicOr(fault, (int)FAULT_LABEL);
}

__device__ __forceinline__ float *float_at(tensor t, int64_t r)
{
    return (float *)t.data + r * t.stride;
}

/* A block a row: with references, of the policy and of the reference in turn. */
template <typename T, typename G, bool GRADIENT, bool STATS, bool ALIGNED>
static __global__ void __launch_bounds__(THREADS, ALIGNED ? 4 : 3)
    token_logprob_kernel(logprob_tensors rows, int *fault)
{
    SHARED(row_memory, memory, [1]);
    const bool paired = rows.reference_logits.data != NULL;
    const int64_t r = paired ? blockIdx.x / 2 : blockIdx.x;
    const int V = (int)rows.logits.cols;
    const int label = ((const int32_t *)rows.label.data)[r * rows.label.stride];
    if (paired && blockIdx.x % 2 == 1)
        score_row<T, G, false, false, ALIGNED>(
            memory, float_at(rows.reference_logp, r), NULL, NULL,
            (T *)rows.reference_logits.data + r * rows.reference_logits.stride, label, V, fault);
    else
        score_row<T, G, GRADIENT, STATS, ALIGNED>(
            memory, float_at(rows.logp, r), STATS ? float_at(rows.stats, r) : NULL,
            GRADIENT ? float_at(rows.scale, r) : NULL,
            (T *)rows.logits.data + r * rows.logits.stride, label, V, fault);
}

/* Every row starts on a 16-byte boundary. */
static bool is_aligned(tensor t)
{
    return (uintptr_t)t.data % 16 == 0 &&
           (t.rows <= 1 || (size_t)t.stride * dtype_size(t.type) % 16 == 0);
}

template <typename T, typename G, bool GRADIENT, bool STATS>
static void launch(const logprob_tensors *rows, tensor fault, cudpo_stream stream)
{
    const bool paired = tensor_present(rows->reference_logits);
    const unsigned blocks = (unsigned)(rows->logits.rows * (paired ? 2 : 1));
    if (is_aligned(rows->logits) && (!paired || is_aligned(rows->reference_logits)))
        LAUNCH((token_logprob_kernel<T, G, GRADIENT, STATS, true>), blocks, THREADS, 0, stream,
               *rows, (int *)fault.data);
    else
        LAUNCH((token_logprob_kernel<T, G, GRADIENT, STATS, false>), blocks, THREADS, 0, stream,
               *rows, (int *)fault.data);
}

template <typename T, typename G, bool GRADIENT>
static void launch_with_stats(const logprob_tensors *rows, tensor fault, cudpo_stream stream)
{
    if (tensor_present(rows->stats))
        launch<T, G, GRADIENT, true>(rows, fault, stream);
    else
        launch<T, G, GRADIENT, false>(rows, fault, stream);
}

/* Log-probs of labels, and the gradient in place of the logits: see logprob_tensors.  One launch for both models.
 *  Out:     rows->logp            [R] f32, nats, at most 0, within 1e-5 (and its own rounding) up to V = 2^18.  NaN where
 *                                 the label is out of range, which sets FAULT_LABEL, and where a logit is NaN or +inf or
 *                                 all are -inf.
 *           rows->stats           [R,ROW_STATS] f32, or absent: less work.
 *           rows->scale           [R] f32, 1 / S, with a gradient; else absent.
 *           rows->reference_logp  [R] f32 of reference_logits; both or neither.
 *  In/Out:  rows->logits          [R,V] f32 or bf16.  With a gradient: S (softmax - onehot) in gradient_type, f32 or bf16,
 *                                 bf16 where the logits are; no onehot where the label is out of range.  Of f32 logits as
 *                                 bf16, the second half of each row is undefined afterwards.
 *  In:      rows->label           [R] i32.             rows->reference_logits  [R,V] of the logits' type.
 *           Nothing overlaps, with a gradient or without.  V up to 2^30, R up to 2^30 - 1.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, nothing written; CUDPO_EDEVICE.
 *  Rows that start on 16-byte boundaries (address and stride; V may be odd) are copied in 16-byte vectors, others element
 *  by element; the bits are the same.  One pass: with logits of t bytes and a gradient of g, reads t V and writes g V bytes
 *  a row, and reads t V a row of the reference. */
extern "C" cudpo_status cuda_token_logprob(const logprob_tensors *rows, bool gradient, tensor fault,
                                           cudpo_stream stream)
{
    CUDPO_REQUIRE(rows != NULL);
    const tensor logp = rows->logp, stats = rows->stats, scale = rows->scale;
    const tensor logits = rows->logits, label = rows->label;
    const tensor reference_logp = rows->reference_logp, reference_logits = rows->reference_logits;
    const dtype gradient_type = rows->gradient_type;
    const int64_t R = logits.rows;
    const bool reference = tensor_present(reference_logits);
    CUDPO_REQUIRE(is_matrix(logits));
    CUDPO_REQUIRE(logits.cols <= MAX_VOCABULARY && logits.rows <= INT32_MAX / 2);
    CUDPO_REQUIRE(is_f32(logp, R, 1));
    CUDPO_REQUIRE(!tensor_present(stats) || is_f32(stats, R, ROW_STATS));
    CUDPO_REQUIRE(gradient ? is_f32(scale, R, 1) : !tensor_present(scale));
    CUDPO_REQUIRE(!gradient || gradient_type == DTYPE_BF16 ||
                  (gradient_type == DTYPE_F32 && logits.type == DTYPE_F32));
    CUDPO_REQUIRE(reference == tensor_present(reference_logp));
    CUDPO_REQUIRE(!reference || is_like(reference_logits, logits));
    CUDPO_REQUIRE(!reference || is_f32(reference_logp, R, 1));
    CUDPO_REQUIRE(is_i32(label, R, 1));
    CUDPO_REQUIRE(is_fault(fault));
    CUDPO_TRY(logprob_check_overlaps(rows, fault));
    if (R == 0) return CUDPO_OK;
    FLOAT_TYPE(logits.type, T, {
        if (!gradient)
            launch_with_stats<T, T, false>(rows, fault, stream);
        else if (gradient_type == DTYPE_BF16)
            launch_with_stats<T, bf16, true>(rows, fault, stream);
        else
            launch_with_stats<float, float, true>(rows, fault, stream);
    });
    return LAUNCHED();
}
