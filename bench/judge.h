/* judge.h - what wrong() is written with: elements that are not what they should be. */
#ifndef CUDPO_BENCH_JUDGE_H
#define CUDPO_BENCH_JUDGE_H

#include "bench/bench.h"

#include <math.h>

/* Of a copy of a number. */
static inline int64_t is_other(float got, float want)
{
    return !(got == want);
}

/* Of a result that is off by `units` roundings of its type, at most, of itself or of `size`. */
static inline int64_t is_off(double got, double want, dtype type, double units, double size)
{
    const double unit = type == DTYPE_BF16 ? 0x1p-8 : 0x1p-23;
    return !(fabs(got - want) <= units * unit * fmax(fabs(want), size));
}

#endif /* CUDPO_BENCH_JUDGE_H */
