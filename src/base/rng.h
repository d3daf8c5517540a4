/* rng.h - random numbers as a function of (seed, stream, index), so that no state must be kept or restored. */
#ifndef CUDPO_BASE_RNG_H
#define CUDPO_BASE_RNG_H

#include <stdint.h>

/* 64 well mixed bits for a key.  Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), applied to each
 * part of the key in turn. */
uint64_t rng_bits(uint64_t seed, uint64_t stream, uint64_t index);

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index); /* [0, 1), 53 bits */
double rng_normal(uint64_t seed, uint64_t stream,
                  uint64_t index); /* mean 0, variance 1 (Box-Muller) */
int64_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, int64_t n); /* 0 .. n-1 */

#endif /* CUDPO_BASE_RNG_H */
