/* host.cu - what the host does wrong. */
#include "bugs.h"
#include "kernels/device.h"

#include <cstdlib>

static __global__ void fill(float *out)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < BUG_OUTPUTS) out[i] = 1;
}

static void host_writes_device(bool correct, float *out, const float *)
{
    if (correct)
        cudaMemset(out, 0, 4);
    else
        out[3] = 1;
}

static void host_reads_device(bool correct, float *out, const float *in)
{
    float x = 0;
    if (correct)
        cudaMemcpy(&x, in, sizeof x, cudaMemcpyDeviceToHost);
    else
        x = in[0];
    LAUNCH(fill, x > 1 ? 2 : 1, BUG_THREADS, 0, 0, out);
}

static void wrong_direction(bool correct, float *out, const float *)
{
    float x[4] = {1, 2, 3, 4};
    cudaMemcpy(out, x, sizeof x, correct ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost);
}

static void copy_too_long(bool correct, float *out, const float *in)
{
    cudaMemcpy(out, in, (BUG_OUTPUTS + (correct ? 0 : 1)) * sizeof(float),
               cudaMemcpyDeviceToDevice);
}

static void rows_too_many(bool correct, float *out, const float *)
{
    cudaMemset2DAsync(out, 256, 0, 64, correct ? BUG_OUTPUTS / 64 : BUG_OUTPUTS / 64 + 1, 0);
}

static void freed_twice(bool correct, float *, const float *)
{
    void *memory;
    cudaMalloc(&memory, 64);
    cudaFree(memory);
    if (!correct) cudaFree(memory);
}

static void never_freed(bool correct, float *, const float *)
{
    void *memory;
    cudaMalloc(&memory, 1000);
    if (correct) cudaFree(memory);
    memory = nullptr;
}

static void too_many_threads(bool correct, float *out, const float *)
{
    LAUNCH(fill, 1, correct ? 1024 : 1025, 0, 0, out);
}

static void no_blocks(bool correct, float *out, const float *)
{
    LAUNCH(fill, correct ? 1 : 0, BUG_THREADS, 0, 0, out);
}

static void grid_too_high(bool correct, float *out, const float *)
{
    LAUNCH(fill, correct ? dim3(4, 1) : dim3(1, 65536), BUG_THREADS, 0, 0, out);
}

static __global__ void uses_much(float *out)
{
    DYN_SHARED(float, row);
    row[threadIdx.x] = 1;
    out[threadIdx.x] = row[threadIdx.x];
}

static void much_without_asking(bool correct, float *out, const float *)
{
    if (correct)
        cudaFuncSetAttribute(uses_much, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10);
    LAUNCH(uses_much, 1, BUG_THREADS, 100 << 10, 0, out);
}

static void more_than_there_is(bool correct, float *out, const float *)
{
    const int bytes = (correct ? 227 : 228) << 10;
    cudaFuncSetAttribute(uses_much, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    LAUNCH(uses_much, 1, BUG_THREADS, bytes, 0, out);
}

static __global__ void uses_both(float *out)
{
    SHARED(float, part, [1024]);
    DYN_SHARED(float, row);
    part[threadIdx.x] = row[threadIdx.x] = 1;
    out[threadIdx.x] = part[threadIdx.x] + row[threadIdx.x];
}

static void both_too_much(bool correct, float *out, const float *)
{
    LAUNCH(uses_both, 1, BUG_THREADS, (correct ? 44 : 45) << 10, 0, out);
}

/* Floats that a stream copies aside while another stream brings their successors, which the first copies aside next. */
static void two_streams(const char *lazy, bool copy_waits, bool reader_waits, float *out)
{
    const size_t n = 256, bytes = n * sizeof(float);
    cudaStream_t reader, copier;
    cudaEvent_t read, there;
    void *memory;
    setenv("SIMT_LAZY", lazy, 1);
    cudaMallocHost(&memory, bytes);
    float *const host = static_cast<float *>(memory);
    for (size_t i = 0; i < n; i++) {
        host[i] = (float)i;
    }
    cudaStreamCreate(&reader);
    cudaStreamCreate(&copier);
    cudaEventCreate(&read);
    cudaEventCreate(&there);
    cudaMemcpyAsync(out + n, out, bytes, cudaMemcpyDeviceToDevice, reader);
    cudaEventRecord(read, reader);
    if (copy_waits) cudaStreamWaitEvent(copier, read, 0);
    cudaMemcpyAsync(out, host, bytes, cudaMemcpyHostToDevice, copier);
    cudaEventRecord(there, copier);
    if (reader_waits) cudaStreamWaitEvent(reader, there, 0);
    cudaMemcpyAsync(out + 2 * n, out, bytes, cudaMemcpyDeviceToDevice, reader);
    cudaStreamSynchronize(reader);
    cudaStreamSynchronize(copier);
    cudaEventDestroy(there);
    cudaEventDestroy(read);
    cudaStreamDestroy(copier);
    cudaStreamDestroy(reader);
    cudaFreeHost(memory);
}

static void copied_too_early(bool correct, float *out, const float *)
{
    two_streams("ahead", correct, true, out);
}

static void read_too_early(bool correct, float *out, const float *)
{
    two_streams("1", true, correct, out);
}

static const Bug bugs[] = {
    {"host writes device memory", host_writes_device, SANITIZED, nullptr},
    {"host reads device memory", host_reads_device, SANITIZED, nullptr},
    {"copy in the wrong direction", wrong_direction, EVERYWHERE, "pointer is wanted"},
    {"copy longer than its target", copy_too_long, EVERYWHERE, "leaves the device allocation"},
    {"more rows than there are", rows_too_many, EVERYWHERE, "leaves the device allocation"},
    {"freed twice", freed_twice, EVERYWHERE, "freed before"},
    {"never freed", never_freed, SANITIZED, nullptr},
    {"1025 threads", too_many_threads, EVERYWHERE, "cudaErrorInvalidConfiguration"},
    {"no blocks", no_blocks, EVERYWHERE, "cudaErrorInvalidConfiguration"},
    {"65536 blocks in y", grid_too_high, EVERYWHERE, "cudaErrorInvalidConfiguration"},
    {"more than 48 KiB unasked", much_without_asking, EVERYWHERE, "cudaErrorInvalidValue"},
    {"more than 227 KiB", more_than_there_is, EVERYWHERE, "227 KiB"},
    {"copy over what a stream will read", copied_too_early, EVERYWHERE, nullptr},
    {"read before a stream has copied", read_too_early, EVERYWHERE, nullptr},
    {"SHARED and DYN_SHARED over 48 KiB", both_too_much, EVERYWHERE, "the kernel may have"},
};
const BugList host_bugs = {bugs, sizeof bugs / sizeof *bugs};
