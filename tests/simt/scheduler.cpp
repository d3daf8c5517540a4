/* scheduler.cpp - which thread of a block runs, and on which stack.
 *
 * A thread runs until it has to wait or ends: at a barrier, in a warp operation, and, under a random schedule, before
 * atomics and after cp.async waits.  Then the schedule picks another that is ready.  Stacks are used again: a thread
 * that ends leaves its stack to the next one that starts, so a kernel without barriers never switches at all. */
#include "internal.h"

__thread uint3 threadIdx, blockIdx;
__thread dim3 blockDim, gridDim;

namespace simt
{

__thread Worker *worker;
__thread Thread *current;

unsigned lane()
{
    return current->lane;
}

/* xorshift64: each block has its own sequence, so that a seed gives the same schedule on any number of OS threads. */
uint64_t random_number()
{
    uint64_t x = worker->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return worker->random = x;
}

static unsigned lowest(unsigned set)
{
    return (unsigned)__builtin_ctz(set);
}

static unsigned highest(unsigned set)
{
    return 31u - (unsigned)__builtin_clz(set);
}

static unsigned any(unsigned set, unsigned number)
{
    for (number %= (unsigned)__builtin_popcount(set); number > 0; number--) {
        set &= set - 1;
    }
    return lowest(set);
}

/* A ready thread, or NULL.  The orderly schedules stay in a warp as long as they can, as a GPU tends to. */
static Thread *pick()
{
    Worker *const w = worker;
    if (w->ready_warps == 0) return nullptr;
    const bool stay = w->ready_warps >> w->current_warp & 1;
    unsigned warp, lane;
    if (config.order == FORWARD) {
        warp = stay ? w->current_warp : lowest(w->ready_warps);
        lane = lowest(w->warps[warp].ready);
    } else if (config.order == REVERSE) {
        warp = stay ? w->current_warp : highest(w->ready_warps);
        lane = highest(w->warps[warp].ready);
    } else {
        const unsigned r = (unsigned)(random_number() >> 20);
        warp = any(w->ready_warps, r & 1023);
        lane = any(w->warps[warp].ready, r >> 10 & 1023);
    }
    return &w->threads[warp * 32 + lane];
}

void make_ready(unsigned warp, unsigned lanes)
{
    worker->warps[warp].ready |= lanes;
    worker->ready_warps |= 1u << warp;
}

/* Make a ready thread the current one. */
static inline void take(Thread *t)
{
    Warp &warp = worker->warps[t->warp];
    warp.ready &= ~(1u << t->lane);
    if (warp.ready == 0) worker->ready_warps &= ~(1u << t->warp);
    worker->current_warp = t->warp;
    current = t;
    threadIdx = t->index;
    race_thread_runs(t->linear);
}

static void leave(Thread *t)
{
    copies_arrive(t, 0);
    t->state = EXITED;
    t->fiber = nullptr;
    worker->warps[t->warp].exited |= 1u << t->lane;
    worker->live--;
}

/* The life of a stack: one thread after another, for as long as the process lives. */
static void live()
{
    fiber_started(&worker->main);
    Fiber *const self = current->fiber;
    for (;;) {
        current->fiber = self;
        current->state = READY;
        worker->call(worker->context);
        leave(current);
        Thread *const next = pick();
        if (next != nullptr) {
            take(next);
            if (next->fiber == nullptr) continue; /* a new thread: it starts on this stack */
        }
        worker->idle.push_back(self);
        fiber_switch(self, next != nullptr ? next->fiber : &worker->main);
        /* Here again when start() has given this stack to a thread. */
    }
}

/* Give a thread that is about to have its first turn a stack. */
static void start(Thread *t)
{
    if (worker->idle.empty()) {
        t->fiber = fiber_new(config.stack_bytes, live);
        return;
    }
    t->fiber = worker->idle.back();
    worker->idle.pop_back();
}

void run_others()
{
    Thread *const me = current, *const next = pick();
    Fiber *const mine = me->fiber;
    if (next == nullptr) { /* a deadlock, which the main stack reports */
        fiber_switch(mine, &worker->main);
        return;
    }
    take(next);
    if (next == me) return;
    if (next->fiber == nullptr) start(next);
    fiber_switch(mine, next->fiber);
}

void offer_turn()
{
    make_ready(current->warp, 1u << current->lane);
    run_others();
}

void maybe_yield()
{
    if (current != nullptr && config.order == RANDOM && (random_number() & 3) == 0) offer_turn();
}

bool run_threads()
{
    Thread *const first = pick();
    take(first);
    start(first);
    fiber_switch(&worker->main, first->fiber);
    return worker->live == 0;
}

} // namespace simt
