/* memory.c - the most that ops of a workload ask for.  Built into the plugin and, for plans, into the program. */
#include "backend/cuda/memory.h"
#include "kernels/sizes.h"

#define LARGE_SCRATCH ((size_t)3 << 30) /* bytes; more hardly saves launches */

size_t cuda_large_scratch(size_t memory)
{
    return memory / 16 < LARGE_SCRATCH ? memory / 16 : LARGE_SCRATCH;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The most that packs of up to T tokens and as many segments take with n kv heads at a time.  A shorter one may take more:
 * it has fewer blocks, and so more shares of dk and dv.  Tiles are of 64 tokens or multiples of that. */
static size_t most_bytes(int64_t T, int64_t segments, attention_shape s, dtype type, int n)
{
    size_t most = attention_backward_bytes(T, segments, s, type, n);
    for (int64_t t = 64; t < T; t += 64)
        most = larger(most, attention_backward_bytes(t, segments, s, type, n));
    return most;
}

/* What is reserved for the largest pack serves all smaller ones. */
size_t cuda_attention_bytes(size_t large_scratch, const workload *m)
{
    const size_t plan = plan_bytes(m->tokens, m->segments);
    const attention_shape s = m->attention;
    if (!m->backward) return plan;
    const size_t least = most_bytes(m->tokens, m->segments, s, m->type, 1);
    const size_t most = most_bytes(m->tokens, m->segments, s, m->type, s.kv_heads);
    if (most <= large_scratch) return plan + most;
    return plan + larger(least, large_scratch);
}

size_t cuda_working_bytes(size_t large_scratch, const workload *m)
{
    size_t bytes = cuda_attention_bytes(large_scratch, m);
    if (!m->backward) return bytes;
    bytes = larger(bytes, norm_bytes(m->tokens, m->width));
    bytes = larger(bytes, head_norm_bytes(m->tokens, m->attention.heads, m->attention.head_dim));
    bytes = larger(bytes, bias_bytes(m->tokens, m->width));
    bytes = larger(bytes, order_bytes(m->tokens));
    bytes = larger(bytes, order_bytes(m->rows > m->tokens ? m->rows : m->tokens));
    return larger(bytes, sum_squares_bytes() + sizeof(double));
}
