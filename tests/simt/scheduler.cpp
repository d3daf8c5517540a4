/* scheduler.cpp - which thread of a block runs, and on which stack.
 *
 * A thread runs until it has to wait or ends: at a barrier, in a warp operation, and, under a random schedule, before
 * atomics and after cp.async waits.  Then the schedule picks another that is ready.  Stacks are used again: a thread
 * that ends leaves its stack to the next one that starts, so a kernel without barriers never switches at all. */
#include "turn.h"

#include <algorithm>

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

/* Of a set of the first `all` bits, the first from a random one of them on, in a circle. */
static unsigned any(unsigned set, unsigned all, unsigned random)
{
    const unsigned place = (random & 0xffff) * all >> 16;
    return (lowest(set >> place | set << (32 - place) % 32) + place) & 31;
}

/* The choice of a random schedule. */
Thread *pick_any(Worker *w)
{
    const uint64_t r = random_number() >> 16;
    const unsigned warp = any(w->ready_warps, w->warp_count, (unsigned)r);
    const unsigned lanes = std::min(w->thread_count - warp * 32, 32u);
    return &w->threads[warp * 32 + any(w->warps[warp].ready, lanes, (unsigned)(r >> 16))];
}

static void leave(Worker *w, Thread *t)
{
    if (!t->copies.empty()) copies_arrive(t, 0);
    t->state = EXITED;
    t->fiber = nullptr;
    w->warps[t->warp].exited |= 1u << t->lane;
    w->live--;
}

/* The life of a stack: one thread after another, for as long as the process lives. */
static void live()
{
    Worker *const w = worker;
    fiber_started(&w->main);
    Fiber *const self = current->fiber;
    for (;;) {
        current->fiber = self;
        w->call(w->context);
        leave(w, current);
        Thread *const next = pick(w);
        if (next != nullptr) {
            take(w, next);
            if (next->fiber == nullptr) continue; /* a new thread: it starts on this stack */
        }
        w->idle.push_back(self);
        fiber_switch(self, next != nullptr ? next->fiber : &w->main);
        /* Here again when start() has given this stack to a thread. */
    }
}

void start(Worker *w, Thread *t)
{
    if (w->idle.empty()) {
        t->fiber = fiber_new(config.stack_bytes, live);
        return;
    }
    t->fiber = w->idle.back();
    w->idle.pop_back();
}

void offer_turn()
{
    make_ready(worker, current->warp, 1u << current->lane);
    run_others(worker, current);
}

void maybe_yield()
{
    if (current != nullptr && config.order == RANDOM && (random_number() & 3) == 0) offer_turn();
}

bool run_threads()
{
    Worker *const w = worker;
    Thread *const first = pick(w);
    take(w, first);
    start(w, first);
    fiber_switch(&w->main, first->fiber);
    return w->live == 0;
}

} // namespace simt
