/* exchange.h - what ranks of the emulated NCCL give one another. */
#ifndef CUDPO_SIMT_NCCL_EXCHANGE_H
#define CUDPO_SIMT_NCCL_EXCHANGE_H

#include "backend/cuda/nccl.h"

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace simt
{

enum Kind : uint32_t { ALL_REDUCE, REDUCE, ALL_GATHER, BROADCAST };
extern const char *const call_names[]; /* "ncclAllReduce", ... */

constexpr int MAX_RANKS = 8;
constexpr size_t CHUNK = 64 << 10;

/* What a rank was asked to do, as the others compare it with theirs. */
struct Call {
    Kind kind;
    int type, root;
    uint64_t count;

    bool operator!=(const Call &o) const
    {
        return kind != o.kind || type != o.type || root != o.root || count != o.count;
    }
};

/* The file that all ranks map. */
struct Seat {
    std::atomic<uint64_t> wrote, read; /* turns */
    Call call;
    alignas(64) char data[CHUNK];
};
struct Room {
    std::atomic<int> joined, finalized;
    Seat seats[MAX_RANKS];
};

struct Operation {
    Call call;
    const char *send;
    char *receive;
    cudaStream_t stream;
};

} // namespace simt

struct ncclComm {
    int rank, size;
    std::string path;
    simt::Room *room;
    uint64_t turn;                      /* of the work that is done */
    std::atomic<bool> ended;            /* aborted or destroyed */
    std::atomic<int> error;             /* nccl_result that was asked for, once it shows */
    std::vector<simt::Operation> group; /* that has ended and is not in its stream */
    int polls;                          /* before the next success */
    bool ready, finalizing, stuck;      /* stuck: in progress for ever */
};

namespace simt
{

/* NULL, or what is wrong: NCCL works in place where the share is where it belongs, and else on memory apart. */
const char *check_memory(const ncclComm &c, const Operation &o);

/* Do it, as its stream has come to it; returns when all ranks have, or when the communicator is aborted. */
void exchange(ncclComm &c, const Operation &o);

} // namespace simt

#endif /* CUDPO_SIMT_NCCL_EXCHANGE_H */
