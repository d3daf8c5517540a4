/* warp_op.cpp - instructions that the lanes of a warp execute together, but for those on matrices.
 *
 * Lanes arrive one by one, leave their argument and wait; the last one checks that all mean the same instruction,
 * and does the work of all: on a GPU, lanes that do not would hang or exchange garbage. */
#include "turn.h"

#include <algorithm>

namespace simt
{

/* Calls f(lane) for each lane of a set. */
template <class F> static inline void for_lanes(unsigned set, F f)
{
    for (; set != 0; set &= set - 1) {
        f((unsigned)__builtin_ctz(set));
    }
}

[[noreturn]] __attribute__((noinline)) static void bad_mask(const Warp &warp, unsigned mask,
                                                            Kind kind, Site site)
{
    if (!(mask >> current->lane & 1))
        die(site, "%s: the calling lane %u is not in its mask 0x%08x", kind_name(kind),
            current->lane, mask);
    if (mask & ~warp.exist)
        die(site, "%s: mask 0x%08x names lanes that do not exist (the warp has 0x%08x)",
            kind_name(kind), mask, warp.exist);
    die(site, "%s: mask 0x%08x names exited lanes 0x%08x", kind_name(kind), mask,
        mask & warp.exited);
}

/* Instructions marked .aligned in PTX must be the very same one in every lane; others only of one kind. */
static inline unsigned instruction_of(Kind kind, Site site)
{
    const bool aligned = kind == K_MMA || kind == K_LDSM;
    return (unsigned)kind << 24 | (aligned ? (unsigned)site.line & 0xffffff : 0);
}

static inline bool all_same(const Warp &warp, unsigned mask, unsigned instruction)
{
    unsigned difference = 0;
    if (mask == ~0u) {
        for (unsigned lane = 0; lane < 32; lane++) {
            difference |= (warp.mask[lane] ^ mask) | (warp.instruction[lane] ^ instruction);
        }
    } else {
        for_lanes(mask, [&](unsigned lane) {
            difference |= (warp.mask[lane] ^ mask) | (warp.instruction[lane] ^ instruction);
        });
    }
    return difference == 0;
}

[[noreturn]] __attribute__((noinline)) static void diverge(const Warp &warp, unsigned mask,
                                                           Kind kind, Site site)
{
    unsigned lane = 0;
    while (!(mask >> lane & 1) ||
           (warp.mask[lane] == mask && warp.instruction[lane] == instruction_of(kind, site))) {
        lane++;
    }
    const Thread &other = worker->threads[current->warp * 32u + lane];
    if (warp.mask[lane] != mask)
        die(site, "%s: lane %u waits with mask 0x%08x at %s:%d, lane %u with 0x%08x",
            kind_name(kind), lane, warp.mask[lane], other.site.file, other.site.line, current->lane,
            mask);
    die(site, "warp divergence: lane %u is at %s, %s:%d, lane %u at %s", lane,
        kind_name(other.kind), other.site.file, other.site.line, current->lane, kind_name(kind));
}

void warp_op(unsigned mask, Kind kind, void *argument, Execute execute, Site site)
{
    Worker *const w = worker;
    Thread *const me = current;
    Warp &warp = w->warps[me->warp];
    const unsigned bit = 1u << me->lane, instruction = instruction_of(kind, site);
    if (!(mask & bit) || (mask & (~warp.exist | warp.exited))) bad_mask(warp, mask, kind, site);
    me->site = site;
    me->kind = kind;
    warp.argument[me->lane] = argument;
    warp.mask[me->lane] = mask;
    warp.instruction[me->lane] = instruction;
    warp.waiting |= bit;
    if ((warp.waiting & mask) != mask) {
        me->state = AT_WARP_OP;
        run_others(w, me);
        return;
    }
    if (!all_same(warp, mask, instruction)) diverge(warp, mask, kind, site);
    execute(warp.argument, mask);
    if (kind == K_SYNCWARP) race_syncwarp(me->warp, mask);
    warp.waiting &= ~mask;
    const unsigned others = mask & ~bit;
    if (others == 0) return;
    make_ready(w, me->warp, others);
    if (config.order == RANDOM)
        offer_turn(); /* it is not always the last to arrive that goes on first */
}

void exec_nop(void **, unsigned) {}

void exec_shfl(void **arguments, unsigned mask)
{
    uint64_t values[32];
    for_lanes(mask, [&](unsigned l) { values[l] = static_cast<ShflArg *>(arguments[l])->value; });
    for_lanes(mask, [&](unsigned l) {
        ShflArg *const a = static_cast<ShflArg *>(arguments[l]);
        if (!(mask >> a->source & 1))
            die(worker->threads[current->warp * 32u + l].site,
                "__shfl_sync: lane %u reads lane %d, which is not in mask 0x%08x", l, a->source,
                mask);
        a->value = values[a->source];
    });
}

void exec_vote(void **arguments, unsigned mask)
{
    unsigned ballot = 0;
    for_lanes(mask, [&](unsigned l) {
        if (static_cast<VoteArg *>(arguments[l])->predicate) ballot |= 1u << l;
    });
    for_lanes(mask, [&](unsigned l) { static_cast<VoteArg *>(arguments[l])->ballot = ballot; });
}

static int64_t combine(ReduceOp op, int64_t a, int64_t b)
{
    switch (op) {
    case REDUCE_ADD:
        return a + b;
    case REDUCE_MIN:
        return std::min(a, b);
    case REDUCE_MAX:
        return std::max(a, b);
    case REDUCE_AND:
        return a & b;
    case REDUCE_OR:
        return a | b;
    case REDUCE_XOR:
        break;
    }
    return a ^ b;
}

void exec_reduce(void **arguments, unsigned mask)
{
    ReduceArg result = *static_cast<ReduceArg *>(arguments[__builtin_ctz(mask)]);
    for_lanes(mask & (mask - 1), [&](unsigned l) {
        result.value =
            combine(result.op, result.value, static_cast<ReduceArg *>(arguments[l])->value);
    });
    for_lanes(mask,
              [&](unsigned l) { static_cast<ReduceArg *>(arguments[l])->value = result.value; });
}

} // namespace simt
