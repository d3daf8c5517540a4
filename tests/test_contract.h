/* test_contract.h - arguments that an op must refuse: wrong in themselves, overlapping, larger than any memory.  A call is
 * sound but for one thing, so that each condition of its contract is needed, and the text of the refusal tells which. */
#ifndef CUDPO_TEST_CONTRACT_H
#define CUDPO_TEST_CONTRACT_H

#include "test_ops.h"

/* What a contract asks of an argument, beside that it be a matrix of one of the types of activations. */
enum {
    ARG_SHAPE = 1,   /* the shape that another argument has */
    ARG_TYPE = 2,    /* one type alone */
    ARG_OPTIONAL = 4 /* or to be absent */
};

/* Makes a sound argument wrong in itself, in one of several ways.  Returns whether it is wrong for an argument of that
 * kind; boundaries, and strides that overflow, are the device's business. */
enum { WAYS_TO_BREAK = 10 };
static inline bool break_argument(tensor *t, int way, int kind, backend *be)
{
    switch (way) {
    case 0:
        t->data = NULL;
        return !(kind & ARG_OPTIONAL);
    case 1:
        t->type = t->type == DTYPE_I32 ? DTYPE_F32 : DTYPE_I32;
        return true;
    case 2:
        t->type = t->type == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32;
        return kind & ARG_TYPE;
    case 3:
        t->rows = -1;
        return true;
    case 4:
        t->cols = 0;
        return true;
    case 5:
        t->stride = t->cols - 1;
        return true;
    case 6:
        t->rows++;
        return kind & ARG_SHAPE;
    case 7:
        t->stride = ++t->cols;
        return kind & ARG_SHAPE;
    case 8:
        t->data = (char *)t->data + 1;
        return be->on_device;
    default:
        t->stride = INT64_MAX / 16 / t->rows + 1;
        return be->on_device;
    }
}

/* The call is refused with that text whichever way the argument is broken. */
#define CHECK_BROKEN(be, argument, kind, call, text)         \
    do {                                                     \
        const tensor sound_ = (argument);                    \
        for (int way_ = 0; way_ < WAYS_TO_BREAK; way_++) {   \
            if (break_argument(&(argument), way_, kind, be)) \
                CHECK_FAILS(call, CUDPO_EINVAL, text);       \
            (argument) = sound_;                             \
        }                                                    \
    } while (0)

/* The call is refused with that text where `moves`, a tensor or scratch, begins where `stays` does. */
#define CHECK_OVERLAP(stays, moves, call, text) \
    do {                                        \
        void *const apart_ = (moves).data;      \
        (moves).data = (stays).data;            \
        CHECK_FAILS(call, CUDPO_EINVAL, text);  \
        (moves).data = apart_;                  \
    } while (0)

/* The call is refused with that text where one thing is another than it was. */
#define CHECK_CHANGED(type, thing, value, call, text) \
    do {                                              \
        type const sound_ = (thing);                  \
        (thing) = (value);                            \
        CHECK_FAILS(call, CUDPO_EINVAL, text);        \
        (thing) = sound_;                             \
    } while (0)

/* A dense tensor that nobody may read, for sizes that no memory has; the n-th has 2^50 bytes to itself. */
static inline tensor imagined(int n, dtype type, int64_t rows, int64_t cols)
{
    return tensor_matrix((void *)((uintptr_t)n << 50), type, rows, cols);
}

/* A tensor as an output, and so many bytes behind it that no other tensor has: for scratch that overlaps this one alone. */
static inline tensor ops_roomy(ops *o, dtype type, int64_t rows, int64_t cols, size_t bytes)
{
    const int64_t more = (int64_t)(bytes / dtype_size(type)) / cols + 1;
    return tensor_rows(ops_output_as(o, type, rows + more, cols), 0, rows);
}

#ifdef TEST_CUDA
/* Scratch to hand to a launcher. */
static inline scratch ops_scratch(ops *o, size_t bytes)
{
    const tensor t = ops_make(o, DTYPE_F64, (int64_t)(bytes / 8 + 2), 1, 1);
    return (scratch){t.data, bytes};
}

/* The call is refused where scratch `s` of `bytes` is absent, too small, or off its boundary. */
#define CHECK_SCRATCH(s, bytes, call)                                                       \
    do {                                                                                    \
        const scratch sound_ = (s);                                                         \
        const scratch bad_[] = {                                                            \
            {NULL, (bytes)}, {sound_.data, (bytes)-1}, {(char *)sound_.data + 8, (bytes)}}; \
        for (int way_ = 0; way_ < 3; way_++) {                                              \
            (s) = bad_[way_];                                                               \
            CHECK_FAILS(call, CUDPO_EINVAL, "is_scratch(s, ");                              \
        }                                                                                   \
        (s) = sound_;                                                                       \
    } while (0)
#endif

#endif /* CUDPO_TEST_CONTRACT_H */
