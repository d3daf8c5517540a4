/* bench_ops.h - the ops that bench_kernels.c measures. */
#ifndef CUDPO_BENCH_OPS_H
#define CUDPO_BENCH_OPS_H

#include "kernels/kernels.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

enum { TENSORS = 16 };

/* One line of the table.  The op's tensors are t[0] ..; `saved` ones are restored before each call. */
typedef struct bench bench;
struct bench {
    const char *op, *shape;
    int64_t a, b, c, d; /* sizes, as `make` reads them */
    void (*make)(bench *x);
    cudpo_status (*call)(bench *x);
    double bytes, flops; /* of a call; flops 0: bound by memory */
    tensor t[TENSORS];
    void *saved[TENSORS];
    unsigned outputs; /* bit i: t[i] is compared */
    scratch s;
    attention_shape shape_of;
    bool gradient, stats;
};

extern cudaStream_t stream;
extern bench table[];
extern const int table_rows;

/* Ends the program where a call of CUDA's failed. */
void check(cudaError_t error, const char *what);

/* Device memory; a matrix of random numbers of about that deviation in it. */
void *device_bytes(size_t bytes);
void fill_random(tensor t, float scale);
tensor matrix(dtype type, int64_t rows, int64_t cols, float scale);

#endif /* CUDPO_BENCH_OPS_H */
