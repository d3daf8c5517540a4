/* order.h - which example comes when: the order of accelerate's seeded sampler over torch.randperm. */
#ifndef CUDPO_DATA_ORDER_H
#define CUDPO_DATA_ORDER_H

#include <stdint.h>

/* permutation [n] of 0 .. n-1 of one epoch, from seed + epoch: Fisher-Yates on MT19937 as torch.randperm on the
 * CPU does it for n below 2^32 / 20.  Source: aten/src/ATen/native/TensorFactories.cpp, Matsumoto and Nishimura 1998. */
void order_shuffle(int64_t *permutation, int64_t n, uint64_t seed, int64_t epoch);

#endif /* CUDPO_DATA_ORDER_H */
