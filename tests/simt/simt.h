/* simt.h - the CUDA language on the host: what kernels/device.h includes where the compiler is not nvcc.
 *
 * Each header stands for a chapter of NVIDIA's CUDA C++ Programming Guide; README.md says how it all works. */
#ifndef CUDPO_SIMT_H
#define CUDPO_SIMT_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator.h"
#include "stream.h"

namespace simt
{

/* kernel<<<grid, block, shared_bytes, stream>>>(arguments...).  The arguments are converted to the types of the kernel's
 * parameters here, once, and every thread gets its own copy. */
template <class... P, class... A>
inline void launch(void (*kernel)(P...), const char *name, Site site, dim3 grid, dim3 block,
                   size_t shared_bytes, cudaStream_t stream, A &&...arguments)
{
    struct Call {
        void (*kernel)(P...);
        std::tuple<std::decay_t<P>...> arguments;
    };
    Call call{kernel, std::tuple<std::decay_t<P>...>(std::forward<A>(arguments)...)};
    const Launch what = {
        reinterpret_cast<const void *>(kernel), name, grid, block, shared_bytes, site};
    if (!may_launch(what)) return;
    submit(stream, [what, call]() mutable {
        run_grid(
            what,
            [](void *context) {
                Call *c = static_cast<Call *>(context);
                std::apply(c->kernel, c->arguments);
            },
            &call);
    });
}

} // namespace simt

/* The dialect: kernels/device.h says what nvcc makes of these. */
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                   \
    simt::launch(kernel, #kernel, simt::Site{__FILE__, __LINE__}, dim3(grid), dim3(block), \
                 (shared), (stream), ##__VA_ARGS__)
/* The address of a static variable is the key: one for each SHARED of each instance of a template. */
#define SHARED(T, name, ...)                                                            \
    static const char name##_simt_key = 0;                                              \
    T(&name)                                                                            \
    __VA_ARGS__ = *static_cast<T(*) __VA_ARGS__>(                                       \
        simt::shared_static(&name##_simt_key, sizeof(T __VA_ARGS__), alignof(T), #name, \
                            simt::Site{__FILE__, __LINE__}))
#define DYN_SHARED(T, name) T *name = static_cast<T *>(simt::shared_dynamic())

/* Barriers and fences.  Fences do nothing: the emulator's memory is sequentially consistent. */
inline void __syncthreads(SIMT_SITE)
{
    simt::syncthreads(0, simt::BARRIER_PLAIN, SIMT_HERE);
}
inline int __syncthreads_count(int predicate, SIMT_SITE)
{
    return simt::syncthreads(predicate, simt::BARRIER_COUNT, SIMT_HERE);
}
inline int __syncthreads_and(int predicate, SIMT_SITE)
{
    return simt::syncthreads(predicate, simt::BARRIER_AND, SIMT_HERE);
}
inline int __syncthreads_or(int predicate, SIMT_SITE)
{
    return simt::syncthreads(predicate, simt::BARRIER_OR, SIMT_HERE);
}
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned)
{
    simt::maybe_yield();
}
[[noreturn]] inline void __trap(SIMT_SITE)
{
    simt::die(SIMT_HERE, "__trap()");
}

/* cuda_runtime.h has this template only for nvcc: a kernel is not converted to const void * by itself. */
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute,
                                        int value)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value);
}

#include "arithmetic.h"
#include "atomics.h"
#include "warp.h"

#endif /* CUDPO_SIMT_H */
