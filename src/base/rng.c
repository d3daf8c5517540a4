/* rng.c - counter-based random numbers. */
#include "base/rng.h"

#include <math.h>

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t rng_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    return mix(mix(mix(seed) ^ stream) ^ index);
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (double)(rng_bits(seed, stream, index) >> 11) * 0x1p-53;
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    const double u = 1.0 - rng_uniform(seed, stream, 2 * index); /* (0, 1], so the log is finite */
    const double v = rng_uniform(seed, stream, 2 * index + 1);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}

int64_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, int64_t n)
{
    return (int64_t)(rng_uniform(seed, stream, index) * (double)n);
}
