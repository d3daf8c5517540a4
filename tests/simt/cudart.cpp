/* cudart.cpp - the CUDA runtime's functions: linked in place of libcudart.
 *
 * Everything is done when the call returns, whatever its stream: a host that forgets to synchronise is not noticed. */
#include "device_memory.h"
#include "internal.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

struct CUstream_st {
    int unused;
};
struct CUevent_st {
    double seconds;
};

namespace simt
{

static __thread cudaError_t last_error; /* cudaSuccess */

cudaError_t set_error(cudaError_t error)
{
    if (error != cudaSuccess) last_error = error;
    return error;
}

static cudaError_t invalid(const char *function, const char *what)
{
    fprintf(stderr, "SIMT ERROR: %s: %s\n", function, what);
    return set_error(cudaErrorInvalidValue);
}

/* A rectangle: `height` rows of `width` bytes, `pitch` bytes apart. */
struct Rectangle {
    const void *data;
    size_t pitch, width, height;
};

/* NULL, or what is wrong with a rectangle that is to lie in device memory, or in the host's. */
static const char *check_place(Rectangle r, bool wants_device, bool any, Allocation *allocation)
{
    *allocation = device_allocation(r.data);
    const bool device = allocation->data != nullptr;
    if (!any && device != wants_device)
        return wants_device ? "a device pointer is wanted and a host pointer given"
                            : "a host pointer is wanted and a device pointer given";
    if (r.pitch < r.width) return "the pitch is less than the width";
    const size_t end = (r.height - 1) * r.pitch + r.width;
    if (device &&
        (size_t)(static_cast<const char *>(r.data) - allocation->data) + end > allocation->bytes)
        return "leaves the device allocation";
    return nullptr;
}

static void allow_all(Allocation a)
{
    if (a.data != nullptr) allow(a.data, a.bytes);
}
static void forbid_all(Allocation a)
{
    if (a.data != nullptr) forbid(a.data, a.bytes);
}

static cudaError_t copy(const char *function, void *to, size_t to_pitch, const void *from,
                        size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind)
{
    if (width == 0 || height == 0) return cudaSuccess;
    const bool any = kind == cudaMemcpyDefault;
    Allocation target, source;
    const char *wrong = check_place(
        {to, to_pitch, width, height},
        kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, any, &target);
    if (wrong == nullptr)
        wrong = check_place({from, from_pitch, width, height},
                            kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, any,
                            &source);
    if (wrong != nullptr) return invalid(function, wrong);
    allow_all(target);
    allow_all(source);
    for (size_t row = 0; row < height; row++) {
        char *const begin = static_cast<char *>(to) + row * to_pitch;
        memcpy(begin, static_cast<const char *>(from) + row * from_pitch, width);
        if (target.data != nullptr) race_written(begin, width);
    }
    forbid_all(target);
    forbid_all(source);
    return cudaSuccess;
}

static cudaError_t fill(const char *function, void *to, size_t pitch, int byte, size_t width,
                        size_t height)
{
    if (width == 0 || height == 0) return cudaSuccess;
    Allocation target;
    const char *const wrong = check_place({to, pitch, width, height}, true, false, &target);
    if (wrong != nullptr) return invalid(function, wrong);
    allow_all(target);
    for (size_t row = 0; row < height; row++) {
        memset(static_cast<char *>(to) + row * pitch, byte, width);
        race_written(static_cast<char *>(to) + row * pitch, width);
    }
    forbid_all(target);
    return cudaSuccess;
}

} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}
const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    }
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : invalid(__func__, "there is one device, 0");
}
cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    *out = bytes == 0 ? nullptr : device_allocate(bytes);
    return bytes > 0 && *out == nullptr ? set_error(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t)
{
    return cudaMalloc(out, bytes);
}
cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    *out = malloc(bytes > 0 ? bytes : 1);
    return *out == nullptr ? set_error(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void *memory)
{
    if (memory == nullptr || device_release(memory)) return cudaSuccess;
    return invalid(__func__, "not what cudaMalloc returned, or freed before");
}
cudaError_t cudaFreeAsync(void *memory, cudaStream_t)
{
    return cudaFree(memory);
}
cudaError_t cudaFreeHost(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return copy(__func__, to, bytes, from, bytes, bytes, 1, kind);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t)
{
    return copy(__func__, to, bytes, from, bytes, bytes, 1, kind);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t)
{
    return copy(__func__, to, to_pitch, from, from_pitch, width, height, kind);
}
cudaError_t cudaMemset(void *to, int byte, size_t bytes)
{
    return fill(__func__, to, bytes, byte, bytes, 1);
}
cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t)
{
    return fill(__func__, to, bytes, byte, bytes, 1);
}
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int byte, size_t width, size_t height,
                              cudaStream_t)
{
    return fill(__func__, to, pitch, byte, width, height);
}

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    *out = new CUstream_st{0};
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    return cudaStreamCreate(out);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    *out = new CUevent_st{0};
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
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t)
{
    using namespace std::chrono;
    event->seconds = duration<double>(steady_clock::now().time_since_epoch()).count();
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end)
{
    *milliseconds = (float)((end->seconds - begin->seconds) * 1e3);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return invalid(__func__, "an attribute that the emulator does not know");
    if (value < 0 || (size_t)value > SHARED_LIMIT)
        return invalid(__func__, "a block has at most 227 KiB of shared memory");
    set_dynamic_shared_limit(kernel, (size_t)value);
    return cudaSuccess;
}
}
