/* ptx.h - every wrapper of kernels/ptx.h, run once on fixed inputs. */
#ifndef CUDPO_TEST_PTX_H
#define CUDPO_TEST_PTX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PTX_TRIALS = 8, PTX_EXP2 = 1024 };

/* Words of each section of the results, in this order. */
enum {
    PTX_MMA_EXACT_WORDS = PTX_TRIALS * 128, /* small whole numbers: no rounding anywhere */
    PTX_MMA_WORDS = PTX_TRIALS * 128, /* d of lane l in words 4l .. 4l+3, a trial after the other */
    PTX_LDMATRIX_WORDS = 32 * (4 + 2 + 4 + 2), /* x4, x2, x4_trans, x2_trans of each lane */
    PTX_CP_ASYNC_WORDS = 17 * 4,               /* 16 bytes for each number of valid ones, 0 to 16 */
    PTX_EXP2_WORDS = PTX_EXP2,
    PTX_WORDS = PTX_MMA_EXACT_WORDS + PTX_MMA_WORDS + PTX_LDMATRIX_WORDS + PTX_CP_ASYNC_WORDS +
                PTX_EXP2_WORDS
};

/* Inputs, the same everywhere: A [16,16], B [16,8], C [16,8] of a trial, row-major; argument i of exp2. */
float ptx_input(int exact, int trial, int matrix, int row, int column);
float ptx_exp2_argument(int i);

/* Runs all on the device and leaves the results in out [PTX_WORDS]; returns 0, or the CUDA error's number. */
int ptx_run(uint32_t *out);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_TEST_PTX_H */
