/* stream.cpp - streams and events.
 *
 * Work is done when it is submitted; with SIMT_LAZY it waits in its stream until the host waits for that stream, or for an
 * event behind it, or another stream that is being waited for does.  A host that reads a result, or writes over an input,
 * without waiting then sees what it gets; so does a stream that does not wait for another, whose work comes as late as its
 * events allow or, with SIMT_LAZY=ahead, as early.  The stream NULL is CUDA's legacy default stream: everything before it
 * first. */
#include "stream.h"
#include "internal.h"
#include "products.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

namespace
{

/* Outlives the event for as long as a stream refers to it.  Other threads than the one that does the work may ask for it. */
struct EventState {
    cudaStream_t stream = nullptr; /* it was last recorded in */
    std::atomic<unsigned> recorded{0}, done{0};
    double seconds = 0;
};

/* What a stream has to do, or, where there is an event, to wait for. */
struct Work {
    std::function<void()> run;
    std::shared_ptr<EventState> event;
    unsigned recorded; /* how often the event had been */

    bool waits() const { return event != nullptr && event->done < recorded; }
};

} // namespace

struct CUstream_st {
    std::deque<Work> work;
};

namespace
{

/* Not destroyed at the end of the process: other destructors may still synchronise. */
std::vector<cudaStream_t> &streams()
{
    static auto *const all = new std::vector<cudaStream_t>;
    return *all;
}

double now()
{
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

constexpr int GREATEST_PRIORITY = -5; /* of a stream, as on a GPU */

bool is_lazy()
{
    static const bool lazy = getenv("SIMT_LAZY") != nullptr;
    return lazy;
}

bool exists(cudaStream_t stream)
{
    for (cudaStream_t s : streams()) {
        if (s == stream) return true;
    }
    return false;
}

bool others_go_ahead()
{
    static const bool ahead = is_lazy() && strcmp(getenv("SIMT_LAZY"), "ahead") == 0;
    return ahead;
}

/* The first work of a stream, which waits for nothing. */
void do_first(cudaStream_t stream)
{
    const std::function<void()> run = std::move(stream->work.front().run);
    stream->work.pop_front();
    if (run) run();
}

/* All that other streams may do without this one. */
void let_others_go_ahead(cudaStream_t stream)
{
    for (cudaStream_t other : streams()) {
        while (other != stream && !other->work.empty() && !other->work.front().waits()) {
            do_first(other);
        }
    }
}

/* Work of the stream until the condition holds.  A wait stays its first work until it is over, so that nobody goes past it. */
void work_until(cudaStream_t stream, const std::function<bool()> &holds)
{
    while (!holds() && exists(stream) && !stream->work.empty()) {
        if (others_go_ahead()) let_others_go_ahead(stream);
        if (stream->work.front().waits()) {
            const Work wait = stream->work.front();
            work_until(wait.event->stream, [&] { return !wait.waits(); });
            if (!wait.waits()) continue; /* somebody may have passed it already */
        }
        do_first(stream);
    }
}

/* Written at the end of the process. */
struct Counts {
    long of[simt::COUNTED];
    ~Counts()
    {
        const char *const path = getenv("SIMT_COUNT");
        FILE *const file = path != nullptr ? fopen(path, "w") : nullptr;
        if (file == nullptr) return;
        fprintf(file, "waits %ld\nallocations %ld\nlaunches %ld\nranges %ld\nended %ld\n",
                of[simt::WAIT], of[simt::ALLOCATION], of[simt::LAUNCH], of[simt::RANGE],
                of[simt::RANGE_END]);
        fclose(file);
    }
};
Counts counts;

void wait_for(const std::shared_ptr<EventState> &event, unsigned recorded)
{
    work_until(event->stream, [&] { return event->done >= recorded; });
}

} // namespace

struct CUevent_st {
    std::shared_ptr<EventState> state;
};

namespace simt
{

void submit(cudaStream_t stream, std::function<void()> work)
{
    if (stream == nullptr) {
        drain_all();
        work();
    } else if (is_lazy()) {
        stream->work.push_back({std::move(work), nullptr, 0});
    } else {
        work();
    }
}

void drain(cudaStream_t stream)
{
    if (stream == nullptr) return drain_all();
    work_until(stream, [] { return false; });
}

void drain_all()
{
    for (size_t i = 0; i < streams().size(); i++) {
        drain(streams()[i]);
    }
}

void count(Counted what)
{
    counts.of[what]++;
}

static std::atomic<bool> lost; /* the device */

void kernel_counted()
{
    count(LAUNCH);
    static const char *const wanted = getenv("SIMT_FAULT");
    static long kernels;
    if (wanted != nullptr && ++kernels == atol(wanted)) lost = true;
}

cudaError_t device_error()
{
    return lost ? cudaErrorLaunchFailure : cudaSuccess;
}

bool call_fails(const char *function)
{
    static const char *const wanted = getenv("SIMT_FAIL");
    static const std::thread::id first = std::this_thread::get_id();
    static long calls;
    if (wanted == nullptr || std::this_thread::get_id() != first) return false;
    if (++calls != atol(wanted)) return false;
    fprintf(stderr, "SIMT: call %ld, %s, fails as SIMT_FAIL asks\n", calls, function);
    return true;
}

} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    *out = nullptr;
    if (call_fails(__func__)) return set_error(cudaErrorMemoryAllocation);
    *out = new CUstream_st;
    streams().push_back(*out);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    return cudaStreamCreate(out);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned, int priority)
{
    if (priority < GREATEST_PRIORITY || priority > 0) return set_error(cudaErrorInvalidValue);
    return cudaStreamCreate(out);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = GREATEST_PRIORITY;
    return call_fails(__func__) ? set_error(cudaErrorInvalidValue) : cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    if (!exists(stream)) return set_error(cudaErrorInvalidValue);
    drain(stream);
    for (size_t i = 0; i < streams().size(); i++) {
        if (streams()[i] == stream) streams().erase(streams().begin() + (ptrdiff_t)i--);
    }
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    count(WAIT);
    if (call_fails(__func__)) return set_error(cudaErrorLaunchFailure);
    drain(stream);
    return set_error(device_error());
}
cudaError_t cudaDeviceSynchronize(void)
{
    count(WAIT);
    if (call_fails(__func__)) return set_error(cudaErrorLaunchFailure);
    drain_all();
    return set_error(device_error());
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (call_fails(__func__)) return set_error(cudaErrorInvalidValue);
    if (is_lazy() && stream != nullptr)
        stream->work.push_back({nullptr, event->state, event->state->recorded});
    else
        wait_for(event->state, event->state->recorded);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    *out = nullptr;
    if (call_fails(__func__)) return set_error(cudaErrorMemoryAllocation);
    *out = new CUevent_st{std::make_shared<EventState>()};
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    return cudaEventCreate(out);
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    if (call_fails(__func__)) return set_error(cudaErrorInvalidValue);
    const std::shared_ptr<EventState> state = event->state;
    const unsigned recorded = ++state->recorded;
    state->stream = stream;
    submit(stream, [state, recorded] {
        state->seconds = now();
        state->done = recorded;
    });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    count(WAIT);
    if (call_fails(__func__)) return set_error(cudaErrorLaunchFailure);
    wait_for(event->state, event->state->recorded);
    return set_error(device_error());
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    if (call_fails(__func__)) return set_error(cudaErrorLaunchFailure);
    if (event->state->done < event->state->recorded) return set_error(cudaErrorNotReady);
    return set_error(device_error());
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end)
{
    if (call_fails(__func__)) return set_error(cudaErrorInvalidValue);
    if (begin->state->done != begin->state->recorded || end->state->done != end->state->recorded)
        return set_error(cudaErrorNotReady);
    const char *const fastest = getenv("SIMT_FASTEST");
    *milliseconds = fastest == nullptr
                        ? (float)((end->state->seconds - begin->state->seconds) * 1e3)
                        : 1.0f + (float)abs(simt_last_product() - atoi(fastest));
    return cudaSuccess;
}
}
