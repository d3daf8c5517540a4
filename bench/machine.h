/* machine.h - what a result has to say of the machine that it was measured on. */
#ifndef CUDPO_BENCH_MACHINE_H
#define CUDPO_BENCH_MACHINE_H

#include "backend/backend.h"

#include <stddef.h>

/** Out: out  the processor's name, or as much of one as the kernel gives it; "" where there is none.
 *  In:  file  as Linux writes /proc/cpuinfo. */
void bench_processor(char *out, size_t size, const char *file);

/** The device as its driver calls it, without its number and memory; a CPU's is "cpu". */
void bench_device_name(char *out, size_t size, const backend *be);

#endif /* CUDPO_BENCH_MACHINE_H */
