/* cudart.cpp - the CUDA runtime's functions but for streams and events: linked in place of libcudart. */
#include "device_memory.h"
#include "internal.h"
#include "products.h"
#include "stream.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace simt
{

static __thread cudaError_t last_error; /* cudaSuccess */
static bool memory_refused;             /* simt_refuse_memory() */

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

static void copy_rows(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width,
                      size_t height)
{
    const Allocation target = device_allocation(to), source = device_allocation(from);
    allow_all(target);
    allow_all(source);
    for (size_t row = 0; row < height; row++) {
        memcpy(to + row * to_pitch, from + row * from_pitch, width);
        if (target.data != nullptr) race_written(to + row * to_pitch, width);
    }
    forbid_all(target);
    forbid_all(source);
}

static cudaError_t check_copy(const char *function, Rectangle to, Rectangle from,
                              cudaMemcpyKind kind)
{
    const bool any = kind == cudaMemcpyDefault;
    Allocation target, source;
    const char *wrong = check_place(
        to, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, any, &target);
    if (wrong == nullptr)
        wrong = check_place(
            from, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, any, &source);
    return wrong != nullptr ? invalid(function, wrong) : cudaSuccess;
}

/* What CUDA does with memory of the host that is not pinned: it has read it when the call returns, and has written it too. */
static cudaError_t copy(const char *function, void *to_data, size_t to_pitch, const void *from_data,
                        size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                        cudaStream_t stream)
{
    if (call_fails(function)) return set_error(cudaErrorLaunchFailure);
    if (width == 0 || height == 0) return cudaSuccess;
    const cudaError_t error = check_copy(function, {to_data, to_pitch, width, height},
                                         {from_data, from_pitch, width, height}, kind);
    if (error != cudaSuccess) return error;
    char *const to = static_cast<char *>(to_data);
    const char *const from = static_cast<const char *>(from_data);
    const bool reads_host = device_allocation(from).data == nullptr;
    const bool writes_host = device_allocation(to).data == nullptr;
    if (reads_host && !is_pinned(from)) {
        std::vector<char> now(width * height);
        for (size_t row = 0; row < height; row++) {
            memcpy(now.data() + row * width, from + row * from_pitch, width);
        }
        submit(stream, [=] { copy_rows(to, to_pitch, now.data(), width, width, height); });
    } else {
        submit(stream, [=] { copy_rows(to, to_pitch, from, from_pitch, width, height); });
    }
    if (writes_host && !is_pinned(to)) {
        count(WAIT);
        drain(stream);
    }
    return set_error(device_error());
}

static cudaError_t fill(const char *function, void *to, size_t pitch, int byte, size_t width,
                        size_t height, cudaStream_t stream)
{
    if (call_fails(function)) return set_error(cudaErrorLaunchFailure);
    if (width == 0 || height == 0) return cudaSuccess;
    Allocation target;
    const char *const wrong = check_place({to, pitch, width, height}, true, false, &target);
    if (wrong != nullptr) return invalid(function, wrong);
    submit(stream, [=] {
        allow_all(target);
        for (size_t row = 0; row < height; row++) {
            memset(static_cast<char *>(to) + row * pitch, byte, width);
            race_written(static_cast<char *>(to) + row * pitch, width);
        }
        forbid_all(target);
    });
    return cudaSuccess;
}

/* Bytes of device memory: SIMT_MEMORY, or 64 GiB. */
static size_t device_bytes()
{
    static const char *const wanted = getenv("SIMT_MEMORY");
    return wanted != nullptr ? strtoull(wanted, nullptr, 10) : (size_t)64 << 30;
}

/* Of them, what another process holds: SIMT_FILLED. */
static size_t device_filled()
{
    static const char *const wanted = getenv("SIMT_FILLED");
    return wanted != nullptr ? strtoull(wanted, nullptr, 10) : 0;
}

static size_t device_available()
{
    const size_t taken = device_filled() + device_allocated();
    return device_bytes() > taken ? device_bytes() - taken : 0;
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
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
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
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    }
    return "unrecognized error code";
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return call_fails(__func__) ? set_error(cudaErrorInvalidValue) : cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return call_fails(__func__) ? set_error(cudaErrorInvalidValue) : cudaSuccess;
}
/* SIMT_DEVICE=none: a machine without a GPU; old: with one that is too old. */
static bool device_is(const char *kind)
{
    const char *const wanted = getenv("SIMT_DEVICE");
    return wanted != nullptr && strcmp(wanted, kind) == 0;
}
/* One, or SIMT_DEVICES of them, of which those are seen that CUDA_VISIBLE_DEVICES numbers, up to the first that is not there.
 * They are all the same memory: what goes to which is not told apart. */
static int devices()
{
    const char *const wanted = getenv("SIMT_DEVICES");
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (wanted == nullptr) return 1;
    const int all = atoi(wanted);
    if (visible == nullptr) return all;
    int seen = 0;
    for (char *end; *visible >= '0' && *visible <= '9' && strtol(visible, &end, 10) < all; seen++)
        visible = *end == ',' ? end + 1 : end;
    return seen;
}
static thread_local int current_device;
cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (device_is("driver")) return set_error(cudaErrorInsufficientDriver);
    if (device_is("none") || devices() == 0 || call_fails(__func__))
        return set_error(cudaErrorNoDevice);
    *count = devices();
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return call_fails(__func__) ? set_error(cudaErrorInvalidValue) : cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
    if (call_fails(__func__)) return set_error(cudaErrorInvalidValue);
    if (device < 0 || device >= devices()) return invalid(__func__, "there is no such device");
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    if (call_fails(__func__)) return set_error(cudaErrorInvalidValue);
    if (device < 0 || device >= devices()) return invalid(__func__, "there is no such device");
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "emulated GPU");
    out->totalGlobalMem = device_bytes();
    out->l2CacheSize = 1 << 20;
    out->major = device_is("old") ? 7 : 9;
    out->multiProcessorCount = 2;
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int)
{
    *can = 0;
    return call_fails(__func__) ? set_error(cudaErrorInvalidValue) : cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = device_bytes();
    *available = device_available();
    return call_fails(__func__) ? set_error(cudaErrorInvalidValue) : cudaSuccess;
}

void simt_refuse_memory(bool refuse)
{
    memory_refused = refuse;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    count(ALLOCATION);
    *out = nullptr;
    if (call_fails(__func__) || memory_refused) return set_error(cudaErrorMemoryAllocation);
    if (bytes == 0) return cudaSuccess;
    if (bytes <= device_available()) *out = device_allocate(bytes);
    return *out == nullptr ? set_error(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void *memory)
{
    count(WAIT);
    drain_all();
    if (memory == nullptr || device_release(memory)) return cudaSuccess;
    return invalid(__func__, "not what cudaMalloc returned, or freed before");
}
cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    count(ALLOCATION);
    *out = call_fails(__func__) ? nullptr : malloc(bytes > 0 ? bytes : 1);
    if (*out == nullptr) return set_error(cudaErrorMemoryAllocation);
    pin(*out, bytes);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *memory)
{
    count(WAIT);
    drain_all();
    unpin(memory);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return copy(__func__, to, bytes, from, bytes, bytes, 1, kind, nullptr);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy(__func__, to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy(__func__, to, to_pitch, from, from_pitch, width, height, kind, stream);
}
cudaError_t cudaMemset(void *to, int byte, size_t bytes)
{
    return fill(__func__, to, bytes, byte, bytes, 1, nullptr);
}
cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream)
{
    return fill(__func__, to, bytes, byte, bytes, 1, stream);
}
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int byte, size_t width, size_t height,
                              cudaStream_t stream)
{
    return fill(__func__, to, pitch, byte, width, height, stream);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return invalid(__func__, "an attribute that the emulator does not know");
    if (value < 0 || (size_t)value > SHARED_LIMIT)
        return invalid(__func__, "a block has at most 227 KiB of shared memory");
    if ((size_t)value > shared_limit()) return set_error(cudaErrorInvalidValue);
    set_dynamic_shared_limit(kernel, (size_t)value);
    return cudaSuccess;
}
}
