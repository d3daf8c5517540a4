/* emulator.h - the functions behind the headers that kernels see: simt.h turns CUDA's words into calls of these.
 *
 * Nothing here is for kernels to call, except through simt.h and kernels/ptx.h. */
#ifndef CUDPO_SIMT_EMULATOR_H
#define CUDPO_SIMT_EMULATOR_H

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace simt
{

/* The place in a kernel's source that a call comes from.  Two barriers are the same where their sites are. */
struct Site {
    const char *file;
    int line;
};

/* The last parameters of a function that wants to know its caller's site, and that site. */
#define SIMT_SITE const char *simt_file = __builtin_FILE(), int simt_line = __builtin_LINE()
#define SIMT_HERE            \
    simt::Site               \
    {                        \
        simt_file, simt_line \
    }

/* How the process ends where a kernel did what CUDA does not allow.  Neither is a code that a test program returns. */
enum ExitCode {
    EXIT_VIOLATION =
        86,         /* die(): the message says what, and which kernel, block, thread and line */
    EXIT_RACES = 87 /* the race checker had something to report about a launch */
};

/* Say what is wrong with the running thread and end the process. */
[[noreturn]] void die(Site site, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* kernel is the function that is launched, as cudaFuncSetAttribute knows it. */
struct Launch {
    const void *kernel;
    const char *name;
    dim3 grid, block;
    size_t shared_bytes;
    Site site;
};

/* False where it is impossible: then cudaGetLastError() returns why. */
bool may_launch(const Launch &launch);

/* Run call(context) in every thread of the grid. */
void run_grid(const Launch &launch, void (*call)(void *), void *context);

/* __syncthreads and its variants: what each thread says becomes one answer for all of them. */
enum BarrierOp { BARRIER_PLAIN, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };
int syncthreads(int predicate, BarrierOp op, Site site);

/* An instruction that the lanes of `mask` execute together.  Each lane brings its argument; the last to arrive calls
 * execute(arguments, mask) for all of them, arguments[lane] being that of the lane. */
enum Kind { K_SYNCWARP, K_SHFL, K_VOTE, K_REDUCE, K_MMA, K_LDSM };
using Execute = void (*)(void **arguments, unsigned mask);
void warp_op(unsigned mask, Kind kind, void *argument, Execute execute, Site site);
unsigned lane();

struct ShflArg {
    uint64_t value; /* in: mine; out: that of lane `source` */
    int source;
};
struct VoteArg {
    int predicate;
    unsigned ballot; /* out */
};
enum ReduceOp { REDUCE_ADD, REDUCE_MIN, REDUCE_MAX, REDUCE_AND, REDUCE_OR, REDUCE_XOR };
struct ReduceArg {
    int64_t value; /* in: mine; out: the result, of which the caller takes 32 bits */
    ReduceOp op;
};
/* Registers of mma.m16n8k16 with bf16 factors and f32 sums; kernels/ptx.h says what each lane holds. */
struct MmaArg {
    float *d;
    const uint32_t *a, *b;
    const float *c;
};
/* `count` 8x8 tiles of 16-bit elements into r; row is where this lane points. */
struct LdsmArg {
    uint32_t *r;
    const void *row;
    int count, transposed;
};
void exec_nop(void **arguments, unsigned mask);
void exec_shfl(void **arguments, unsigned mask);
void exec_vote(void **arguments, unsigned mask);
void exec_reduce(void **arguments, unsigned mask);
void exec_mma_bf16(void **arguments, unsigned mask);
void exec_ldsm(void **arguments, unsigned mask);

/* The block's memory behind SHARED and DYN_SHARED; `key` tells one SHARED variable from another. */
void *shared_static(const void *key, size_t bytes, size_t alignment, const char *name, Site site);
void *shared_dynamic();

/* cp.async: `bytes` into shared memory, the first `valid` of them from global memory, zeros after. */
void cp_async(void *shared, const void *global, int bytes, int valid, Site site);
void cp_commit();
void cp_wait(int groups_left);

/* Let another thread run here, if the schedule is a random one. */
void maybe_yield();

/* An atomic is these three: announced (to the race checker and the schedule), then a loop over the host's atomics.  They
 * are compiled here and not in the kernel's file, where -fsanitize=thread would take them for plain accesses. */
enum AtomicKind { ATOMIC_UPDATE, ATOMIC_OVERWRITE };
void atomic_begin(const void *p, unsigned bytes, AtomicKind kind, Site site);
uint32_t atomic_load(const uint32_t *p);
uint64_t atomic_load(const uint64_t *p);
/* If *p is *seen, it becomes `wanted`; otherwise *seen becomes *p, and false is returned. */
bool atomic_exchange_if(uint32_t *p, uint32_t *seen, uint32_t wanted);
bool atomic_exchange_if(uint64_t *p, uint64_t *seen, uint64_t wanted);

} // namespace simt

/* The built-in variables: objects of the OS thread, which the scheduler sets whenever it resumes a thread. */
extern __thread uint3 threadIdx, blockIdx;
extern __thread dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

#endif /* CUDPO_SIMT_EMULATOR_H */
