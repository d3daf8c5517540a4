/* products.h - for tests of the choice of an algorithm: those of cuBLASLt's stand-in are numbered 1, 2, 3, 4. */
#ifndef CUDPO_SIMT_PRODUCTS_H
#define CUDPO_SIMT_PRODUCTS_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From the next call on: sets of algorithms, bits 1 << number, that are offered with a state that says that they are none,
 * and that say so when they are to run. */
void simt_refuse_products(unsigned by_state, unsigned at_launch);

/* From the next call on cudaMalloc() has no memory to give. */
void simt_refuse_memory(bool refuse);

/* Number of the algorithm of the last product. */
int simt_last_product(void);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_SIMT_PRODUCTS_H */
