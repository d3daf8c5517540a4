/* report.cpp - the environment, and how a kernel's mistake ends the process. */
#include "internal.h"
#include "schedule.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

namespace simt
{

static void set_order(Config *c, const char *schedule)
{
    c->order = FORWARD;
    c->seed = 1;
    if (schedule == nullptr || strcmp(schedule, "fwd") == 0) return;
    if (strcmp(schedule, "rev") == 0) {
        c->order = REVERSE;
    } else if (strncmp(schedule, "rand", 4) == 0) {
        c->order = RANDOM;
        if (schedule[4] == ':') c->seed = strtoull(schedule + 5, nullptr, 0);
    } else {
        fprintf(stderr, "SIMT ERROR: SIMT_SCHED=%s is none of fwd, rev, rand:SEED\n", schedule);
        exit(EXIT_VIOLATION);
    }
}

static Config read_config()
{
    const char *stack = getenv("SIMT_STACK_KB");
    Config c = {FORWARD, 1, 0, getenv("SIMT_SERIAL") != nullptr};
#ifdef SIMT_ASAN
    c.stack_bytes = 256 << 10; /* frames are several times larger with redzones */
#else
    c.stack_bytes = 64 << 10;
#endif
    if (stack != nullptr) c.stack_bytes = (size_t)atoi(stack) << 10;
    set_order(&c, getenv("SIMT_SCHED"));
    return c;
}
Config config = read_config();

const char *kind_name(Kind kind)
{
    static const char *const names[] = {"__syncwarp",    "__shfl_sync", "vote",
                                        "__reduce_sync", "mma.sync",    "ldmatrix"};
    return names[kind];
}

uintptr_t program_base()
{
    static const uintptr_t base = [] {
        uintptr_t first = 0; /* the program itself is the first object of the list */
        dl_iterate_phdr(
            [](dl_phdr_info *object, size_t, void *found) {
                *static_cast<uintptr_t *>(found) = object->dlpi_addr;
                return 1;
            },
            &first);
        return first;
    }();
    return base;
}

void source_line(uintptr_t instruction, char *text, size_t bytes)
{
    char command[96];
    snprintf(command, sizeof command, "addr2line -e /proc/%d/exe 0x%zx 2>/dev/null", (int)getpid(),
             (size_t)(instruction - program_base()));
    snprintf(text, bytes, "instruction %#zx", (size_t)instruction);
    FILE *const answer = popen(command, "r");
    if (answer == nullptr) return;
    char line[512];
    if (fgets(line, sizeof line, answer) != nullptr && strncmp(line, "??", 2) != 0) {
        line[strcspn(line, "\n ")] = 0; /* also without "(discriminator 3)" */
        snprintf(text, bytes, "%s", line);
    }
    pclose(answer);
}

/* The second half of every message: where in the grid. */
[[noreturn]] static void end_in_kernel()
{
    if (worker != nullptr && worker->kernel != nullptr) {
        fprintf(stderr, "  kernel %s block (%u,%u,%u)", worker->kernel, blockIdx.x, blockIdx.y,
                blockIdx.z);
        if (current != nullptr)
            fprintf(stderr, " thread (%u,%u,%u) warp %u lane %u", current->index.x,
                    current->index.y, current->index.z, current->warp, current->lane);
        fprintf(stderr, "\n");
    }
    fflush(nullptr);
    _exit(
        EXIT_VIOLATION); /* not exit(): destructors would run on a kernel's stack, beside other threads */
}

void die(Site site, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "SIMT ERROR: %s\n", text);
    if (site.file != nullptr) fprintf(stderr, "  at %s:%d\n", site.file, site.line);
    end_in_kernel();
}

/* Runs on the alternate stack, because the one at fault may be full.  What it calls is not safe in a signal handler in
 * general; it is here, where the signal comes from a kernel's own instruction and the process is about to end. */
static void fault(int signal, siginfo_t *info, void *context)
{
    const char *const address = static_cast<const char *>(info->si_addr);
    const Fiber *const fiber = current != nullptr ? current->fiber : nullptr;
    if (fiber != nullptr && address < fiber->stack && address >= fiber->stack - GUARD_BYTES)
        fprintf(stderr, "SIMT ERROR: stack overflow: a thread has %zu KiB (SIMT_STACK_KB)\n",
                fiber->stack_bytes >> 10);
    else
        fprintf(stderr, "SIMT ERROR: %s: memory access at address %p\n", strsignal(signal),
                static_cast<const void *>(address));
#ifdef __x86_64__
    char line[600];
    source_line((uintptr_t) static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP], line,
                sizeof line);
    fprintf(stderr, "  at %s\n", line);
#else
    (void)context;
#endif
    end_in_kernel();
}

static struct sigaction before[2];

/* Installed for each launch rather than once: test frameworks set handlers of their own before each test. */
void faults_catch()
{
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before[0]);
    sigaction(SIGBUS, &action, &before[1]);
}

void faults_release()
{
    sigaction(SIGSEGV, &before[0], nullptr);
    sigaction(SIGBUS, &before[1], nullptr);
}

void faults_prepare_thread()
{
    const size_t bytes = 64 << 10;
    stack_t stack = {};
    if (sigaltstack(nullptr, &stack) == 0 && !(stack.ss_flags & SS_DISABLE)) return; /* ASan's */
    stack = {};
    stack.ss_sp = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_size = bytes;
    if (stack.ss_sp != MAP_FAILED) sigaltstack(&stack, nullptr);
}

} // namespace simt

extern "C" void simt_set_schedule(const char *schedule)
{
    simt::set_order(&simt::config, schedule != nullptr ? schedule : getenv("SIMT_SCHED"));
}
