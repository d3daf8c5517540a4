/* fiber.h - a stack and the place where its execution stopped: what a CUDA thread is between two turns.
 *
 * A fiber runs on the OS thread that resumes it, never on two at once, and stays with that OS thread for good: compilers
 * keep addresses of thread-local objects (threadIdx) across calls. */
#ifndef CUDPO_SIMT_FIBER_H
#define CUDPO_SIMT_FIBER_H

#include <cstddef>

#include "sanitizers.h"

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt
{

/* Address space below each stack that may not be touched: overflowing it is noticed, even by a frame of this size.  A page
 * more than a power of two: stacks at such a distance would share the same few sets of the processor's caches. */
constexpr size_t GUARD_BYTES = ((size_t)1 << 20) + 4096;

struct Fiber {
#ifdef SIMT_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer = nullptr; /* with the callee-saved registers on top of the stack */
#endif
    char *stack = nullptr; /* lowest address */
    size_t stack_bytes = 0;
    void *fake_stack = nullptr; /* ASan's, for the locals of functions that return */
};

/* A fiber that starts in entry(), which never returns, when it is first resumed. */
Fiber *fiber_new(size_t stack_bytes, void (*entry)());

#ifdef SIMT_UCONTEXT
/* Portable, but each switch costs two system calls for the signal mask: ten times slower. */
inline void swap_stacks(Fiber *from, Fiber *to)
{
    swapcontext(&from->context, &to->context);
}
#else
/* Save the registers that a callee must preserve, store the stack pointer, and go on where `to` did the same. */
extern "C" void simt_swap_stacks(void **from, void *to);
inline void swap_stacks(Fiber *from, Fiber *to)
{
    simt_swap_stacks(&from->stack_pointer, to->stack_pointer);
}
#endif

/* Stop the running fiber `from` and resume `to`; returns when somebody resumes `from`. */
inline void fiber_switch(Fiber *from, Fiber *to)
{
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    swap_stacks(from, to);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

/* To be called first in a fiber's entry, which `starter` resumed: tells ASan, and learns the bounds of a stack that is
 * the OS thread's own. */
inline void fiber_started(Fiber *starter)
{
#ifdef SIMT_ASAN
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (starter->stack == nullptr) {
        starter->stack = (char *)stack;
        starter->stack_bytes = bytes;
    }
#else
    (void)starter;
#endif
}

} // namespace simt

#endif /* CUDPO_SIMT_FIBER_H */
