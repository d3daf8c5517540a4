/* backend.h - where tensors live and what can be done to them: one table, several implementations.
 *
 * Sizes, here and everywhere: S sequences (completions), T tokens of a pack, R score rows, C width, H query heads,
 * K kv heads, D head dim, F ffn, V vocab, N segments.  Q = H*D, KV = K*D.
 *
 * Every op: outputs, in-outs, inputs, scalars; enqueues on the backend's one stream and returns; allocates no memory but
 * working memory that reserve() could have known; checks its contract (shapes, types, ranges of scalars) before it writes anything
 * and returns CUDPO_EINVAL otherwise.  Float tensors are the backend's activation type (CPU: f32) unless said.
 * Gradients: of weights +=, of activations =; exceptions are said.  Reductions have a fixed order: the same
 * inputs give the same bits, whatever the number of threads.  Operands do not alias unless said.
 * [..] beside a tensor is its shape; a vector [N] is rows = N, cols = 1; a weight vector [1,C] is one row. */
#ifndef CUDPO_BACKEND_H
#define CUDPO_BACKEND_H

#include "cudpo/status.h"
#include "kernels/types.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loss_inputs; /* preference/loss.h */
struct loss_outputs;
struct loss_parameters;

/* What a backend is opened with. */
typedef struct backend_options {
    int device; /* number of the GPU among those that are visible, modulo how many these are */
    const char *cache; /* folder for what is measured once and kept; NULL: none */
} backend_options;

/* The most that a run will ask of any op, so that a backend can set memory for it aside. */
typedef struct workload {
    int64_t tokens, segments, rows; /* of a pack: T, N, R */
    int64_t width;                  /* of its widest activation */
    attention_shape attention;
    dtype type; /* of activations */
    bool backward;
} workload;

enum { MARKS = 2, FETCHES = 2, STAMPS = 512 };

/* Parts of an optimizer step, in the order in which a pair comes through them. */
typedef enum step_part {
    PART_DATA,      /* rows to a pack, and the pack to the device */
    PART_REFERENCE, /* forward pass and head of a reference in memory */
    PART_FORWARD,
    PART_HEAD, /* both ways, but for the loss */
    PART_LOSS,
    PART_BACKWARD,
    PART_REDUCE,    /* gradients of all ranks */
    PART_OPTIMIZER, /* norm, clipping, weights, and gradients back to 0 */
    STEP_PARTS
} step_part;

/* Who is told where a step comes to another part: see backend_part(). */
typedef struct part_follower {
    cudpo_status (*at)(void *context, step_part part); /* NULL: nobody */
    void *context;
} part_follower;

typedef struct backend backend;
struct backend {
    const char *name;
    const char *description;    /* for people: which device it is */
    size_t memory;              /* bytes of the device, whoever holds them; 0: unknown */
    size_t cache;               /* bytes of its largest cache; 0: unknown */
    void (*close)(backend *be); /* NULL is fine */
    bool
        on_device; /* float tensors may be bf16 too; indices are not checked before an op, but kept in bounds by it */

    /* Memory.  copy_in may return before the copy is done, but host_src may be changed; copy_out waits for everything queued so far. */
    cudpo_status (*alloc)(backend *be, void **out,
                          size_t bytes);     /* 64-byte aligned, content undefined */
    void (*free)(backend *be, void *memory); /* NULL is fine */
    cudpo_status (*copy_in)(backend *be, void *dst, const void *host_src, size_t bytes);
    cudpo_status (*copy_out)(backend *be, void *host_dst, const void *src, size_t bytes);
    /* Bytes that alloc() can still give; 0: unknown. */
    cudpo_status (*available_memory)(backend *be, size_t *bytes);
    /* Bytes that ops need beside their tensors; reserve() allocates them, so that no op has to. */
    size_t (*working_memory)(backend *be, const workload *most);
    cudpo_status (*reserve)(backend *be, const workload *most);
    cudpo_status (*copy)(backend *be, tensor dst,
                         tensor src); /* same shape and type, strides may differ */
    cudpo_status (*zero)(backend *be, tensor t);
    cudpo_status (*sync)(backend *be);
    /* Results without waiting for each: `host`, of host_alloc(), holds a copy of src once wait() has returned for a mark()
     * that was set behind copy_out_later().  There are MARKS of them; a mark that is set again is forgotten before. */
    cudpo_status (*host_alloc)(backend *be, void **out, size_t bytes);
    void (*host_free)(backend *be, void *memory); /* NULL is fine */
    cudpo_status (*copy_out_later)(backend *be, void *host, const void *src, size_t bytes);
    cudpo_status (*mark)(backend *be, int mark);
    cudpo_status (*wait)(backend *be, int mark);
    /* Copies beside the ops: fetch() begins to copy `host`, of host_alloc(), to dst once all ops that were enqueued before
     * it are done; ops that are enqueued after arrived() of the same slot find the copy there.  dst and host are the
     * fetch's until an op behind arrived() is done.  Of FETCHES slots each is one fetch, its last. */
    cudpo_status (*fetch)(backend *be, int slot, void *dst, const void *host, size_t bytes);
    cudpo_status (*arrived)(backend *be, int slot);
    /* The device's clock: stamp() reads it behind everything enqueued so far, into one of STAMPS slots; elapsed() waits for
     * both of its stamps, which were set. */
    cudpo_status (*stamp)(backend *be, int slot);
    cudpo_status (*elapsed)(backend *be, double *seconds, int from, int to);
    /* Names for what is enqueued in between, as a profiler shows it: nested, so the last range that was begun ends first.
     * Where no profiler is attached they do nothing. */
    void (*range_begin)(backend *be, const char *name);
    void (*range_end)(backend *be);
    part_follower follower;
    /* What an op chooses by measurement may differ in its bits: recall() takes what keep() left in a file, if there is one,
     * before anything is measured; from keep() on all that was and is chosen is kept there.  A file that can't be read or
     * written is a warning. */
    cudpo_status (*recall)(backend *be, const char *path);
    cudpo_status (*keep)(backend *be, const char *path);
    /* FAULT_* bits that ops have set since the last call (a CPU refuses instead: 0); waits. */
    cudpo_status (*faults)(backend *be, uint32_t *bits);

    /* c [M,N] = op(a) op(b) + beta * c, with op(a) [M,K], op(b) [K,N]; op transposes where the flag is set.
     * beta is 0 (c may hold anything, NaN too) or 1. */
    cudpo_status (*gemm)(backend *be, tensor c, tensor a, bool transpose_a, tensor b,
                         bool transpose_b, float beta);

    /* x [T,C] = table[token]   table [V,C], token [T] i32 in 0 .. V-1.
     * Backward: dtable[token] += dx, tokens in order. */
    cudpo_status (*embed)(backend *be, tensor x, tensor table, tensor token);
    cudpo_status (*embed_backward)(backend *be, tensor dtable, tensor dx, tensor token);

    /* sum [T,C] = x [T,C] + branch [T,C] (branch absent: sum = x);  rstd [T] = (mean(sum^2) + epsilon)^-1/2;
     * y [T,C] = sum * rstd * w [1,C].  sum may be the same tensor as x (then nothing is copied where branch is absent).
     * Source: Zhang and Sennrich 2019; the residual sum is fused because both are bound by memory.
     * Backward: dx [T,C] += d(y)/d(x) of dy, dw [1,C] += ..; dx holds the gradient of the residual stream, so it
     * accumulates.  x is what the forward pass called sum. */
    cudpo_status (*add_rmsnorm)(backend *be, tensor y, tensor rstd, tensor sum, tensor x,
                                tensor branch, tensor w, float epsilon);
    cudpo_status (*rmsnorm_backward)(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                     tensor rstd, tensor w);
    /* y = x * rstd * w once more, for a backward pass that did not keep y. */
    cudpo_status (*rmsnorm_again)(backend *be, tensor y, tensor x, tensor rstd, tensor w);

    /* RMSNorm of each head alone (Qwen3's q and k norms): x [T, n*D] viewed as n heads of D = w.cols, w [1,D],
     * rstd [T, n].  y and x may be strided views; they do not alias.
     * Backward: dx [T, n*D] = .., dw [1,D] += ..; dx may be the same view as dy. */
    cudpo_status (*head_norm)(backend *be, tensor y, tensor rstd, tensor x, tensor w,
                              float epsilon);
    cudpo_status (*head_norm_backward)(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                       tensor rstd, tensor w);

    /* x [T,N] += bias [1,N].   Backward: dbias [1,N] += sum over rows of dx [T,N]. */
    cudpo_status (*bias_add)(backend *be, tensor x, tensor bias);
    cudpo_status (*bias_backward)(backend *be, tensor dbias, tensor dx);

    /* out [T,C] = x [T,C], rounded to out's type; either f32 or bf16. */
    cudpo_status (*cast)(backend *be, tensor out, tensor x);

    /* x [T,C] += y [T,C]. */
    cudpo_status (*add)(backend *be, tensor x, tensor y);

    /* Rotary embedding of every head of x [T, n*D] in place, "rotate half": with c = cosine[position][j],
     * s = sine[position][j], j < D/2:  (a, b) = (x[j], x[j + D/2])  ->  (a c - b s, b c + a s).
     * cosine, sine [positions, D/2] f32, position [T] i32.  inverse: s -> -s, which is also the backward pass. */
    cudpo_status (*rope)(backend *be, tensor x, tensor cosine, tensor sine, tensor position,
                         int head_dim, bool inverse);

    /* Attention over a pack.  qkv [T, Q+2KV] holds q, k, v side by side; segments [N,4] i32; out [T,Q];
     * lse [T,H] f32, the log-sum-exp of the scaled scores of each query (kept for the backward pass).
     * The query at index i of a segment sees its prompt's keys and keys 0 .. i of its own segment, window permitting;
     * distances are in positions, where a completion starts at position prompt_length.
     * wanted [U] i32, ascending: the tokens that ask; every token is a key all the same.  Absent: all ask.  The out and
     * lse of those that do not are undefined.
     * Backward: dqkv [T, Q+2KV] = ..; dout [T,Q] is the gradient of out, 0 for those that do not ask. */
    cudpo_status (*attention)(backend *be, tensor out, tensor lse, tensor qkv, tensor segments,
                              tensor wanted, attention_shape shape);
    cudpo_status (*attention_backward)(backend *be, tensor dqkv, tensor dout, tensor qkv,
                                       tensor out, tensor lse, tensor segments, tensor wanted,
                                       attention_shape shape);

    /* Decoding.  cache_store: k_cache[slot[t]] = k of token t, v_cache[slot[t]] = v of token t; qkv [T, Q+2KV],
     * slot [T] i32 a row of the caches [M, KV].
     * attention_cached: one query for each of B sequences, whose keys are rows first[b] .. first[b]+length[b]-1 of
     * the caches, its own last; qkv [B, Q+2KV], of which only q is read; out [B,Q]; first, length [B] i32. */
    cudpo_status (*cache_store)(backend *be, tensor k_cache, tensor v_cache, tensor qkv,
                                tensor slot, attention_shape shape);
    cudpo_status (*attention_cached)(backend *be, tensor out, tensor qkv, tensor k_cache,
                                     tensor v_cache, tensor first, tensor length,
                                     attention_shape shape);

    /* act [T,F] = silu(gate) * up, gate_up [T,2F] holds gate and up side by side.
     * Backward: dgate_up [T,2F] = ..; also act = silu(gate) * up again, where act is present.  dgate_up may be the same
     * tensor as gate_up, and act the same as dact. */
    cudpo_status (*swiglu)(backend *be, tensor act, tensor gate_up);
    cudpo_status (*swiglu_backward)(backend *be, tensor dgate_up, tensor act, tensor dact,
                                    tensor gate_up);

    /* out [R,C] = x[index]   x [T,C], index [R] i32.
     * Backward: dx [T,C] = 0, then dx[index[r]] += scale[r] * drow[r], r in order; scale [R] f32, absent: 1. */
    cudpo_status (*gather_rows)(backend *be, tensor out, tensor x, tensor index);
    cudpo_status (*scatter_rows)(backend *be, tensor dx, tensor drow, tensor index, tensor scale);
    /* x [R,C] *= scale [R] f32, row by row. */
    cudpo_status (*scale_rows)(backend *be, tensor x, tensor scale);

    /* Log-probs of labels, and softmax - onehot in place of the logits, which is -d(logp)/d(logits): see
     * logprob_tensors.  Each row is read once; all sums in fp32 or wider. */
    cudpo_status (*token_logprob)(backend *be, const logprob_tensors *rows, bool gradient);

    /* out [S,n] = sums of x [R,n] f32 over rows begin[s] .. begin[s+1]-1, in double, in order; begin [S+1] i32. */
    cudpo_status (*segment_sum)(backend *be, tensor out, tensor x, tensor begin);

    /* kl [n] = max(0, mean of policy - reference) over the `batch` consecutive units that each stands among, of which the
     * last may be fewer; policy, reference, kl [n] f32.  The sum is double, in order.  NaN comes through. */
    cudpo_status (*kl_estimate)(backend *be, tensor kl, tensor policy, tensor reference,
                                int64_t batch);

    /* From sequence scores to loss, metrics and coefficients: see preference/loss.h. */
    cudpo_status (*preference_loss)(backend *be, const struct loss_outputs *out,
                                    const struct loss_inputs *in,
                                    const struct loss_parameters *parameters);
    /* row [R] f32 = -coefficient[sequence[r]] * scale[r]: what token_logprob's gradient rows are scaled with.
     * coefficient [S] f32, sequence [R] i32, scale [R] f32 as token_logprob left it. */
    cudpo_status (*row_coefficients)(backend *be, tensor row, tensor coefficient, tensor sequence,
                                     tensor scale);

    /* *host_out = sum of squares of g, in double; waits for the stream.  NaN and Inf come through. */
    cudpo_status (*sum_squares)(backend *be, double *host_out, tensor g);

    /* norm [1] f32 of a gradient, and factor [1] f32 = min(1, max_norm / (norm + 1e-6)), 1 where max_norm is 0; NaN where the
     * norm is no finite float. */
    cudpo_status (*clip)(backend *be, tensor norm, tensor factor, tensor gradient, float max_norm);

    /* w, m, v after one step on gradient * factor; see adamw_tensors.  The CPU knows f32 alone. */
    cudpo_status (*adamw)(backend *be, const adamw_tensors *tensors, adamw_step step);

    /* Stages of an op that is not fused: what benchmarks compare with.  map: out [R,C] = f(a, b, k), see map_function; a, b
     * [R or a divisor of it, C or 1], and broadcast; b absent where f takes one; out may be a or b itself.
     * reduce: out [R,1] f32 over the columns of a [R,C], or out [G,C] f32 over runs of R / G rows: sums, or the largest. */
    cudpo_status (*map)(backend *be, tensor out, map_function f, tensor a, tensor b, float k);
    cudpo_status (*reduce)(backend *be, tensor out, tensor a, bool largest);
};

/** What is enqueued from here on is of that part of a step. */
CUDPO_MUST_USE static inline cudpo_status backend_part(const backend *be, step_part part)
{
    return be->follower.at == NULL ? CUDPO_OK : be->follower.at(be->follower.context, part);
}

/** The CPU backend: host memory, OpenBLAS, OpenMP.  Complete, and the oracle of every other. */
backend *backend_cpu(void);

#endif /* CUDPO_BACKEND_H */
