// simt.h - run CUDA C++ kernel sources on the CPU (host side of the language).
// Included instead of the nvcc language when the .cu file is compiled by g++/clang++.
// Uses NVIDIA's own headers for types (dim3, float4, cudaError_t, __nv_bfloat16): they
// have host paths.  The runtime (fibers, checks, cudart stub) is simt.cpp.
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <cuda_runtime.h>
#include <cuda_bf16.h>

#define SIMT_CPU 1
#undef __shared__
#define __shared__ static __thread /* works, but unchecked: prefer SHARED() */
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __constant__
#define __constant__

// ---- built-in variables: real TLS objects, updated by the scheduler at every switch ----
extern __thread uint3 threadIdx, blockIdx;
extern __thread dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

namespace simt {
struct Site { const char* file; int line; };
#define SIMT_SITE const char* _f = __builtin_FILE(), int _l = __builtin_LINE()
#define SIMT_HERE simt::Site{_f, _l}

enum Kind : int { K_SYNCWARP, K_SHFL, K_VOTE, K_REDUCE, K_MATCH, K_MMA, K_LDSM, K_STSM };
using ExecFn = void (*)(void** args, unsigned mask);

// ---- runtime entry points (simt.cpp) ----
int  syncthreads(int pred, int op, Site);                       // op 0 none 1 count 2 and 3 or
void warp_op(unsigned mask, Kind, void* arg, ExecFn, Site);     // collective over `mask`
void* shared_static(const void* key, size_t bytes, size_t align, const char* name);
void* shared_dynamic(size_t align);
void cp_async(void* dst, const void* src, int bytes, int valid, Site);
void cp_commit();
void cp_wait(int n);
void maybe_yield();
[[noreturn]] void die(Site, const char* fmt, ...) __attribute__((format(printf, 2, 3)));
void note(const void* p, unsigned bytes, int rw, Site);         // 0 read 1 write 2 atomic (race build)
void run_grid(const void* fn, const char* name, dim3 g, dim3 b, size_t smem, cudaStream_t,
              void (*call)(void*), void* ctx, Site);
void exec_shfl(void**, unsigned); void exec_vote(void**, unsigned); void exec_nop(void**, unsigned);
void exec_reduce(void**, unsigned); void exec_mma_bf16(void**, unsigned); void exec_ldsm(void**, unsigned);

struct ShflArg { uint64_t v; int src; };   // in: my value, lane to read.  out: v
struct VoteArg { int pred; unsigned out; };
struct RedArg { uint32_t v; int op; };
struct MmaArg { float* d; const uint32_t *a, *b; const float* c; };
struct LdsmArg { uint32_t* r; const void* row; int n, trans; };

template <class T> inline T shfl(unsigned mask, T v, int src, Site s) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shfl type");
    ShflArg a{0, src}; memcpy(&a.v, &v, sizeof v);
    warp_op(mask, K_SHFL, &a, exec_shfl, s);
    memcpy((void*)&v, &a.v, sizeof v); return v;
}
unsigned lane();

template <class... P, class... A>
inline void launch(void (*k)(P...), const char* name, Site site, dim3 g, dim3 b, size_t smem, cudaStream_t st, A&&... a) {
    struct Ctx { void (*k)(P...); std::tuple<std::decay_t<P>...> args; } c{k, std::tuple<std::decay_t<P>...>(std::forward<A>(a)...)};
    run_grid((const void*)k, name, g, b, smem, st, [](void* p) { auto* c = (Ctx*)p; std::apply(c->k, c->args); }, &c, site);
}
}  // namespace simt

// ---- source-level macros (the only dialect the kernels have to use) ----
#define LAUNCH(kernel, grid, block, smem, stream, ...) \
    simt::launch(kernel, #kernel, simt::Site{__FILE__, __LINE__}, dim3(grid), dim3(block), smem, stream, ##__VA_ARGS__)
#define SHARED(T, name, ...)                                                                     \
    static const char name##_simt_key = 0;                                                       \
    T(&name) __VA_ARGS__ = *static_cast<T(*) __VA_ARGS__>(                                       \
        simt::shared_static(&name##_simt_key, sizeof(T __VA_ARGS__), alignof(T), #name))
#define DYN_SHARED(T, name) T* name = static_cast<T*>(simt::shared_dynamic(16))

// ---- barriers ----
inline void __syncthreads(SIMT_SITE) { simt::syncthreads(0, 0, SIMT_HERE); }
inline int __syncthreads_count(int p, SIMT_SITE) { return simt::syncthreads(p, 1, SIMT_HERE); }
inline int __syncthreads_and(int p, SIMT_SITE) { return simt::syncthreads(p, 2, SIMT_HERE); }
inline int __syncthreads_or(int p, SIMT_SITE) { return simt::syncthreads(p, 3, SIMT_HERE); }
inline void __syncwarp(unsigned m = 0xffffffffu, SIMT_SITE) { simt::warp_op(m, simt::K_SYNCWARP, nullptr, simt::exec_nop, SIMT_HERE); }
inline void __threadfence() {} inline void __threadfence_block() {} inline void __threadfence_system() {}
// ---- warp shuffles and votes (width must be a power of two) ----
template <class T> inline T __shfl_sync(unsigned m, T v, int src, int w = 32, SIMT_SITE) {
    int l = (int)simt::lane(), base = l & ~(w - 1); return simt::shfl(m, v, base + (src & (w - 1)), SIMT_HERE); }
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, SIMT_SITE) {
    int l = (int)simt::lane(), s = l ^ x; if (s >= (l & ~(w - 1)) + w) s = l; return simt::shfl(m, v, s, SIMT_HERE); }
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, SIMT_SITE) {
    int l = (int)simt::lane(), s = l + (int)d; if (s >= (l & ~(w - 1)) + w) s = l; return simt::shfl(m, v, s, SIMT_HERE); }
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, SIMT_SITE) {
    int l = (int)simt::lane(), s = l - (int)d; if (s < (l & ~(w - 1))) s = l; return simt::shfl(m, v, s, SIMT_HERE); }
inline unsigned __ballot_sync(unsigned m, int p, SIMT_SITE) { simt::VoteArg a{p, 0}; simt::warp_op(m, simt::K_VOTE, &a, simt::exec_vote, SIMT_HERE); return a.out; }
inline int __any_sync(unsigned m, int p, SIMT_SITE) { return __ballot_sync(m, p, _f, _l) != 0; }
inline int __all_sync(unsigned m, int p, SIMT_SITE) { return __ballot_sync(m, p, _f, _l) == m; }
inline unsigned __reduce_add_sync(unsigned m, unsigned v, SIMT_SITE) { simt::RedArg a{v, 0}; simt::warp_op(m, simt::K_REDUCE, &a, simt::exec_reduce, SIMT_HERE); return a.v; }
inline unsigned __reduce_max_sync(unsigned m, unsigned v, SIMT_SITE) { simt::RedArg a{v, 1}; simt::warp_op(m, simt::K_REDUCE, &a, simt::exec_reduce, SIMT_HERE); return a.v; }
// __activemask() is deliberately absent: code that needs it cannot be emulated faithfully.

// ---- atomics (blocks run on several OS threads, so they are real) ----
template <class T> __attribute__((no_sanitize("thread"))) inline T simt_atomic_rmw(T* p, T v, T (*op)(T, T), simt::Site s) {
    using U = std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 8, uint64_t, uint16_t>>;
    simt::note(p, sizeof(T), 2, s); simt::maybe_yield();
    U o = __atomic_load_n((U*)p, __ATOMIC_RELAXED), n; T ot, nt;
    do { memcpy((void*)&ot, &o, sizeof o); nt = op(ot, v); memcpy(&n, &nt, sizeof n); } while (!__atomic_compare_exchange_n((U*)p, &o, n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    memcpy((void*)&ot, &o, sizeof o); return ot;
}
#define SIMT_ATOMIC(name, expr) template <class T, class V> inline T name(T* p, V v, SIMT_SITE) { return simt_atomic_rmw<T>(p, (T)v, [](T a, T b) -> T { (void)a; return expr; }, SIMT_HERE); }
SIMT_ATOMIC(atomicAdd, a + b) SIMT_ATOMIC(atomicMax, a > b ? a : b) SIMT_ATOMIC(atomicMin, a < b ? a : b) SIMT_ATOMIC(atomicExch, b)
SIMT_ATOMIC(atomicOr, a | b) SIMT_ATOMIC(atomicAnd, a & b)
template <class T> __attribute__((no_sanitize("thread"))) inline T atomicCAS(T* p, T cmp, T v, SIMT_SITE) { simt::note(p, sizeof(T), 2, SIMT_HERE); simt::maybe_yield(); __atomic_compare_exchange_n(p, &cmp, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); return cmp; }

// ---- loads, math, bits ----
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T, class U> inline void __stcs(T* p, U v) { *p = v; }
namespace simt { inline float expf_(float x) { return ::expf(x); } inline float logf_(float x) { return ::logf(x); } }
#define __expf(x) simt::expf_(x)   /* glibc's math.h declares __expf: has to be a macro */
#define __logf(x) simt::logf_(x)
#define __powf(x, y) ::powf(x, y)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline int __float_as_int(float f) { int i; memcpy(&i, &f, 4); return i; }
inline unsigned __float_as_uint(float f) { unsigned i; memcpy(&i, &f, 4); return i; }
inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
inline float __uint_as_float(unsigned i) { float f; memcpy(&f, &i, 4); return f; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
#define SIMT_MINMAX(T) inline T min(T a, T b) { return b < a ? b : a; } inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MINMAX(int) SIMT_MINMAX(unsigned) SIMT_MINMAX(long) SIMT_MINMAX(unsigned long) SIMT_MINMAX(long long) SIMT_MINMAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); } inline float max(float a, float b) { return fmaxf(a, b); }
inline void __trap() { simt::die(simt::Site{"device", 0}, "__trap()"); }
inline void __nanosleep(unsigned) { simt::maybe_yield(); }

// cudaFuncSetAttribute(kernel, ...) template of the real cuda_runtime.h (nvcc only there)
template <class... P> inline cudaError_t cudaFuncSetAttribute(void (*f)(P...), cudaFuncAttribute a, int v) { return cudaFuncSetAttribute((const void*)f, a, v); }
