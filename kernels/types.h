/* types.h - what ops take beside tensors, the same for every backend. */
#ifndef CUDPO_KERNELS_TYPES_H
#define CUDPO_KERNELS_TYPES_H

#include "tensor/tensor.h"

#include <stdbool.h>
#include <stdint.h>

/* Bits of a fault word. */
enum {
    FAULT_TOKEN = 1,      /* a token outside of the embedding table */
    FAULT_LABEL = 2,      /* a label outside of the vocabulary */
    FAULT_INDEX = 4,      /* a row, position or sequence index out of range */
    FAULT_SEGMENT = 8,    /* segments that do not tile the pack */
    FAULT_NONFINITE = 16, /* a NaN or an Inf where finite numbers were expected */
    FAULT_PLAN = 32       /* attention by a plan that was made for another pack or shape */
};

/* A segment is a run of tokens of one pack that attend to the same things: a prompt (its own tokens, causally) or a
 * completion (all of its group's prompt, and its own tokens causally).  In a [N,4] i32 tensor, row n is
 *     begin, length, prompt_begin, prompt_length        (token indices of the pack; prompt_length 0: none)
 * A prompt comes before its completions, they follow it directly and in order; segments do not overlap and every
 * token of the pack is in exactly one.  A completion whose group has no prompt is a segment with prompt_length 0. */
enum { SEGMENT_BEGIN, SEGMENT_LENGTH, SEGMENT_PROMPT_BEGIN, SEGMENT_PROMPT_LENGTH, SEGMENT_FIELDS };

/* What attention needs to know beside its tensors. */
typedef struct attention_shape {
    int heads, kv_heads, head_dim; /* heads is a multiple of kv_heads */
    int window;                    /* a query sees keys less than `window` positions back; 0: all */
    float scale;                   /* of the scores: usually 1 / sqrt(head_dim) */
} attention_shape;

/* Statistics of a row of logits z with p = softmax(z), in a [R,ROW_STATS] f32 tensor. */
enum { STAT_MEAN_LOGIT, STAT_ENTROPY, STAT_HIT, STAT_SUM_P2, ROW_STATS };
/* mean of z; -sum p log p (nats); 1 where the first largest logit is the label, else 0; sum of p^2 */

/* One step of AdamW (Loshchilov and Hutter 2019, as torch.optim.AdamW computes it). */
typedef struct adamw_step {
    /* double: 1 - 0.999f is off by 1e-5 */
    double learning_rate, beta1, beta2, epsilon, weight_decay;
    double bias_correction1, bias_correction2; /* 1 - beta^t, t = 1 for the first step */
} adamw_step;

/* What AdamW works on; all have one shape.  Master weights: w is f32 and `copy`, where present, becomes its bf16 rounding.
 * Without master weights: w is bf16 and rounds stochastically, by a number that (seed, step, element + first) decides. */
typedef struct adamw_tensors {
    tensor w, m, v;  /* w f32 or bf16; moments f32; in-out */
    tensor copy;     /* bf16 out, or absent */
    tensor gradient; /* f32 or bf16 */
    float factor;    /* on the gradient */
    tensor
        gradient_scale; /* [1] f32 a further factor on it, or absent: 1.  Not finite: nothing is written */
    uint64_t seed, step;
    int64_t first; /* number of w's first element among all weights: the key of its rounding */
} adamw_tensors;

/* The score rows that one pass over the logits reads and writes.
 * With a gradient, logits become s * (softmax(logits) - onehot(label)) with a factor s > 0 of each row, and `scale` is 1 / s:
 * a row is written before all of it was read, so its sum is not known yet, and whoever scales rows anyway multiplies.
 * f32 logits with a bf16 gradient: row r's gradient is in the first half of its logits, [R,V] bf16 of twice their stride. */
typedef struct logprob_tensors {
    tensor logp;                             /* [R] f32 out: log softmax(logits)[label], nats */
    tensor stats;                            /* [R,ROW_STATS] f32 out, or absent */
    tensor scale;                            /* [R] f32 out; absent without a gradient */
    tensor logits;                           /* [R,V]; in-out with a gradient */
    tensor label;                            /* [R] i32 in 0 .. V-1 */
    tensor reference_logp, reference_logits; /* [R] f32 out, [R,V] in: both or neither */
    dtype gradient_type;                     /* of what is written over the logits */
} logprob_tensors;

/* A stage of an expression: out = f(a, b, k), element by element, r and c its place.  What an op is made of where nothing
 * is fused: benchmarks compare with that. */
typedef enum map_function {
    MAP_COPY, /* a */
    MAP_ADD,
    MAP_SUBTRACT, /* a - b */
    MAP_MULTIPLY,
    MAP_DIVIDE, /* a / b */
    MAP_SCALE,  /* k a */
    MAP_SHIFT,  /* a + k */
    MAP_EXP,
    MAP_LOG,
    MAP_SQRT,
    MAP_SIGMOID,
    MAP_ONEHOT, /* a - 1 where c is b[r], else a; b [R,1] i32, of any value */
    MAP_CAUSAL, /* a where c - r <= k, else -Inf */
    MAP_FUNCTIONS
} map_function;

static inline bool map_takes_two(map_function f)
{
    return f >= MAP_ADD && f <= MAP_DIVIDE;
}

#endif /* CUDPO_KERNELS_TYPES_H */
