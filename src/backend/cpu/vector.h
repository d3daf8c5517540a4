/* vector.h - inner loops compiled once for every instruction set that they gain from, and an exp that vectorises. */
#ifndef CUDPO_BACKEND_CPU_VECTOR_H
#define CUDPO_BACKEND_CPU_VECTOR_H

#include <math.h>
#include <stdint.h>

/* A function whose body the compiler vectorises for AVX-512, AVX2 or the baseline; the machine decides at each call,
 * which costs a load and a branch.  `names` are the parameters' names, in parentheses.
 *
 *     VECTORISED_VALUE(float, dot, (const float *a, const float *b, int64_t n), (a, b, n))
 *     {
 *         ...
 *     }
 *
 * Written out because GCC's target_clones can't name a pair of features (AVX2 and FMA), and Clang 14 has no such
 * attribute.  The body must not hold an OpenMP region: that becomes a function of its own, for the baseline. */
#define VECTORISED(name, parameters, names) VECTORISED_AS(void, , name, parameters, names)
#define VECTORISED_VALUE(type, name, parameters, names) \
    VECTORISED_AS(type, return, name, parameters, names)

#if defined(__x86_64__) && defined(__GNUC__)
#define VECTORISED_AS(type, give, name, parameters, names)                                    \
    static inline __attribute__((always_inline)) type name##_body parameters;                 \
    __attribute__((target("avx2,fma,avx512f,avx512vl"))) static type name##_avx512 parameters \
    {                                                                                         \
        give name##_body names;                                                               \
    }                                                                                         \
    __attribute__((target("avx2,fma"))) static type name##_avx2 parameters                    \
    {                                                                                         \
        give name##_body names;                                                               \
    }                                                                                         \
    static type name##_baseline parameters                                                    \
    {                                                                                         \
        give name##_body names;                                                               \
    }                                                                                         \
    static inline type name parameters                                                        \
    {                                                                                         \
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))          \
            give name##_avx512 names;                                                         \
        else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))             \
            give name##_avx2 names;                                                           \
        else                                                                                  \
            give name##_baseline names;                                                       \
    }                                                                                         \
    static inline __attribute__((always_inline)) type name##_body parameters
#else
#define VECTORISED_AS(type, give, name, parameters, names) static inline type name parameters
#endif

#if defined(__GNUC__)
#define VECTOR_INLINE static inline __attribute__((always_inline))
#else
#define VECTOR_INLINE static inline
#endif

/* e^x within 1.5 units in the last place; 0 below -87.33, where it would be subnormal; inf above 88.37, half a
 * binary order early; NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose remainder there is below
 * 2^-27; then times 2^n.  The limits are applied last: what comes before is garbage there, but defined, and compilers
 * make a mess of a clamp in front. */
VECTOR_INLINE float vector_exp(float x)
{
    union {
        float f;
        uint32_t u;
    } shifted, power;
    /* Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the significand, whose other bits fall off
     * when these are moved to where the exponent stands. */
    shifted.f = x * 1.44269504f + 12582912.0f;
    power.u = (shifted.u << 23) + 0x3f800000u;
    const float n = shifted.f - 12582912.0f;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f; /* ln 2 in two parts */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    const float e = x < -87.3365448f ? 0.0f : p * power.f;
    return x > 88.3762626f ? INFINITY : e;
}

/* The largest of n numbers, -inf of none; NaN is passed over.  In lanes, because without assuming that there is no NaN
 * a compiler may not turn one running maximum into several. */
VECTOR_INLINE float vector_largest(const float *z, int64_t n)
{
    enum { LANES = 32 };
    float lane[LANES], m = -INFINITY;
    int64_t i = 0;
    for (int j = 0; j < LANES; j++) {
        lane[j] = -INFINITY;
    }
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            lane[j] = z[i + j] > lane[j] ? z[i + j] : lane[j];
        }
    }
    for (; i < n; i++) {
        m = z[i] > m ? z[i] : m;
    }
    for (int j = 0; j < LANES; j++) {
        m = lane[j] > m ? lane[j] : m;
    }
    return m;
}

#endif /* CUDPO_BACKEND_CPU_VECTOR_H */
