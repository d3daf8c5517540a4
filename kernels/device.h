/* device.h - what every kernel includes: the dialect that nvcc and the emulator of tests/simt/ both understand.
 *
 * Kernels are CUDA C++ that stops at templates over types and numbers.  Three things are spelled by macro, because the
 * host has no syntax for them:
 *     LAUNCH((kernel<8>), grid, block, shared_bytes, stream, arguments...);    kernel<<<...>>>(...)
 *     SHARED(float, part, [8]);                                               __shared__ float part[8]
 *     DYN_SHARED(float, buffer);                                              extern __shared__ float buffer[]
 * Inline PTX stands in ptx.h and nowhere else. */
#ifndef CUDPO_KERNELS_DEVICE_H
#define CUDPO_KERNELS_DEVICE_H

#ifdef __CUDACC__
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define LAUNCH(kernel, grid, block, shared, stream, ...) \
    kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#define SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define DYN_SHARED(T, name)                                       \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    T *name = reinterpret_cast<T *>(name##_bytes)
#else
#include "simt.h"
#endif

/* From sm_100 on ptxas finds a register less for the same source than before; kernels that take all 255 leave something
 * out then. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
enum { FEWER_REGISTERS = 1 };
#else
enum { FEWER_REGISTERS = 0 };
#endif

#include "ptx.h"

typedef __nv_bfloat16 bf16;

#endif /* CUDPO_KERNELS_DEVICE_H */
