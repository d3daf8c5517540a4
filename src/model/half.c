/* half.c - by integer arithmetic on IEEE 754 bit patterns, so that no rounding mode or flush-to-zero matters.
 * float32: 1 sign, 8 exponent (bias 127), 23 fraction.  bfloat16: 1, 8, 7.  float16: 1, 5 (bias 15), 10. */
#include "model/half.h"

#include <string.h>

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float float_from_bf16(uint16_t bits)
{
    return from_bits((uint32_t)bits << 16);
}

uint16_t bf16_from_float(float value)
{
    const uint32_t bits = to_bits(value);
    const uint32_t top = bits >> 16;
    if ((bits & 0x7fffffff) > 0x7f800000) /* NaN: keep it one where only low bits made it so */
        return (uint16_t)((top & 0x7f) != 0 ? top : top | 0x40);
    return (uint16_t)((bits + 0x7fff + (top & 1)) >> 16);
}

float float_from_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent != 0) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = (float)fraction * 0x1p-24f; /* subnormal: exact in float32 */
    return from_bits(sign | to_bits(magnitude));
}

/* `bits` without its low n bits, n = 1 .. 31, rounded to nearest even. */
static uint32_t shift_rounded(uint32_t bits, unsigned n)
{
    const uint32_t kept = bits >> n;
    return (bits + (UINT32_C(1) << (n - 1)) - 1 + (kept & 1)) >> n;
}

uint16_t f16_from_float(float value)
{
    const uint32_t bits = to_bits(value), magnitude = bits & 0x7fffffff;
    const uint32_t sign = bits >> 16 & 0x8000;
    if (magnitude > 0x7f800000) { /* NaN, as in bf16_from_float() */
        const uint32_t fraction = magnitude >> 13 & 0x3ff;
        return (uint16_t)(sign | 0x7c00 | (fraction != 0 ? fraction : 0x200));
    }
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and beyond */
    if (magnitude >=
        0x38800000) /* normal, 2^-14 and up: a carry moves into the exponent, as it should */
        return (uint16_t)(sign | shift_rounded(magnitude - 0x38000000, 13));
    const uint32_t exponent = magnitude >> 23;
    if (exponent < 102)
        return (uint16_t)sign; /* below 2^-25: half of the smallest, and ties go to 0 */
    const uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
    return (uint16_t)(sign | shift_rounded(fraction, 126 - exponent));
}
