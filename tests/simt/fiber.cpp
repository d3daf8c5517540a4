/* fiber.cpp - making fibers, and the switch between two of them. */
#include "fiber.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

namespace simt
{

#ifdef SIMT_UCONTEXT

static void prepare(Fiber *fiber, void (*entry)())
{
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}

#else

/* System V ABI for x86-64: a call preserves rbp, rbx, r12 to r15 and the stack pointer; the rest is dead across it. */
asm(R"(
.text
.globl simt_swap_stacks
.type simt_swap_stacks,@function
simt_swap_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_swap_stacks,.-simt_swap_stacks
)");

/* A stack as the switch leaves one: it pops six registers and returns to entry, which finds a null return address,
 * where debuggers stop unwinding, and the alignment that the ABI promises to a function. */
static void prepare(Fiber *fiber, void (*entry)())
{
    static __thread unsigned stacks;
    /* Not all at the same place in a page, which would make them compete for the same lines of the first-level cache. */
    const size_t shift = stacks++ % 16 * 256;
    void **top = reinterpret_cast<void **>(fiber->stack + fiber->stack_bytes - shift);
    *--top = nullptr;
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) {
        *--top = nullptr;
    }
    fiber->stack_pointer = top;
}

#endif

Fiber *fiber_new(size_t stack_bytes, void (*entry)())
{
    void *memory = mmap(nullptr, GUARD_BYTES + stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) {
        perror("SIMT ERROR: no memory for a thread's stack");
        abort();
    }
    Fiber *fiber = new Fiber;
    fiber->stack = static_cast<char *>(memory) + GUARD_BYTES;
    fiber->stack_bytes = stack_bytes;
    prepare(fiber, entry);
    return fiber;
}

} // namespace simt
