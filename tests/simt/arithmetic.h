/* arithmetic.h - loads and stores with cache hints, bits, and the functions that CUDA has beside <math.h>.
 *
 * Where CUDA's function is exact or correctly rounded, so is this one.  Where it is an approximation (__expf, rsqrtf,
 * __fdividef, ...) this one is more accurate, and a test must leave room for the real one's error. */
#ifndef CUDPO_SIMT_ARITHMETIC_H
#define CUDPO_SIMT_ARITHMETIC_H

#include <cstdint>
#include <math.h>
#include <string.h>

/* Hints change speed only.  The types are what the pointer says: scalars and CUDA's vectors. */
template <class T> inline T __ldg(const T *p)
{
    return *p;
}
template <class T> inline T __ldcg(const T *p)
{
    return *p;
}
template <class T> inline T __ldcs(const T *p)
{
    return *p;
}
template <class T> inline T __ldca(const T *p)
{
    return *p;
}
template <class T> inline void __stcg(T *p, T value)
{
    *p = value;
}
template <class T> inline void __stcs(T *p, T value)
{
    *p = value;
}
template <class T> inline void __stwb(T *p, T value)
{
    *p = value;
}

namespace simt
{
template <class To, class From> inline To bit_cast(From from)
{
    static_assert(sizeof(To) == sizeof(From), "bits of one size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace simt

inline int __float_as_int(float x)
{
    return simt::bit_cast<int>(x);
}
inline unsigned __float_as_uint(float x)
{
    return simt::bit_cast<unsigned>(x);
}
inline float __int_as_float(int x)
{
    return simt::bit_cast<float>(x);
}
inline float __uint_as_float(unsigned x)
{
    return simt::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x)
{
    return simt::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x)
{
    return simt::bit_cast<double>(x);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}
inline int __clzll(long long x)
{
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x)
{
    unsigned y = 0;
    for (int i = 0; i < 32; i++) {
        y = y << 1 | (x >> i & 1u);
    }
    return y;
}
inline int __mulhi(int a, int b)
{
    return (int)(((long long)a * b) >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
/* Byte i of the result is byte (selector >> 4i) & 7 of the eight in y:x; the selector's high bits must be 0 here. */
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const uint64_t all = (uint64_t)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        result |= (unsigned)(all >> ((selector >> (4 * i) & 7u) * 8) & 0xffu) << (8 * i);
    }
    return result;
}

/* glibc's <math.h> declares some of these names for itself, so they have to be macros. */
#define __expf(x) (::expf(x))
#define __exp10f(x) (::powf(10.0f, (x)))
#define __logf(x) (::logf(x))
#define __log2f(x) (::log2f(x))
#define __powf(x, y) (::powf((x), (y)))
#define __sinf(x) (::sinf(x))
#define __cosf(x) (::cosf(x))

inline float rsqrtf(float x)
{
    return (float)(1.0 / ::sqrt((double)x));
}
inline double rsqrt(double x)
{
    return 1.0 / ::sqrt(x);
}
inline float __frsqrt_rn(float x)
{
    return rsqrtf(x);
}
inline float __fsqrt_rn(float x)
{
    return ::sqrtf(x);
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fdividef(float a, float b)
{
    return a / b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return ::fmaf(a, b, c);
}
inline double __dadd_rn(double a, double b)
{
    return a + b;
}
inline double __dmul_rn(double a, double b)
{
    return a * b;
}
inline double __fma_rn(double a, double b, double c)
{
    return ::fma(a, b, c);
}
inline float __saturatef(float x)
{
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; /* NaN becomes 0, as CUDA says */
}
inline float __int2float_rn(int x)
{
    return (float)x;
}
inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}
inline float __double2float_rn(double x)
{
    return (float)x;
}

/* Out of range becomes the nearest integer, NaN becomes 0, as CUDA says; C++ leaves both undefined. */
inline int __float2int_rz(float x)
{
    if (x != x) return 0;
    return x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : (int)x;
}
inline int __float2int_rn(float x)
{
    return __float2int_rz(::rintf(x));
}
inline int __float2int_rd(float x)
{
    return __float2int_rz(::floorf(x));
}
inline int __float2int_ru(float x)
{
    return __float2int_rz(::ceilf(x));
}

#define SIMT_MIN_MAX(T)       \
    inline T min(T a, T b)    \
    {                         \
        return b < a ? b : a; \
    }                         \
    inline T max(T a, T b)    \
    {                         \
        return a < b ? b : a; \
    }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX

/* Of a number and NaN, the number. */
inline float min(float a, float b)
{
    return ::fminf(a, b);
}
inline float max(float a, float b)
{
    return ::fmaxf(a, b);
}
inline double min(double a, double b)
{
    return ::fmin(a, b);
}
inline double max(double a, double b)
{
    return ::fmax(a, b);
}

#endif /* CUDPO_SIMT_ARITHMETIC_H */
