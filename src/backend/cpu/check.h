/* check.h - the shapes, types and index ranges that the CPU ops ask of their tensors. */
#ifndef CUDPO_BACKEND_CPU_CHECK_H
#define CUDPO_BACKEND_CPU_CHECK_H

#include "tensor/tensor.h"

#include <math.h>

static inline bool is_f32(tensor t, int64_t rows, int64_t cols)
{
    return tensor_is(t, DTYPE_F32, rows, cols);
}

static inline bool is_i32(tensor t, int64_t rows, int64_t cols)
{
    return tensor_is(t, DTYPE_I32, rows, cols);
}

/* A float matrix of any shape. */
static inline bool is_matrix(tensor t)
{
    return t.rows >= 0 && t.cols >= 1 && is_f32(t, t.rows, t.cols);
}

/* Of one shape. */
static inline bool is_like(tensor t, tensor other)
{
    return is_f32(t, other.rows, other.cols);
}

/* One matrix, not two that overlap. */
static inline bool is_same(tensor a, tensor b)
{
    return a.data == b.data && a.stride == b.stride;
}

/* [N] i32, every one of them in 0 .. limit-1. */
static inline bool is_index(tensor t, int64_t n, int64_t limit)
{
    if (!is_i32(t, n, 1)) return false;
    for (int64_t i = 0; i < n; i++) {
        const int32_t value = tensor_i32(t)[i * t.stride];
        if (value < 0 || value >= limit) return false;
    }
    return true;
}

static inline float *row_of(tensor t, int64_t r)
{
    return tensor_f32(t) + r * t.stride;
}

static inline int32_t index_of(tensor t, int64_t r)
{
    return tensor_i32(t)[r * t.stride];
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif /* CUDPO_BACKEND_CPU_CHECK_H */
