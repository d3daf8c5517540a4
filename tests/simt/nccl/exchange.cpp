/* exchange.cpp - elements from rank to rank, in turns of one chunk of the file that all map.
 *
 * Sums are made in the order of ranks, in float, and rounded once, so that all have the same bits. */
#include "exchange.h"
#include "device_memory.h"
#include "sanitizers.h"

#include <cuda_bf16.h>

#include <cstdio>
#include <cstring>

#include <time.h>

namespace simt
{

const char *const call_names[] = {"ncclAllReduce", "ncclReduce", "ncclAllGather", "ncclBroadcast"};

namespace
{

void nap()
{
    const timespec t = {0, 50000};
    nanosleep(&t, nullptr);
}

size_t size_of(int type)
{
    return type == NCCL_FLOAT32 ? 4 : 2;
}

float value(const char *data, uint64_t i, int type)
{
    float x;
    __nv_bfloat16 half;
    if (type == NCCL_FLOAT32) {
        memcpy(&x, data + i * 4, 4);
        return x;
    }
    memcpy(&half, data + i * 2, 2);
    return __bfloat162float(half);
}

void put(char *data, uint64_t i, int type, float x)
{
    const __nv_bfloat16 half = __float2bfloat16(x);
    if (type == NCCL_FLOAT32)
        memcpy(data + i * 4, &x, 4);
    else
        memcpy(data + i * 2, &half, 2);
}

/* Elements that an operation is about, of all ranks together. */
uint64_t elements(const ncclComm &c, const Call &call)
{
    return call.count * (call.kind == ALL_GATHER ? (uint64_t)c.size : 1);
}

/* Elements begin .. end-1 of an operation. */
struct Range {
    uint64_t begin, end;
};
Range meet(Range a, Range b)
{
    const Range r = {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    return r.begin < r.end ? r : Range{0, 0};
}
Range share_of(const Call &call, int rank)
{
    return {call.count * (uint64_t)rank, call.count * ((uint64_t)rank + 1)};
}

/* Of a chunk: what a rank gives, and what it gets. */
Range given(const Call &call, Range chunk, int rank)
{
    if (call.kind == ALL_GATHER) return meet(chunk, share_of(call, rank));
    if (call.kind == BROADCAST && rank != call.root) return {0, 0};
    return chunk;
}
Range gotten(const Call &call, Range chunk, int rank)
{
    if (call.kind == REDUCE && rank != call.root) return {0, 0};
    return chunk;
}

/* The element that all ranks' chunks make. */
float result(const ncclComm &c, const Call &call, uint64_t i, uint64_t in_chunk)
{
    if (call.kind == BROADCAST) return value(c.room->seats[call.root].data, in_chunk, call.type);
    if (call.kind == ALL_GATHER)
        return value(c.room->seats[i / call.count].data, in_chunk, call.type);
    float sum = value(c.room->seats[0].data, in_chunk, call.type);
    for (int rank = 1; rank < c.size; rank++) {
        sum += value(c.room->seats[rank].data, in_chunk, call.type);
    }
    return sum;
}

/* Wait for all ranks to have come so far in their turns; false: aborted. */
bool all_have(const ncclComm &c, std::atomic<uint64_t> Seat::*count, uint64_t turn)
{
    for (int rank = 0; rank < c.size; rank++) {
        while (c.room->seats[rank].*count < turn) {
            if (c.ended) return false;
            nap();
        }
    }
    return true;
}

void check_calls(const ncclComm &c, const Call &call)
{
    for (int rank = 0; rank < c.size; rank++) {
        const Call &other = c.room->seats[rank].call;
        if (!(other != call)) continue;
        fprintf(stderr,
                "SIMT ERROR: NCCL: rank %d calls %s of %llu elements of type %d where rank %d "
                "calls %s of %llu of type %d\n",
                c.rank, call_names[call.kind], (unsigned long long)call.count, call.type, rank,
                call_names[other.kind], (unsigned long long)other.count, other.type);
        while (!c.ended)
            nap();
    }
}

/* One turn; false: aborted. */
bool do_chunk(ncclComm &c, const Operation &o, Range chunk)
{
    const Call &call = o.call;
    const size_t size = size_of(call.type);
    Seat &mine = c.room->seats[c.rank];
    if (!all_have(c, &Seat::read, c.turn)) return false;
    const Range give = given(call, chunk, c.rank), get = gotten(call, chunk, c.rank);
    const uint64_t send_begin = call.kind == ALL_GATHER ? share_of(call, c.rank).begin : 0;
    if (give.begin < give.end)
        memcpy(mine.data + (give.begin - chunk.begin) * size,
               o.send + (give.begin - send_begin) * size, (give.end - give.begin) * size);
    mine.call = call;
    mine.wrote = c.turn + 1;
    if (!all_have(c, &Seat::wrote, c.turn + 1)) return false;
    check_calls(c, call);
    if (c.ended) return false;
    for (uint64_t i = get.begin; i < get.end; i++) {
        put(o.receive, i, call.type, result(c, call, i, i - chunk.begin));
    }
    mine.read = ++c.turn;
    return true;
}

bool inside(const void *data, uint64_t bytes)
{
    const Allocation a = device_allocation(data);
    return a.data != nullptr &&
           (uint64_t)(static_cast<const char *>(data) - a.data) + bytes <= a.bytes;
}

} // namespace

const char *check_memory(const ncclComm &c, const Operation &o)
{
    const uint64_t size = size_of(o.call.type), all = elements(c, o.call) * size;
    const uint64_t share = o.call.count * size, own = share * (uint64_t)c.rank;
    const uint64_t sent = o.call.kind == ALL_GATHER ? share : all;
    const char *const in_place = o.receive + (o.call.kind == ALL_GATHER ? own : 0);
    if (!inside(o.send, sent) || !inside(o.receive, all))
        return "memory that is not the device's, or leaves its allocation";
    if (o.send != in_place && o.send < o.receive + all && o.receive < o.send + sent)
        return "overlaps, and is not in place";
    return nullptr;
}

void exchange(ncclComm &c, const Operation &o)
{
    const uint64_t total = elements(c, o.call), step = CHUNK / size_of(o.call.type);
    const Allocation places[] = {device_allocation(o.send), device_allocation(o.receive)};
    if (c.ended) return;
    for (const Allocation &a : places) {
        allow(a.data, a.bytes);
    }
    for (uint64_t begin = 0; begin < total; begin += step) {
        if (!do_chunk(c, o, {begin, begin + step < total ? begin + step : total})) break;
    }
    for (const Allocation &a : places) {
        forbid(a.data, a.bytes);
    }
}

} // namespace simt
