/* tensor.c - views and sizes. */
#include "tensor/tensor.h"

#include <assert.h>

size_t dtype_size(dtype type)
{
    static const size_t sizes[] = {4, 2, 2, 4, 8};
    return sizes[type];
}

const char *dtype_name(dtype type)
{
    static const char *const names[] = {"float32", "bfloat16", "float16", "int32", "float64"};
    return names[type];
}

tensor tensor_matrix(void *data, dtype type, int64_t rows, int64_t cols)
{
    return (tensor){data, rows, cols, cols, type};
}

tensor tensor_vector(void *data, dtype type, int64_t n)
{
    return (tensor){data, n, 1, 1, type};
}

tensor tensor_rows(tensor t, int64_t begin, int64_t n)
{
    assert(begin >= 0 && n >= 0 && begin + n <= t.rows);
    t.data = (char *)t.data + (size_t)(begin * t.stride) * dtype_size(t.type);
    t.rows = n;
    return t;
}

tensor tensor_cols(tensor t, int64_t begin, int64_t n)
{
    assert(begin >= 0 && n >= 0 && begin + n <= t.cols);
    t.data = (char *)t.data + (size_t)begin * dtype_size(t.type);
    t.cols = n;
    return t;
}

bool tensor_present(tensor t)
{
    return t.data != NULL;
}

bool tensor_is(tensor t, dtype type, int64_t rows, int64_t cols)
{
    return t.data != NULL && t.type == type && t.rows == rows && t.cols == cols && t.stride >= cols;
}

bool tensor_dense(tensor t)
{
    return t.stride == t.cols || t.rows == 1;
}

int64_t tensor_elements(tensor t)
{
    return t.rows * t.cols;
}

size_t tensor_bytes(tensor t)
{
    return (size_t)tensor_elements(t) * dtype_size(t.type);
}

/* Bytes from the first element to the last. */
static size_t extent(tensor t)
{
    if (t.rows <= 0 || t.cols <= 0) return 0;
    return (size_t)((t.rows - 1) * t.stride + t.cols) * dtype_size(t.type);
}

bool tensor_disjoint(tensor a, tensor b)
{
    const uintptr_t x = (uintptr_t)a.data, y = (uintptr_t)b.data;
    if (!tensor_present(a) || !tensor_present(b)) return true;
    if (extent(a) == 0 || extent(b) == 0) return true;
    if (x + extent(a) <= y || y + extent(b) <= x) return true;
    const size_t row = (size_t)a.stride * dtype_size(a.type);
    if (row != (size_t)b.stride * dtype_size(b.type) || row == 0) return false;
    const size_t wide_a = (size_t)a.cols * dtype_size(a.type);
    const size_t wide_b = (size_t)b.cols * dtype_size(b.type);
    const size_t ahead = /* of b's column in a's row */
        x <= y ? (y - x) % row : row - (x - y) % row;
    return ahead % row >= wide_a && ahead % row + wide_b <= row;
}

float *tensor_f32(tensor t)
{
    assert(t.type == DTYPE_F32);
    return t.data;
}

int32_t *tensor_i32(tensor t)
{
    assert(t.type == DTYPE_I32);
    return t.data;
}
