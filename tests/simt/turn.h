/* turn.h - whose turn it is: the step from one thread to another, which is most of what an emulated kernel costs, and so
 * is compiled into those that take it. */
#ifndef CUDPO_SIMT_TURN_H
#define CUDPO_SIMT_TURN_H

#include "internal.h"

namespace simt
{

inline unsigned lowest(unsigned set)
{
    return (unsigned)__builtin_ctz(set);
}

inline unsigned highest(unsigned set)
{
    return 31u - (unsigned)__builtin_clz(set);
}

/* A ready thread, or NULL.  The orderly schedules stay in a warp as long as they can, as a GPU tends to. */
inline Thread *pick(Worker *w)
{
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
        return pick_any(w);
    }
    return &w->threads[warp * 32 + lane];
}

inline void make_ready(Worker *w, unsigned warp, unsigned lanes)
{
    w->warps[warp].ready |= lanes;
    w->ready_warps |= 1u << warp;
}

/* Make a ready thread the current one. */
inline void take(Worker *w, Thread *t)
{
    Warp &warp = w->warps[t->warp];
    warp.ready &= ~(1u << t->lane);
    if (warp.ready == 0) w->ready_warps &= ~(1u << t->warp);
    w->current_warp = t->warp;
    current = t;
    threadIdx = t->index;
    race_thread_runs(t->linear);
}

/* The current thread waits: give the turn to another; returns when it is resumed. */
inline void run_others(Worker *w, Thread *me)
{
    Thread *const next = pick(w);
    Fiber *const mine = me->fiber;
    if (next == nullptr) { /* a deadlock, which the main stack reports */
        fiber_switch(mine, &w->main);
        return;
    }
    take(w, next);
    if (next == me) return;
    if (next->fiber == nullptr) start(w, next);
    fiber_switch(mine, next->fiber);
}

} // namespace simt

#endif /* CUDPO_SIMT_TURN_H */
