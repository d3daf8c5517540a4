/* gemm.h - matrix products by cuBLASLt, and the table of the algorithms that were timed. */
#ifndef CUDPO_BACKEND_CUDA_GEMM_H
#define CUDPO_BACKEND_CUDA_GEMM_H

#include "cudpo/status.h"
#include "tensor/tensor.h"

#include <cublasLt.h>
#include <stdbool.h>

/* All that an algorithm's choice depends on.  c [M,N] = op(a) op(b) + beta c. */
typedef struct gemm_shape {
    int64_t M, N, K;
    int64_t a_stride, b_stride, c_stride;
    uint32_t a_alignment, b_alignment, c_alignment; /* bytes, powers of two, 256 at most */
    dtype type, c_type;                             /* of a and b; of c */
    bool transpose_a, transpose_b, accumulate;
} gemm_shape;

/* ---- gemm_table.c: which algorithm is taken, by shape; kept in a file ---- */

typedef struct gemm_table gemm_table;
enum { GEMM_DEVICE = 320 }; /* characters of a device's name, and its NUL */

/** An empty table.
 *  In:      device  what each line of its file begins with; "" where a file is of one device.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status gemm_table_open(gemm_table **out, const char *device);
void gemm_table_close(gemm_table *t);

/** Take in what a file has and the table has not; a file that is absent, or of other content, has nothing.  A file that
 *  can't be read or written is a warning, once.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status gemm_table_read(gemm_table *t, const char *path);

/** The same, and from now on the table is kept in that file, which other processes may write too.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status gemm_table_keep(gemm_table *t, const char *path);

/** The algorithm of shapes like this one: sizes within an eighth of a power of two are alike.  False: none is known. */
bool gemm_table_find(const gemm_table *t, const gemm_shape *shape, cublasLtMatmulAlgo_t *algorithm);

/** Add an algorithm.  Where another process has kept one in the meantime, that one stays: ask again.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status gemm_table_add(gemm_table *t, const gemm_shape *shape,
                                           const cublasLtMatmulAlgo_t *algorithm);

/* ---- gemm.c ---- */

typedef struct cuda_gemm cuda_gemm;

/** In:      folder  where timed algorithms are kept for all runs, in a file named after GPU and library; NULL: nowhere.
 *  $CUDPO_GEMM=first: none are timed, and no file is read or written.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM; CUDPO_EDEVICE where cuBLASLt can't be used. */
CUDPO_MUST_USE cudpo_status cuda_gemm_open(cuda_gemm **out, const char *folder);
void cuda_gemm_close(cuda_gemm *g);

/** The file of a run, whose algorithms come before all others: take what it has; from now on keep there all that are taken and
 *  have been.
 *  Returns: as gemm_table_read(), gemm_table_keep(). */
CUDPO_MUST_USE cudpo_status cuda_gemm_recall(cuda_gemm *g, const char *run);
CUDPO_MUST_USE cudpo_status cuda_gemm_keep(cuda_gemm *g, const char *run);

/** See backend.h: c [M,N] = op(a) op(b) + beta c.  a and b are both f32 or both bf16; c is f32 or like them.
 *  The first product of a kind times the algorithms, and waits for the stream. */
CUDPO_MUST_USE cudpo_status cuda_gemm_run(cuda_gemm *g, tensor c, tensor a, bool transpose_a,
                                          tensor b, bool transpose_b, float beta,
                                          cudaStream_t stream);

#endif /* CUDPO_BACKEND_CUDA_GEMM_H */
