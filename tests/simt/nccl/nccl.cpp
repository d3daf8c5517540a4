/* nccl.cpp - NCCL's functions between processes of one machine: the library that $CUDPO_NCCL names beside the emulated plugin.
 *
 * Ranks meet in a file that all map, which the unique id names; what they give goes there in turns of one chunk.  Sums are made
 * in the order of ranks, in float, and rounded once, so that all have the same bits.  As in the real library nothing that is
 * called waits for a peer: communicators and groups are in progress until they are asked for, and only then is a group's work in
 * its stream, where it waits for the peers until it is aborted.  A peer that is gone is never noticed, which is the harder
 * case.  Calls that do not fit the other ranks' are reported, and hang. */
#include "exchange.h"
#include "stream.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

using namespace simt;

namespace
{

/* "K:R" of a variable: R at its K-th time. */
struct Wish {
    long time = 0;
    int result = 0;
    explicit Wish(const char *variable)
    {
        const char *const text = getenv(variable);
        if (text != nullptr) sscanf(text, "%ld:%d", &time, &result);
    }
};

/* Outlive everything: a destructor at the end of the process would race with threads that hang. */
std::vector<ncclComm *> &comms()
{
    static auto *const all = new std::vector<ncclComm *>;
    return *all;
}

char last_error[256];

thread_local int depth;
thread_local std::vector<Operation> begun;
thread_local ncclComm *group_comm;

void nap()
{
    const timespec t = {0, 50000};
    nanosleep(&t, nullptr);
}

[[noreturn]] void hang()
{
    for (;;)
        pause();
}

nccl_result refuse(const char *function, const char *what)
{
    fprintf(stderr, "SIMT ERROR: %s: %s\n", function, what);
    snprintf(last_error, sizeof last_error, "%s", what);
    return NCCL_INVALID_ARGUMENT;
}

/* What SIMT_NCCL_FAIL and SIMT_NCCL_HANG ask of this call. */
nccl_result asked_for(const char *function, ncclComm *comm)
{
    static const Wish wish("SIMT_NCCL_FAIL");
    static const char *const hangs = getenv("SIMT_NCCL_HANG");
    static std::atomic<long> calls;
    if (hangs != nullptr && strcmp(hangs, function) == 0) {
        fprintf(stderr, "SIMT: %s hangs as SIMT_NCCL_HANG asks\n", function);
        hang();
    }
    if (++calls != wish.time) return NCCL_SUCCESS;
    fprintf(stderr, "SIMT: NCCL call %ld, %s, gives %d as SIMT_NCCL_FAIL asks\n", wish.time,
            function, wish.result);
    snprintf(last_error, sizeof last_error, "%s was asked to fail", function);
    if (wish.result == NCCL_IN_PROGRESS && comm != nullptr) comm->stuck = true;
    return (nccl_result)wish.result;
}

/* The K-th operation that a stream comes to hangs; where SIMT_NCCL_ASYNC=K:R, NCCL knows of an error R then. */
bool hangs_here(ncclComm &c)
{
    static const Wish wish("SIMT_NCCL_ASYNC");
    static long operations;
    if (++operations != wish.time) return false;
    fprintf(stderr, "SIMT: operation %ld of NCCL hangs with %d as SIMT_NCCL_ASYNC asks\n",
            wish.time, wish.result);
    snprintf(last_error, sizeof last_error, "operation %ld was asked to fail", wish.time);
    c.error = wish.result;
    while (!c.ended)
        nap();
    return true;
}

void perform(ncclComm &c, const Operation &o)
{
    if (!hangs_here(c)) exchange(c, o);
}

nccl_result add(Call call, const void *send, void *receive, int op, ncclComm *comm,
                cudaStream_t stream)
{
    const char *const function = call_names[call.kind];
    const nccl_result wanted = asked_for(function, comm);
    if (wanted != NCCL_SUCCESS && wanted != NCCL_IN_PROGRESS) return wanted;
    if (comm == nullptr || comm->ended) return refuse(function, "no communicator");
    if (!comm->ready || !comm->group.empty()) return refuse(function, "something is in progress");
    if (op != NCCL_SUM || (call.type != NCCL_FLOAT32 && call.type != NCCL_BFLOAT16))
        return refuse(function, "an operation or type that the emulator does not know");
    if (call.count == 0 || stream == nullptr || call.root >= comm->size)
        return refuse(function, "nothing to do, no stream, or no such root");
    if (depth == 0) return refuse(function, "outside of a group");
    const Operation o = {call, static_cast<const char *>(send), static_cast<char *>(receive),
                         stream};
    const char *const wrong = check_memory(*comm, o);
    if (wrong != nullptr) return refuse(function, wrong);
    begun.push_back(o);
    group_comm = comm;
    return wanted;
}

bool open_room(ncclComm *c)
{
    const int file = open(c->path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return false;
    void *const memory = mmap(nullptr, sizeof(Room), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    c->room = memory == MAP_FAILED ? nullptr : static_cast<Room *>(memory);
    return c->room != nullptr;
}

/* What was given to a comm is done as far as it is the comm's: it is ready, its group is in its stream, all ranks said
 * goodbye. */
bool progress(ncclComm *c)
{
    if (c->stuck || c->polls-- > 0) return false;
    c->polls = 0;
    if (!c->ready) {
        if (c->room->joined < c->size) return false;
        c->ready = true;
        if (c->rank == 0) unlink(c->path.c_str());
    }
    const std::vector<Operation> group = std::move(c->group);
    c->group.clear();
    for (const Operation &o : group) {
        submit(o.stream, [c, o] { perform(*c, o); });
    }
    return !c->finalizing || c->room->finalized >= c->size;
}

nccl_result end(const char *function, ncclComm *c)
{
    const nccl_result wanted = asked_for(function, c);
    if (c == nullptr || c->ended.exchange(true)) return refuse(function, "ended twice");
    return wanted;
}

} // namespace

extern "C" {

nccl_result ncclGetVersion(int *version)
{
    const char *const wanted = getenv("SIMT_NCCL_VERSION");
    *version = wanted != nullptr ? atoi(wanted) : 22809;
    return asked_for(__func__, nullptr);
}
const char *ncclGetErrorString(nccl_result result)
{
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return (unsigned)result < 8 ? texts[result] : "unknown result code";
}
const char *ncclGetLastError(nccl_comm)
{
    return last_error;
}

nccl_result ncclGetUniqueId(nccl_id *id)
{
    const char *const folder = getenv("TMPDIR");
    const nccl_result wanted = asked_for(__func__, nullptr);
    if (wanted != NCCL_SUCCESS) return wanted;
    memset(id, 0, sizeof *id);
    const int length = snprintf(id->bytes, sizeof id->bytes, "%s/cudpo-nccl-XXXXXX",
                                folder != nullptr ? folder : "/tmp");
    if (length >= (int)sizeof id->bytes) return NCCL_SYSTEM_ERROR;
    const int file = mkstemp(id->bytes);
    const bool made = file >= 0 && ftruncate(file, sizeof(Room)) == 0;
    if (file >= 0) close(file);
    return made ? NCCL_SUCCESS : NCCL_SYSTEM_ERROR;
}

nccl_result ncclCommInitRankConfig(nccl_comm *out, int size, nccl_id id, int rank,
                                   nccl_config *config)
{
    *out = nullptr;
    if (config->magic != NCCL_MAGIC || config->size < sizeof *config || config->blocking != 0)
        return refuse(__func__, "a configuration that blocks, or none");
    if (size < 1 || size > MAX_RANKS || rank < 0 || rank >= size)
        return refuse(__func__, "no such rank");
    std::unique_ptr<ncclComm> c(new ncclComm());
    c->rank = rank;
    c->size = size;
    c->path = id.bytes;
    const nccl_result wanted = asked_for(__func__, c.get());
    if (wanted != NCCL_SUCCESS && wanted != NCCL_IN_PROGRESS) return wanted;
    if (!open_room(c.get())) return NCCL_SYSTEM_ERROR;
    c->room->joined++;
    c->polls = 1;
    *out = c.get();
    comms().push_back(c.release());
    return NCCL_IN_PROGRESS;
}

nccl_result ncclCommGetAsyncError(nccl_comm c, nccl_result *result)
{
    static const Wish wish("SIMT_NCCL_POLL");
    static const std::thread::id first = std::this_thread::get_id();
    static long polls;
    *result = (nccl_result)c->error.load();
    if (c->ended) return refuse(__func__, "the communicator is no more");
    /* The watch's thread, which may be anywhere meanwhile, finds what is there. */
    if (std::this_thread::get_id() != first && !c->finalizing) return NCCL_SUCCESS;
    if (++polls == wish.time) return (nccl_result)wish.result;
    if (*result == NCCL_SUCCESS && !progress(c)) *result = NCCL_IN_PROGRESS;
    return NCCL_SUCCESS;
}

nccl_result ncclGroupStart(void)
{
    const nccl_result wanted = asked_for(__func__, comms().empty() ? nullptr : comms().back());
    if (wanted == NCCL_SUCCESS || wanted == NCCL_IN_PROGRESS) depth++;
    return wanted;
}

nccl_result ncclGroupEnd(void)
{
    const nccl_result wanted = asked_for(__func__, group_comm);
    if (depth == 0 || --depth > 0) return refuse(__func__, "no group was started, or several");
    if (wanted != NCCL_SUCCESS && wanted != NCCL_IN_PROGRESS) return wanted;
    if (group_comm == nullptr) return NCCL_SUCCESS;
    group_comm->group = std::move(begun);
    group_comm->polls = 1;
    begun.clear();
    group_comm = nullptr;
    return NCCL_IN_PROGRESS;
}

nccl_result ncclAllReduce(const void *send, void *receive, size_t n, nccl_type type, nccl_op op,
                          nccl_comm comm, cudaStream_t stream)
{
    return add({ALL_REDUCE, type, 0, n}, send, receive, op, comm, stream);
}
nccl_result ncclReduce(const void *send, void *receive, size_t n, nccl_type type, nccl_op op,
                       int root, nccl_comm comm, cudaStream_t stream)
{
    return add({REDUCE, type, root, n}, send, receive, op, comm, stream);
}
nccl_result ncclAllGather(const void *send, void *receive, size_t each, nccl_type type,
                          nccl_comm comm, cudaStream_t stream)
{
    return add({ALL_GATHER, type, 0, each}, send, receive, NCCL_SUM, comm, stream);
}
nccl_result ncclBroadcast(const void *send, void *receive, size_t n, nccl_type type, int root,
                          nccl_comm comm, cudaStream_t stream)
{
    return add({BROADCAST, type, root, n}, send, receive, NCCL_SUM, comm, stream);
}

nccl_result ncclCommFinalize(nccl_comm c)
{
    const nccl_result wanted = asked_for(__func__, c);
    if (wanted != NCCL_SUCCESS && wanted != NCCL_IN_PROGRESS) return wanted;
    c->room->finalized++;
    c->finalizing = true;
    return NCCL_IN_PROGRESS;
}
nccl_result ncclCommDestroy(nccl_comm c)
{
    return end(__func__, c);
}
nccl_result ncclCommAbort(nccl_comm c)
{
    return end(__func__, c);
}
}
