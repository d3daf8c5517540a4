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

/* An op on rows by index: a and b [5,C] of one type, each of which is an input at least once; index [5] in 0 .. 4. */
typedef void (*ends_op)(backend *be, tensor a, tensor b, tensor index);

/* Runs it at widths around quads, vectors and chunks, in every type that the backend has. */
static inline void ends_by_index(backend *be, ends_op run)
{
    static const int64_t widths[] = {4, 5, 8, 31, 124, 129, 252, 260, 516};
    enum { T = 5 };
    static const int32_t row[T] = {2, 0, 2, 1, 4};
    float *host = random_floats(1, T * 516);
    for (int i = 0; i < 9; i++) {
        for (int bf16 = 0; bf16 <= (be->on_device ? 1 : 0); bf16++) {
            ops o = ops_begin(be);
            const dtype type = bf16_or_f32(bf16);
            const tensor a = ends_make(be, type, T, widths[i], host);
            const tensor b = ends_make(be, type, T, widths[i], host);
            run(be, a, b, ops_indices(&o, row, T, 1));
            CHECK_OK(be->sync(be));
            be->free(be, a.data);
            be->free(be, b.data);
            ops_end(&o);
        }
    }
    free(host);
}

#endif /* CUDPO_TEST_ENDS_H */
