/* tensor.h - a matrix somewhere in a backend's memory: element type, shape, pointer; no arithmetic. */
#ifndef CUDPO_TENSOR_H
#define CUDPO_TENSOR_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dtype {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_I32,
    DTYPE_F64,
} dtype;

size_t dtype_size(dtype type);      /* bytes of one element */
const char *dtype_name(dtype type); /* "float32", "bfloat16", ...: transformers' names */

/* Row-major: element (r, c) is data[r * stride + c].  A vector [N] has rows = N, cols = 1, stride = 1.
 * A tensor is a value and owns nothing: copy it, pass it, cut views from it.  {0} is "none". */
typedef struct tensor {
    void *data;
    int64_t rows, cols, stride;
    dtype type;
} tensor;

tensor tensor_matrix(void *data, dtype type, int64_t rows, int64_t cols); /* dense */
tensor tensor_vector(void *data, dtype type, int64_t n);
tensor tensor_rows(tensor t, int64_t begin, int64_t n); /* rows begin .. begin+n-1 */
tensor tensor_cols(tensor t, int64_t begin, int64_t n); /* a strided view */

bool tensor_present(tensor t);
bool tensor_is(tensor t, dtype type, int64_t rows, int64_t cols); /* present, and exactly this */
bool tensor_dense(tensor t);
int64_t tensor_elements(tensor t);
size_t tensor_bytes(tensor t); /* of a dense tensor */

/* No byte of one lies between the first and the last byte of the other; so does nothing of a tensor without elements.
 * Interleaved views (columns of one matrix) count as disjoint where their columns are. */
bool tensor_disjoint(tensor a, tensor b);

/* The elements, whose type must match (assert). */
float *tensor_f32(tensor t);
int32_t *tensor_i32(tensor t);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_TENSOR_H */
