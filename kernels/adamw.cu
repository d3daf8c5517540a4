/* adamw.cu - one step of AdamW, in the order of operations of torch.optim.AdamW:
 *
 *     w -= lr wd w;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
 *     w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon) */
#include "kernels.h"
#include "quad.h"

enum { THREADS = 256, PIECES = 2 };

/* What a step does to every element alike. */
typedef struct update {
    float factor, decay, one_minus_beta1, beta2, one_minus_beta2, root_correction2, epsilon,
        step_size;
    uint64_t key, first; /* of the rounding */
} update;

/* The tensors as rows of columns; dense ones are one row. */
template <typename W, typename G> struct arrays {
    W *w;
    float *m, *v;
    bf16 *copy;
    const G *g;
    const float *gradient_scale;
    int64_t rows, columns, w_stride, m_stride, v_stride, copy_stride, g_stride;
};

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014), as in src/base/rng.c. */
static __host__ __device__ __forceinline__ uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* 16 random bits for each of N elements from `element` on, the first lowest.  Element e has those of number e % 4 in
 * rng_bits(seed, step, e / 4): a hash serves four elements, and its value does not depend on who computes it. */
template <int N> __device__ __forceinline__ uint64_t random_bits(uint64_t key, uint64_t element)
{
    const int skip = (int)(element % 4) * 16;
    uint64_t bits = mix(key ^ element / 4) >> skip;
    if (N > 1 && skip > 0) bits |= mix(key ^ (element / 4 + 1)) << (64 - skip);
    return bits;
}

/* x, or a neighbour among the bf16, up with the probability of x's share of the way there: the 16 bits that bf16 lacks
 * are what it takes to carry over with 16 random bits.  So the mean is x, and a bf16 stays what it is.  Beyond the
 * largest bf16, towards zero: nothing finite becomes Inf; NaN and Inf stay. */
__device__ __forceinline__ float round_randomly(float x, uint32_t random)
{
    const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
    return __uint_as_float((bits + (magnitude < 0x7f7f0000u ? random : 0)) & 0xffff0000u);
}

__device__ __forceinline__ float step_element(float w, float &m, float &v, float g, const update &u)
{
    m += u.one_minus_beta1 * (g - m);
    v = v * u.beta2 + u.one_minus_beta2 * g * g;
    const float denominator = sqrtf(v) / u.root_correction2 + u.epsilon;
    return w * u.decay - u.step_size * (m / denominator);
}

/* PIECES pieces of N elements a thread, THREADS pieces apart; all are read before any is written. */
template <typename W, typename G, int N>
static __global__ void __launch_bounds__(THREADS) adamw_kernel(arrays<W, G> a, update u)
{
    const int64_t across = a.columns / N, count = a.rows * across;
    const int64_t first = (int64_t)blockIdx.x * PIECES * THREADS + threadIdx.x;
    float w[PIECES][N], m[PIECES][N], v[PIECES][N], g[PIECES][N];
    int64_t row[PIECES], column[PIECES];
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int64_t i = first + p * THREADS;
        if (i >= count) continue;
        row[p] = a.rows == 1 ? 0 : i / across;
        column[p] = (i - row[p] * across) * N;
        load_quad(g[p], a.g + row[p] * a.g_stride + column[p]);
        load_quad(w[p], a.w + row[p] * a.w_stride + column[p]);
        load_quad(m[p], a.m + row[p] * a.m_stride + column[p]);
        load_quad(v[p], a.v + row[p] * a.v_stride + column[p]);
    }
    const float scale = a.gradient_scale != nullptr ? u.factor * *a.gradient_scale : u.factor;
    if (!(fabsf(scale) < INFINITY)) return; /* also NaN: a bad step leaves everything as it was */
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        if (first + p * THREADS >= count) continue;
#pragma unroll
        for (int j = 0; j < N; j++) {
            w[p][j] = step_element(w[p][j], m[p][j], v[p][j], g[p][j] * scale, u);
        }
        if (sizeof(W) == sizeof(bf16)) {
            const uint64_t element = u.first + (uint64_t)(row[p] * a.columns + column[p]);
            const uint64_t random = random_bits<N>(u.key, element);
#pragma unroll
            for (int j = 0; j < N; j++) {
                w[p][j] = round_randomly(w[p][j], (uint32_t)(random >> 16 * j) & 0xffffu);
            }
        }
        store_quad(a.w + row[p] * a.w_stride + column[p], w[p]);
        store_quad(a.m + row[p] * a.m_stride + column[p], m[p]);
        store_quad(a.v + row[p] * a.v_stride + column[p], v[p]);
        if (a.copy != nullptr) store_quad(a.copy + row[p] * a.copy_stride + column[p], w[p]);
    }
}

template <typename W, typename G>
static void launch(const adamw_tensors *p, const update *u, bool quads, unsigned blocks,
                   cudpo_stream stream)
{
    const arrays<W, G> a = {(W *)p->w.data,
                            (float *)p->m.data,
                            (float *)p->v.data,
                            (bf16 *)p->copy.data,
                            (const G *)p->gradient.data,
                            (const float *)p->gradient_scale.data,
                            p->w.rows,
                            p->w.cols,
                            p->w.stride,
                            p->m.stride,
                            p->v.stride,
                            p->copy.stride,
                            p->gradient.stride};
    if (quads)
        LAUNCH((adamw_kernel<W, G, 4>), blocks, THREADS, 0, stream, a, *u);
    else
        LAUNCH((adamw_kernel<W, G, 1>), blocks, THREADS, 0, stream, a, *u);
}

static cudpo_status check_step(adamw_step step)
{
    CUDPO_REQUIRE(std::isfinite(step.learning_rate));
    CUDPO_REQUIRE(std::isfinite(step.weight_decay));
    CUDPO_REQUIRE(std::isfinite(step.epsilon));
    CUDPO_REQUIRE(step.epsilon >= 0.0);
    CUDPO_REQUIRE(step.beta1 >= 0.0 && step.beta1 < 1.0);
    CUDPO_REQUIRE(step.beta2 >= 0.0 && step.beta2 < 1.0);
    CUDPO_REQUIRE(step.bias_correction1 > 0.0 && step.bias_correction1 <= 1.0);
    CUDPO_REQUIRE(step.bias_correction2 > 0.0 && step.bias_correction2 <= 1.0);
    return CUDPO_OK;
}

/* Types and shapes, and that what is written overlaps nothing. */
static cudpo_status check_tensors(const adamw_tensors *p)
{
    const tensor w = p->w, m = p->m, v = p->v, copy = p->copy;
    const tensor gradient = p->gradient, gradient_scale = p->gradient_scale;
    const int64_t R = w.rows, C = w.cols;
    CUDPO_REQUIRE(is_matrix(w));
    CUDPO_REQUIRE(is_f32(m, R, C));
    CUDPO_REQUIRE(is_f32(v, R, C));
    CUDPO_REQUIRE(!tensor_present(copy) || is_typed(copy, DTYPE_BF16, R, C));
    CUDPO_REQUIRE(!tensor_present(copy) || w.type == DTYPE_F32);
    CUDPO_REQUIRE(is_float(gradient, R, C));
    CUDPO_REQUIRE(!tensor_present(gradient_scale) || is_f32(gradient_scale, 1, 1));
    CUDPO_REQUIRE(tensor_disjoint(w, m));
    CUDPO_REQUIRE(tensor_disjoint(w, v));
    CUDPO_REQUIRE(tensor_disjoint(w, copy));
    CUDPO_REQUIRE(tensor_disjoint(w, gradient));
    CUDPO_REQUIRE(tensor_disjoint(w, gradient_scale));
    CUDPO_REQUIRE(tensor_disjoint(m, v));
    CUDPO_REQUIRE(tensor_disjoint(m, copy));
    CUDPO_REQUIRE(tensor_disjoint(m, gradient));
    CUDPO_REQUIRE(tensor_disjoint(m, gradient_scale));
    CUDPO_REQUIRE(tensor_disjoint(v, copy));
    CUDPO_REQUIRE(tensor_disjoint(v, gradient));
    CUDPO_REQUIRE(tensor_disjoint(v, gradient_scale));
    CUDPO_REQUIRE(tensor_disjoint(copy, gradient));
    CUDPO_REQUIRE(tensor_disjoint(copy, gradient_scale));
    return CUDPO_OK;
}

/* One step on the gradient times factor * gradient_scale; all scalars are rounded to float once, from double.
 *  In/Out:  w       [R,C] f32: master weights; or bf16: rounded at random, see round_randomly, with no other weights.
 *           m, v    [R,C] f32.
 *  Out:     copy    [R,C] bf16 or absent: w rounded to nearest.  Only beside f32 weights.
 *  In:      gradient  [R,C] f32 or bf16.   gradient_scale  [1] f32 or absent.   factor  finite.
 *           seed, step, first  decide how bf16 weights round: element e of the call is number first + e of all, row by
 *           row, so that cutting the weights into other calls changes nothing.
 *  What is written overlaps nothing.
 *  Where factor * gradient_scale is not finite, nothing is written.
 *  Bytes a parameter: 24 + gradient, + 2 with a copy (28 with a bf16 gradient and copy); bf16 weights 20 + gradient.
 *  No scratch.  Dense tensors of 4 n elements, or rows of 4 n, on boundaries of 4 elements, are the fast layout. */
extern "C" cudpo_status cuda_adamw(const adamw_tensors *p, adamw_step step, cudpo_stream stream)
{
    CUDPO_REQUIRE(p != nullptr);
    CUDPO_TRY(check_tensors(p));
    CUDPO_REQUIRE(std::isfinite(p->factor));
    CUDPO_REQUIRE(p->first >= 0);
    CUDPO_TRY(check_step(step));
    const int64_t R = p->w.rows, C = p->w.cols;
    if (R == 0) return CUDPO_OK;
    const update u = {p->factor,
                      (float)(1.0 - step.learning_rate * step.weight_decay),
                      (float)(1.0 - step.beta1),
                      (float)step.beta2,
                      (float)(1.0 - step.beta2),
                      (float)sqrt(step.bias_correction2),
                      (float)step.epsilon,
                      (float)(step.learning_rate / step.bias_correction1),
                      mix(mix(p->seed) ^ p->step),
                      (uint64_t)p->first};
    adamw_tensors rows = *p; /* dense: one row, so that pieces cross the ends of rows */
    if (tensor_dense(p->w) && tensor_dense(p->m) && tensor_dense(p->v) &&
        (!tensor_present(p->copy) || tensor_dense(p->copy)) && tensor_dense(p->gradient)) {
        rows.w = flat(p->w);
        rows.m = flat(p->m);
        rows.v = flat(p->v);
        if (tensor_present(p->copy)) rows.copy = flat(p->copy);
        rows.gradient = flat(p->gradient);
    }
    const bool quads = has_quads(rows.w) && has_quads(rows.m) && has_quads(rows.v) &&
                       (!tensor_present(rows.copy) || has_quads(rows.copy)) &&
                       has_quads(rows.gradient);
    const int each = PIECES * THREADS * (quads ? 4 : 1); /* elements of a block */
    CUDPO_REQUIRE(fits_grid(tensor_elements(p->w), each));
    const unsigned blocks = blocks_for(R * C, each);
    FLOAT_TYPE(rows.w.type, W, {
        FLOAT_TYPE(rows.gradient.type, G, { launch<W, G>(&rows, &u, quads, blocks, stream); });
    });
    return LAUNCHED();
}
