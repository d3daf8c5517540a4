/* peak.c - a large product, as fast as the backend does it. */
#include "bench/peak.h"
#include "base/rng.h"
#include "model/half.h"

#include <stdlib.h>

enum {
    SMALLEST = 512,
    LARGEST = 8192,  /* 1.1e12 operations: a millisecond of the fastest GPU */
    CHUNK = 1 << 18, /* random values, again and again */
    WARM_UP = 3,
    TRIES = 7
};

/* Seconds of a product: launches and caches are no matter then; it would take too long to try a larger one.  Of all tries of
 * one size: where they are long, two say as much as many short ones. */
static const double long_enough = 5e-3, too_long = 0.1, all_tries = 0.5;
#define GAIN 1.05 /* of a size over the one before, or it is as fast as it gets */

/* Values of mean 0: products of zeros, or of small numbers, take less power and so less time. */
static cudpo_status fill(backend *be, tensor t, uint64_t stream)
{
    const size_t size = dtype_size(t.type);
    char *chunk = malloc(CHUNK * sizeof(float));
    cudpo_status status = CUDPO_OK;
    if (chunk == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "chunk");
    for (int64_t i = 0; i < CHUNK; i++) {
        const float value = (float)(2.0 * rng_uniform(1, stream, (uint64_t)i) - 1.0);
        if (t.type == DTYPE_F32)
            ((float *)(void *)chunk)[i] = value;
        else
            ((uint16_t *)(void *)chunk)[i] = bf16_from_float(value);
    }
    const int64_t all = t.rows * t.cols;
    for (int64_t at = 0; at < all && status == CUDPO_OK; at += CHUNK)
        status = be->copy_in(be, (char *)t.data + (size_t)at * size, chunk, CHUNK * size);
    if (status == CUDPO_OK) status = be->sync(be); /* copy_in may still be reading */
    free(chunk);
    return status;
}

/* Least seconds of c = a b. */
static cudpo_status time_product(double *least, backend *be, tensor c, tensor a, tensor b)
{
    double sum = 0.0;
    int tries = 0;
    *least = 0.0;
    for (int i = 0; tries < TRIES && (tries < 2 || sum < all_tries); i++) {
        double seconds = 0.0;
        CUDPO_TRY(be->stamp(be, 0));
        CUDPO_TRY(be->gemm(be, c, a, false, b, true, 0.0f));
        CUDPO_TRY(be->stamp(be, 1));
        CUDPO_TRY(be->elapsed(be, &seconds, 0, 1));
        sum += seconds;
        if (i < WARM_UP && sum < all_tries / 2) continue;
        if (tries++ == 0 || seconds < *least) *least = seconds;
    }
    return CUDPO_OK;
}

static cudpo_status time_size(double *seconds, backend *be, dtype type, int64_t n)
{
    const size_t bytes = (size_t)(n * n) * dtype_size(type);
    void *memory = NULL;
    CUDPO_TRY(be->alloc(be, &memory, 3 * bytes));
    const tensor a = tensor_matrix(memory, type, n, n);
    const tensor b = tensor_matrix((char *)memory + bytes, type, n, n);
    const tensor c = tensor_matrix((char *)memory + 2 * bytes, type, n, n);
    cudpo_status status = fill(be, a, 0);
    if (status == CUDPO_OK) status = fill(be, b, 1);
    if (status == CUDPO_OK) status = time_product(seconds, be, c, a, b);
    be->free(be, memory);
    return status;
}

cudpo_status bench_product_peak(double *rate, int64_t *size, backend *be, dtype type)
{
    *rate = 0.0;
    *size = 0;
    for (int64_t n = SMALLEST; n <= LARGEST; n *= 2) {
        double seconds = 0.0;
        CUDPO_TRY(time_size(&seconds, be, type, n));
        const double reached = 2.0 * (double)n * (double)n * (double)n / seconds;
        const bool faster = reached > GAIN * *rate;
        if (reached > *rate) {
            *rate = reached;
            *size = n;
        }
        if (seconds >= long_enough && (!faster || seconds >= too_long)) break;
    }
    return CUDPO_OK;
}
