/* machine.h - what a result has to say of the machine that it was measured on. */
#ifndef CUDPO_BENCH_MACHINE_H
#define CUDPO_BENCH_MACHINE_H

#include <stddef.h>

/** Out: out  the processor's name, or as much of one as the kernel gives it; "" where there is none.
 *  In:  file  as Linux writes /proc/cpuinfo. */
void bench_processor(char *out, size_t size, const char *file);

#endif /* CUDPO_BENCH_MACHINE_H */
