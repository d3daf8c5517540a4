/* half.h - the two 16-bit floats of files, to and from float32.  To 16 bits rounds to nearest, ties to even;
 * a finite value beyond the range becomes Inf; a NaN stays one. */
#ifndef CUDPO_MODEL_HALF_H
#define CUDPO_MODEL_HALF_H

#include <stdint.h>

float float_from_bf16(uint16_t bits);
float float_from_f16(uint16_t bits);
uint16_t bf16_from_float(float value);
uint16_t f16_from_float(float value);

#endif /* CUDPO_MODEL_HALF_H */
