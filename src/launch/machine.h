/* machine.h - what of this machine there is for ranks. */
#ifndef CUDPO_LAUNCH_MACHINE_H
#define CUDPO_LAUNCH_MACHINE_H

#include <stdint.h>

/* GPUs that a program sees.
 * In:  visible  CUDA_VISIBLE_DEVICES; NULL: not set, and then the devices nvidia0, nvidia1 ... of `folder` count. */
int64_t machine_gpus(const char *visible, const char *folder);

/* Cores that this process may run on. */
int64_t machine_cores(void);

#endif /* CUDPO_LAUNCH_MACHINE_H */
