/* internal.h - the state of a block while it runs, and what the emulator's files offer each other.
 *
 * An OS thread runs one block at a time, from its first instruction to its last, and holds the block's state in its
 * Worker.  OS threads share nothing but device memory and the list of its allocations. */
#ifndef CUDPO_SIMT_INTERNAL_H
#define CUDPO_SIMT_INTERNAL_H

#include <cstdint>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "race.h"

namespace simt
{

/* The environment, read before main(): README.md says what each variable does.  simt_set_schedule() changes the order. */
enum Order { FORWARD, REVERSE, RANDOM };
struct Config {
    Order order;
    uint64_t seed;
    size_t stack_bytes;
    bool serial;
};
extern Config config;

/* What a thread waits for, or did last. */
enum State : uint8_t { NEW, AT_BARRIER, AT_WARP_OP, EXITED };

/* A cp.async that was issued and has not arrived. */
struct Copy {
    char *to;
    const char *from;
    int bytes, valid;
    int group; /* number of its group in the thread */
    Site site;
};

/* What each turn needs is in the first 64 bytes. */
struct alignas(64) Thread {
    uint3 index;     /* threadIdx */
    unsigned linear; /* number in the block */
    uint8_t warp, lane;
    State state;
    Kind kind;      /* of the warp operation that it waits in */
    Site site;      /* of what it waits in */
    Fiber *fiber;   /* none before its first turn and after its last */
    int copy_group; /* that the next cp.async belongs to */
    std::vector<Copy> copies;
};

/* Sets of lanes. */
struct Warp {
    unsigned exist, exited, ready;
    unsigned waiting; /* in a warp operation, each with its argument, mask and instruction below */
    void *argument[32];
    unsigned mask[32];
    unsigned instruction[32]; /* lanes of one operation have the same */
};

/* A SHARED variable that a thread of the block has come by. */
struct SharedVariable {
    const void *key;
    char *data;
    size_t bytes;
};

constexpr unsigned MAX_THREADS = 1024;      /* of a block: CUDA's limit */
constexpr size_t ARENA = 256 << 10;         /* bytes of a worker's shared memory and its redzones */
constexpr size_t REDZONE = 128;             /* bytes between two SHARED variables */
constexpr size_t SHARED_DEFAULT = 48 << 10; /* bytes that any launch may have */
constexpr size_t SHARED_LIMIT =
    227 << 10; /* bytes with cudaFuncSetAttribute, on compute capability 9.0 */

struct Worker {
    Fiber main; /* the OS thread's own stack */
    std::vector<Fiber *> idle;

    /* The launch. */
    const char *kernel; /* its name; none between launches */
    void (*call)(void *);
    void *context;
    size_t shared_limit; /* static and dynamic bytes together */

    /* The block. */
    std::vector<Thread> threads;
    Warp warps[MAX_THREADS / 32];
    unsigned ready_warps; /* a set */
    unsigned warp_count, thread_count;
    unsigned live;         /* threads that have not exited */
    unsigned arrived;      /* of them, at the barrier */
    unsigned current_warp; /* that had the last turn */
    const Thread *first;   /* of them, to arrive */
    int predicates;        /* of those at the barrier: how many are not 0 */
    int answer;            /* of the last barrier: read before anybody comes to the next */
    uint64_t random;

    /* Its shared memory: SHARED variables grow from the arena's begin, DYN_SHARED ends at its end. */
    char *arena, *static_end, *dynamic;
    size_t static_bytes, dynamic_bytes;
    std::vector<SharedVariable> variables;
};
extern __thread Worker *worker;
extern __thread Thread *current; /* none outside of a kernel */

/* report.cpp */
const char *kind_name(Kind kind);
/* "file:line" of an instruction of this program, by addr2line. */
void source_line(uintptr_t instruction, char *text, size_t bytes);
/* Where the program was loaded: instructions are numbered from here. */
uintptr_t program_base();
/* For the time of a launch, a memory fault ends the process with a message that names the thread. */
void faults_catch();
void faults_release();
void faults_prepare_thread(); /* once in every OS thread that runs blocks */

/* scheduler.cpp: who runs next; turn.h has the rest. */
uint64_t random_number();
Thread *pick_any(Worker *w);
void start(Worker *w, Thread *t); /* give a thread that is about to have its first turn a stack */
void offer_turn(); /* the current thread could go on: put it among the ready ones and let the schedule pick */
bool run_threads(); /* of the prepared block; false if some can never go on */

/* barrier.cpp */
[[noreturn]] void report_deadlock();

/* shared.cpp */
void shared_create(Worker *w); /* the arena */
void shared_reset(size_t dynamic_bytes);
void check_shared(const void *p, size_t bytes, Site site, const char *what);
bool in_shared(const char *p, size_t bytes);

/* cp_async.cpp: let the thread's copies arrive, all but those of its last `keep` groups. */
void copies_arrive(Thread *t, int keep);

/* device_memory.cpp */
void device_memory_allow(bool kernels_run);
size_t dynamic_shared_limit(const void *kernel);
cudaError_t set_error(cudaError_t error); /* as cudaGetLastError() tells it; returns it */
/* "+0x40 of an allocation of 1024 bytes", for messages. */
void describe_device_address(const char *p, char *text, size_t bytes);

} // namespace simt

#endif /* CUDPO_SIMT_INTERNAL_H */
