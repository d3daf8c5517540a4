/* attention.c - attention: a plan of the pack's tiles, then the kernels that follow it. */
#include "backend/cuda/memory.h"
#include "backend/cuda/ops.h"
#include "kernels/sizes.h"

static cuda_backend *of(backend *be)
{
    return (cuda_backend *)be;
}

/* The plan at the beginning of scratch, with `more` bytes behind it. */
static cudpo_status make_plan(tensor *plan, scratch *rest, cuda_backend *be, tensor segments,
                              tensor wanted, int64_t T, attention_shape shape, size_t more)
{
    const size_t bytes = plan_bytes(T, segments.rows);
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, be, bytes + more));
    *plan = tensor_vector(s.data, DTYPE_I32, cuda_attention_plan_words(T, segments.rows));
    *rest = (scratch){(char *)s.data + bytes, s.bytes - bytes};
    return cuda_attention_plan(*plan, segments, wanted, T, shape, be->fault, be->stream);
}

/* Of the backward pass with as many kv heads at a time as fit `limit`, one at least: the fewer, the more launches. */
static size_t backward_bytes(size_t limit, int64_t T, int64_t segments, attention_shape s,
                             dtype type)
{
    size_t bytes = 0;
    for (int n = s.kv_heads; n >= 1; n = n / 2) {
        bytes = cuda_attention_backward_scratch(T, segments, s, type, n);
        if (bytes <= limit) break;
    }
    return bytes;
}

/* Bytes behind a plan that may be had without asking for more than was reserved. */
static size_t room(const cuda_backend *be, int64_t T, int64_t segments)
{
    const size_t plan = plan_bytes(T, segments);
    if (!be->reserved) return be->large_scratch;
    return be->memory.bytes > plan ? be->memory.bytes - plan : 0;
}

size_t cuda_attention_memory(const cuda_backend *be, const workload *most)
{
    return cuda_attention_bytes(be->large_scratch, most);
}

/* Is qkv what the launcher will ask for?  If not, it says so, and needs no scratch for that. */
static bool is_qkv(tensor qkv, attention_shape s)
{
    return qkv.cols == ((int64_t)s.heads + 2 * (int64_t)s.kv_heads) * s.head_dim;
}

static cudpo_status attention(backend *be, tensor out, tensor lse, tensor qkv, tensor segments,
                              tensor wanted, attention_shape shape)
{
    tensor plan;
    scratch rest;
    CUDPO_REQUIRE(tensor_disjoint(out, segments) && tensor_disjoint(out, wanted));
    CUDPO_REQUIRE(tensor_disjoint(lse, segments) && tensor_disjoint(lse, wanted));
    CUDPO_TRY(make_plan(&plan, &rest, of(be), segments, wanted, qkv.rows, shape, 0));
    return cuda_attention(out, lse, qkv, plan, shape, of(be)->fault, of(be)->stream);
}

static cudpo_status attention_backward(backend *be, tensor dqkv, tensor dout, tensor qkv,
                                       tensor out, tensor lse, tensor segments, tensor wanted,
                                       attention_shape shape)
{
    tensor plan;
    scratch rest;
    CUDPO_REQUIRE(tensor_disjoint(dqkv, segments) && tensor_disjoint(dqkv, wanted));
    const size_t bytes = is_qkv(qkv, shape)
                             ? backward_bytes(room(of(be), qkv.rows, segments.rows), qkv.rows,
                                              segments.rows, shape, qkv.type)
                             : 0;
    CUDPO_TRY(make_plan(&plan, &rest, of(be), segments, wanted, qkv.rows, shape, bytes));
    return cuda_attention_backward(dqkv, dout, qkv, out, lse, plan, shape, rest, of(be)->fault,
                                   of(be)->stream);
}

static cudpo_status cache_store(backend *be, tensor k_cache, tensor v_cache, tensor qkv,
                                tensor slot, attention_shape shape)
{
    return cuda_cache_store(k_cache, v_cache, qkv, slot, shape, of(be)->fault, of(be)->stream);
}

static cudpo_status attention_cached(backend *be, tensor out, tensor qkv, tensor k_cache,
                                     tensor v_cache, tensor first, tensor length,
                                     attention_shape shape)
{
    return cuda_attention_cached(out, qkv, k_cache, v_cache, first, length, shape, of(be)->fault,
                                 of(be)->stream);
}

void cuda_attention_install(backend *t)
{
    t->attention = attention;
    t->attention_backward = attention_backward;
    t->cache_store = cache_store;
    t->attention_cached = attention_cached;
}
