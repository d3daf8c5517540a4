/* stream.h - work in the order of its stream, and calls that fail on demand. */
#ifndef CUDPO_SIMT_STREAM_H
#define CUDPO_SIMT_STREAM_H

#include <cuda_runtime_api.h>

#include <functional>

namespace simt
{

/* Do it now, or, with SIMT_LAZY, as late as CUDA allows: when somebody waits for the stream. */
void submit(cudaStream_t stream, std::function<void()> work);

/* Do all that the stream, or any stream, still has to do. */
void drain(cudaStream_t stream);
void drain_all();

/* How often the host waits for the device, asks for memory, starts a kernel or a product, begins and ends a range: for
 * SIMT_COUNT. */
enum Counted { WAIT, ALLOCATION, LAUNCH, RANGE, RANGE_END, COUNTED };
void count(Counted what);

/* From the kernel that SIMT_FAULT=N counts on the device is lost, and every call that waits for it says so. */
void kernel_counted();
cudaError_t device_error();

/* Is this the call that SIMT_FAIL=N asks to fail?  Calls are counted from 1 by all functions that ask here, in the thread
 * that asked first: how often others ask is a matter of time. */
bool call_fails(const char *function);

} // namespace simt

#endif /* CUDPO_SIMT_STREAM_H */
