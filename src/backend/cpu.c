/* cpu.c - the CPU backend: host memory, and the table of its ops. */
#include "backend/backend.h"
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };               /* a cache line, and the widest vector */
#define COPY_THREADS ((size_t)1 << 20) /* bytes that threads share */

static cudpo_status cpu_alloc(backend *be, void **out, size_t bytes)
{
    (void)be;
    CUDPO_REQUIRE(out != NULL);
    *out = NULL;
    const bool fits = bytes <= PTRDIFF_MAX - ALIGNMENT; /* no object is larger */
    if (!fits || posix_memalign(out, ALIGNMENT, bytes > 0 ? bytes : 1) != 0)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory for %zu bytes", bytes);
    return CUDPO_OK;
}

static void cpu_free(backend *be, void *memory)
{
    (void)be;
    free(memory);
}

static cudpo_status cpu_copy_bytes(backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be;
    CUDPO_REQUIRE(bytes == 0 || (dst != NULL && src != NULL));
    if (bytes > 0) memcpy(dst, src, bytes);
    return CUDPO_OK;
}

/* Rows that stand without gaps are one row. */
static tensor as_one_row(tensor t)
{
    if (tensor_dense(t)) {
        t.cols *= t.rows;
        t.rows = 1;
        t.stride = t.cols;
    }
    return t;
}

/* One core alone does not reach what the memory can give.  A piece for each, because the C library writes around the caches
 * where a piece is large. */
static void copy_bytes(char *dst, const char *src, size_t bytes)
{
    const size_t threads = bytes > COPY_THREADS ? (size_t)omp_get_max_threads() : 1;
    const size_t piece = (bytes / threads + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
#pragma omp parallel for schedule(static) if (threads > 1)
    for (size_t i = 0; i < threads; i++) {
        const size_t begin = i * piece < bytes ? i * piece : bytes, left = bytes - begin;
        memcpy(dst + begin, src + begin, left < piece ? left : piece);
    }
}

static cudpo_status cpu_copy(backend *be, tensor dst, tensor src)
{
    (void)be;
    CUDPO_REQUIRE(tensor_is(src, src.type, src.rows, src.cols));
    CUDPO_REQUIRE(tensor_is(dst, src.type, src.rows, src.cols));
    if (tensor_dense(dst) && tensor_dense(src)) {
        dst = as_one_row(dst);
        src = as_one_row(src);
    }
    const size_t size = dtype_size(src.type);
    if (src.rows == 1) {
        copy_bytes(dst.data, src.data, (size_t)src.cols * size);
        return CUDPO_OK;
    }
    for (int64_t r = 0; r < src.rows; r++) {
        memcpy((char *)dst.data + (size_t)(r * dst.stride) * size,
               (const char *)src.data + (size_t)(r * src.stride) * size, (size_t)src.cols * size);
    }
    return CUDPO_OK;
}

static cudpo_status cpu_zero(backend *be, tensor t)
{
    (void)be;
    CUDPO_REQUIRE(t.rows >= 0 && t.cols >= 0);
    CUDPO_REQUIRE(tensor_is(t, t.type, t.rows, t.cols));
    t = as_one_row(t);
    const size_t size = dtype_size(t.type);
    for (int64_t r = 0; r < t.rows; r++) {
        memset((char *)t.data + (size_t)(r * t.stride) * size, 0, (size_t)t.cols * size);
    }
    return CUDPO_OK;
}

static cudpo_status cpu_sync(backend *be)
{
    (void)be; /* every op is done when it returns */
    return CUDPO_OK;
}

static cudpo_status cpu_available_memory(backend *be, size_t *bytes)
{
    (void)be;
    *bytes = 0; /* what the system calls free is not all that it would give */
    return CUDPO_OK;
}

static size_t cpu_working_memory(backend *be, const workload *most)
{
    (void)be;
    (void)most;
    return 0; /* a few buffers for each thread */
}

static cudpo_status cpu_reserve(backend *be, const workload *most)
{
    (void)be;
    (void)most;
    return CUDPO_OK;
}

static cudpo_status cpu_mark(backend *be, int mark)
{
    (void)be;
    CUDPO_REQUIRE(mark >= 0 && mark < MARKS);
    return CUDPO_OK; /* nothing is ever under way */
}

static cudpo_status cpu_fetch(backend *be, int slot, void *dst, const void *host, size_t bytes)
{
    CUDPO_REQUIRE(slot >= 0 && slot < FETCHES);
    CUDPO_REQUIRE(bytes > 0);
    return cpu_copy_bytes(be, dst, host, bytes);
}

static cudpo_status cpu_arrived(backend *be, int slot)
{
    (void)be;
    CUDPO_REQUIRE(slot >= 0 && slot < FETCHES);
    return CUDPO_OK; /* fetch has copied */
}

static struct timespec stamps[STAMPS]; /* of the one CPU backend */

static cudpo_status cpu_stamp(backend *be, int slot)
{
    (void)be;
    CUDPO_REQUIRE(slot >= 0 && slot < STAMPS);
    clock_gettime(CLOCK_MONOTONIC, &stamps[slot]);
    return CUDPO_OK;
}

static cudpo_status cpu_elapsed(backend *be, double *seconds, int from, int to)
{
    (void)be;
    CUDPO_REQUIRE(seconds != NULL && from >= 0 && from < STAMPS && to >= 0 && to < STAMPS);
    *seconds = (double)(stamps[to].tv_sec - stamps[from].tv_sec) +
               (double)(stamps[to].tv_nsec - stamps[from].tv_nsec) * 1e-9;
    return CUDPO_OK;
}

static void cpu_range_begin(backend *be, const char *name)
{
    (void)be;
    (void)name; /* profilers of a CPU see functions */
}

static void cpu_range_end(backend *be)
{
    (void)be;
}

static cudpo_status cpu_keep(backend *be, const char *path)
{
    (void)be;
    CUDPO_REQUIRE(path != NULL);
    return CUDPO_OK; /* nothing is measured */
}

static cudpo_status cpu_faults(backend *be, uint32_t *bits)
{
    (void)be;
    *bits = 0;
    return CUDPO_OK;
}

static void cpu_close(backend *be)
{
    (void)be; /* static */
}

backend *backend_cpu(void)
{
    static backend cpu = {
        .name = "cpu",
        .description = "cpu",
        .close = cpu_close,
        .alloc = cpu_alloc,
        .free = cpu_free,
        .copy_in = cpu_copy_bytes,
        .copy_out = cpu_copy_bytes,
        .available_memory = cpu_available_memory,
        .working_memory = cpu_working_memory,
        .reserve = cpu_reserve,
        .copy = cpu_copy,
        .zero = cpu_zero,
        .sync = cpu_sync,
        .host_alloc = cpu_alloc,
        .host_free = cpu_free,
        .copy_out_later = cpu_copy_bytes,
        .mark = cpu_mark,
        .wait = cpu_mark,
        .fetch = cpu_fetch,
        .arrived = cpu_arrived,
        .stamp = cpu_stamp,
        .elapsed = cpu_elapsed,
        .range_begin = cpu_range_begin,
        .range_end = cpu_range_end,
        .recall = cpu_keep,
        .keep = cpu_keep,
        .faults = cpu_faults,
        .gemm = cpu_gemm,
        .embed = cpu_embed,
        .embed_backward = cpu_embed_backward,
        .add_rmsnorm = cpu_add_rmsnorm,
        .rmsnorm_backward = cpu_rmsnorm_backward,
        .rmsnorm_again = cpu_rmsnorm_again,
        .head_norm = cpu_head_norm,
        .head_norm_backward = cpu_head_norm_backward,
        .bias_add = cpu_bias_add,
        .bias_backward = cpu_bias_backward,
        .add = cpu_add,
        .rope = cpu_rope,
        .attention = cpu_attention,
        .attention_backward = cpu_attention_backward,
        .cache_store = cpu_cache_store,
        .attention_cached = cpu_attention_cached,
        .swiglu = cpu_swiglu,
        .swiglu_backward = cpu_swiglu_backward,
        .gather_rows = cpu_gather_rows,
        .scatter_rows = cpu_scatter_rows,
        .scale_rows = cpu_scale_rows,
        .token_logprob = cpu_token_logprob,
        .segment_sum = cpu_segment_sum,
        .kl_estimate = cpu_kl_estimate,
        .preference_loss = cpu_preference_loss,
        .row_coefficients = cpu_row_coefficients,
        .sum_squares = cpu_sum_squares,
        .clip = cpu_clip,
        .adamw = cpu_adamw,
        .cast = cpu_cast,
        .map = cpu_map,
        .reduce = cpu_reduce,
    };
    /* The ops split their work over OpenMP threads themselves and call BLAS from each: were BLAS to split it again,
     * threads would compete, and the bits would depend on their number. */
    openblas_set_num_threads(1);
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    cpu.cache = cache > 0 ? (size_t)cache : 0;
    return &cpu;
}
