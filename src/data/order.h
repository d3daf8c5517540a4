/* order.h - which example comes when: the order of accelerate's seeded sampler over torch.randperm. */
#ifndef CUDPO_DATA_ORDER_H
#define CUDPO_DATA_ORDER_H

#include <stdint.h>

/* permutation [n] = the order of 0 .. n-1 in one epoch: torch.randperm(n) on the CPU, its generator seeded with
 * seed + epoch, of which MT19937 takes the low 32 bits.
 * From n = 214748364 (2^32 / 20) on torch draws 64 bits and shuffles inside out; this order is another there.
 * Source: aten/src/ATen/native/TensorFactories.cpp (randperm_cpu); Matsumoto and Nishimura 1998. */
void order_shuffle(int64_t *permutation, int64_t n, uint64_t seed, int64_t epoch);

#endif /* CUDPO_DATA_ORDER_H */
