/* test_ends.h - tensors that end where their memory does: there ASan and compute-sanitizer see a read beyond, which the
 * guards of test_ops.h would allow. */
#ifndef CUDPO_TEST_ENDS_H
#define CUDPO_TEST_ENDS_H

#include "test_ops.h"

/* Dense, and to be freed by the caller. */
static inline tensor ends_make(backend *be, dtype type, int64_t rows, int64_t cols,
                               const float *host)
{
    ops o = ops_begin(be);
    void *memory = NULL;
    CHECK_OK(be->alloc(be, &memory, (size_t)(rows * cols) * dtype_size(type)));
    const tensor t = tensor_matrix(memory, type, rows, cols);
    ops_put_floats(&o, t, host);
    return t;
}

#endif /* CUDPO_TEST_ENDS_H */
