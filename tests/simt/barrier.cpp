/* barrier.cpp - __syncthreads and its variants, and what is said when a block can't go on. */
#include "turn.h"

#include <cstdio>
#include <map>
#include <string>

namespace simt
{

/* All have arrived. */
static void release(Worker *w, BarrierOp op)
{
    w->answer = w->predicates;
    if (op == BARRIER_AND) w->answer = w->predicates == (int)w->thread_count;
    if (op == BARRIER_OR) w->answer = w->predicates > 0;
    for (unsigned warp = 0; warp < w->warp_count; warp++) {
        make_ready(w, warp, w->warps[warp].exist);
    }
    w->arrived = 0;
    w->predicates = 0;
    race_barrier();
}

int syncthreads(int predicate, BarrierOp op, Site site)
{
    Worker *const w = worker;
    Thread *const me = current;
    me->site = site;
    me->state = AT_BARRIER;
    if (w->live != w->thread_count)
        die(site, "__syncthreads after %u of the block's %u threads have exited",
            w->thread_count - w->live, w->thread_count);
    if (w->arrived == 0) w->first = me;
    const Thread &first = *w->first;
    if (first.site.line != site.line ||
        first.site.file != site.file) /* all at one, not at one each */
        die(site,
            "barrier divergence: this __syncthreads is not the one that thread (%u,%u,%u) is at, "
            "%s:%d",
            first.index.x, first.index.y, first.index.z, first.site.file, first.site.line);
    w->predicates += predicate != 0;
    if (++w->arrived == w->live) {
        release(w, op);
        if (config.order == FORWARD)
            w->current_warp = 0; /* each phase in order, from the first warp on */
    }
    run_others(w, me);
    return w->answer;
}

/* Called on the main stack, when no thread is ready: who waits where. */
void report_deadlock()
{
    current = nullptr;
    fprintf(stderr, "SIMT ERROR: deadlock: no thread of the block can run\n");
    std::map<std::string, std::vector<unsigned>> groups;
    Site site = {nullptr, 0};
    for (unsigned i = 0; i < worker->thread_count; i++) {
        const Thread &t = worker->threads[i];
        char text[600] = "exited";
        if (t.state != EXITED) {
            snprintf(text, sizeof text, "at %s, %s:%d",
                     t.state == AT_WARP_OP ? kind_name(t.kind) : "__syncthreads", t.site.file,
                     t.site.line);
            site = t.site;
        }
        groups[text].push_back(i);
    }
    for (const auto &group : groups) {
        fprintf(stderr, "  %4zu threads %s:", group.second.size(), group.first.c_str());
        for (size_t i = 0; i < group.second.size() && i < 12; i++) {
            fprintf(stderr, " %u", group.second[i]);
        }
        fprintf(stderr, "%s\n", group.second.size() > 12 ? " ..." : "");
    }
    die(site,
        "barrier divergence: a barrier or a warp operation waits for threads that never come");
}

} // namespace simt
