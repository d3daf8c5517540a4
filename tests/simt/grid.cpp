/* grid.cpp - a launch: its limits, its blocks one by one on each OS thread. */
#include "stream.h"
#include "turn.h"

#include <cstdint>
#include <mutex>
#include <vector>

namespace simt
{

/* CUDA's limits for compute capability 8.0 and later. */
static cudaError_t check_launch(dim3 grid, dim3 block, size_t shared_bytes, size_t shared_limit)
{
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || block.z > 64) return cudaErrorInvalidConfiguration;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
    if (grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    return shared_bytes > shared_limit ? cudaErrorInvalidValue : cudaSuccess;
}

static void prepare_worker()
{
    if (worker != nullptr) return;
    worker = new Worker();
    /* Kept in reach, because an OS thread may end before the program, and its worker is then no leak. */
    static std::mutex guard;
    static std::vector<Worker *> *const all = new std::vector<Worker *>;
    {
        std::lock_guard<std::mutex> lock(guard);
        all->push_back(worker);
    }
    shared_create(worker);
    faults_prepare_thread();
}

static void prepare_threads(dim3 block)
{
    Worker *const w = worker;
    w->thread_count = w->live = block.x * block.y * block.z;
    w->warp_count = (w->thread_count + 31) / 32;
    w->ready_warps = 0;
    w->current_warp = 0;
    w->arrived = 0;
    w->predicates = 0;
    if (w->threads.size() < w->warp_count * 32) w->threads.resize(w->warp_count * 32);
    for (unsigned i = 0; i < w->thread_count; i++) {
        Thread &t = w->threads[i];
        t.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        t.linear = i;
        t.warp = (uint8_t)(i / 32);
        t.lane = (uint8_t)(i % 32);
        t.state = NEW;
        t.fiber = nullptr;
        t.copy_group = 0;
        t.copies.clear();
    }
    for (unsigned i = 0; i < w->warp_count; i++) {
        const unsigned lanes = w->thread_count - i * 32;
        Warp &warp = w->warps[i];
        warp.exist = lanes >= 32 ? ~0u : (1u << lanes) - 1;
        warp.exited = warp.waiting = warp.ready = 0;
        make_ready(w, i, warp.exist);
    }
}

static void run_block(dim3 grid, dim3 block, size_t shared_bytes, uint64_t number)
{
    gridDim = grid;
    blockDim = block;
    blockIdx = {(unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y),
                (unsigned)(number / grid.x / grid.y)};
    prepare_threads(block);
    /* Mixed with two odd numbers; the first outputs of xorshift64 are still close for close seeds. */
    worker->random = (config.seed * 0x9e3779b97f4a7c15u) ^ ((number + 1) * 0xd1b54a32d192ed03u);
    random_number();
    random_number();
    shared_reset(shared_bytes);
    race_block_begins((unsigned)number, worker->warp_count);
    if (!run_threads()) report_deadlock();
    current = nullptr;
}

bool may_launch(const Launch &l)
{
    if (current != nullptr) die(l.site, "a kernel launches a kernel");
    const cudaError_t error = call_fails(l.name) ? cudaErrorLaunchFailure
                                                 : check_launch(l.grid, l.block, l.shared_bytes,
                                                                dynamic_shared_limit(l.kernel));
    return set_error(error) == cudaSuccess;
}

void run_grid(const Launch &l, void (*call)(void *), void *context)
{
    kernel_counted();
    const size_t limit = dynamic_shared_limit(l.kernel);
    const uint64_t blocks = (uint64_t)l.grid.x * l.grid.y * l.grid.z;
    device_memory_allow(true);
    race_launch_begins(l.name);
    faults_catch();
#pragma omp parallel if (!config.serial && blocks > 1)
    {
        prepare_worker();
        worker->kernel = l.name;
        worker->call = call;
        worker->context = context;
        worker->shared_limit = limit;
#pragma omp for schedule(dynamic)
        for (uint64_t i = 0; i < blocks; i++) {
            run_block(l.grid, l.block, l.shared_bytes,
                      config.order == REVERSE ? blocks - 1 - i : i);
        }
        worker->kernel = nullptr;
    }
    faults_release();
    race_launch_ends();
    device_memory_allow(false);
}

} // namespace simt
