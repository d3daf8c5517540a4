/* shared_limit.h - for tests of what kernels do on a device that has less shared memory. */
#ifndef CUDPO_SIMT_SHARED_LIMIT_H
#define CUDPO_SIMT_SHARED_LIMIT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From the next call on: the most shared memory that a block may have, 227 KiB at first; 99 KiB on compute capability 8.9
 * and 12.0. */
void simt_set_shared_limit(size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_SIMT_SHARED_LIMIT_H */
