/* check.h - what launchers ask of their tensors before anything is written, and how they report a launch. */
#ifndef CUDPO_KERNELS_CHECK_H
#define CUDPO_KERNELS_CHECK_H

#include "device.h"
#include "kernels.h"
#include "sizes.h"
#include "tensor/tensor.h"

#include <cmath>
#include <cstdlib>

/* Of that type and shape, its elements on their natural boundary, and no more of them than 64 bits can count. */
static inline bool is_typed(tensor t, dtype type, int64_t rows, int64_t cols)
{
    return tensor_is(t, type, rows, cols) && (uintptr_t)t.data % dtype_size(type) == 0 &&
           (rows == 0 || t.stride <= INT64_MAX / 16 / rows);
}

/* Of type float32 or bfloat16. */
static inline bool is_float(tensor t, int64_t rows, int64_t cols)
{
    return (t.type == DTYPE_F32 || t.type == DTYPE_BF16) && is_typed(t, t.type, rows, cols);
}

/* A float matrix of any shape. */
static inline bool is_matrix(tensor t)
{
    return t.rows >= 0 && t.cols >= 1 && is_float(t, t.rows, t.cols);
}

/* Of one type and shape. */
static inline bool is_like(tensor t, tensor other)
{
    return t.type == other.type && is_float(t, other.rows, other.cols);
}

static inline bool is_f32(tensor t, int64_t rows, int64_t cols)
{
    return is_typed(t, DTYPE_F32, rows, cols);
}

static inline bool is_i32(tensor t, int64_t rows, int64_t cols)
{
    return is_typed(t, DTYPE_I32, rows, cols);
}

/* Absent, or one word that faults are reported in. */
static inline bool is_fault(tensor t)
{
    return !tensor_present(t) || is_i32(t, 1, 1);
}

/* A dense tensor as one row, so that vectors may cross the ends of its rows. */
static inline tensor flat(tensor t)
{
    return tensor_matrix(t.data, t.type, 1, t.rows * t.cols);
}

/* The same of two whose elements belong together, where both are dense. */
static inline void flatten(tensor *a, tensor *b)
{
    if (!tensor_dense(*a) || !tensor_dense(*b)) return;
    *a = flat(*a);
    *b = flat(*b);
}

/* Every row starts on a 16-byte boundary and holds whole 16-byte vectors. */
static inline bool is_vectorisable(tensor t)
{
    const size_t size = dtype_size(t.type);
    return (uintptr_t)t.data % 16 == 0 && (t.rows <= 1 || (size_t)t.stride * size % 16 == 0) &&
           (size_t)t.cols * size % 16 == 0;
}

/* Room for that many bytes (none: nothing). */
static inline bool is_scratch(scratch s, size_t bytes)
{
    return bytes == 0 || (s.data != NULL && (uintptr_t)s.data % 16 == 0 && s.bytes >= bytes);
}

/* The first `bytes` of scratch and a tensor have no byte in common. */
static inline bool is_apart(scratch s, size_t bytes, tensor t)
{
    const int64_t halves = (int64_t)((bytes + 1) / 2);
    return bytes == 0 || tensor_disjoint(tensor_matrix(s.data, DTYPE_BF16, 1, halves), t);
}

/* Blocks for n units of work, `each` a block; the x dimension of a grid ends at 2^31 - 1. */
static inline unsigned blocks_for(int64_t n, int64_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* What became of a launch; with $CUDPO_SYNC, what became of the kernel, so that the op that failed is the one that says so. */
static inline cudpo_status launch_status(const char *where)
{
    const bool sync = getenv("CUDPO_SYNC") != NULL;
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess && sync) error = cudaDeviceSynchronize();
    if (error == cudaSuccess) return CUDPO_OK;
    return cudpo_fail(
        CUDPO_EDEVICE, where, "%s: %s%s", cudaGetErrorName(error), cudaGetErrorString(error),
        sync ? "" : "; the op that failed may be an earlier one: CUDPO_SYNC=1 names it");
}
#define LAUNCHED() launch_status(CUDPO_HERE)

/* Calls for the element type of a float tensor: T is float or bf16 inside.
 *     FLOAT_TYPE(x.type, T, { LAUNCH((kernel<T>), ...); }); */
#define FLOAT_TYPE(type, T, ...)   \
    do {                           \
        if ((type) == DTYPE_F32) { \
            typedef float T;       \
            __VA_ARGS__            \
        } else {                   \
            typedef bf16 T;        \
            __VA_ARGS__            \
        }                          \
    } while (0)

#endif /* CUDPO_KERNELS_CHECK_H */
