/* cuda.c - the CUDA backend: device memory, the stream of its ops, faults. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/memory.h"
#include "backend/cuda/ops.h"
#include "backend/cuda/runtime.h"

#include <stdio.h>
#include <stdlib.h>

static cuda_backend *of(backend *be)
{
    return (cuda_backend *)be;
}

static cudpo_status cuda_alloc(backend *be, void **out, size_t bytes)
{
    (void)be;
    CUDPO_REQUIRE(out != NULL);
    *out = NULL;
    const cudaError_t error = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (error == cudaSuccess) return CUDPO_OK;
    char call[64];
    snprintf(call, sizeof call, "cudaMalloc of %.3f GB", (double)bytes * 1e-9);
    return cuda_failed(CUDPO_HERE, call, error);
}

static void cuda_free(backend *be, void *memory)
{
    (void)be;
    (void)cudaFree(
        memory); /* waits for the device; what went wrong before shows at the next call */
}

static cudpo_status cuda_copy_in(backend *be, void *dst, const void *src, size_t bytes)
{
    CUDPO_REQUIRE(bytes == 0 || (dst != NULL && src != NULL));
    return staging_copy(&of(be)->staging, dst, src, bytes, of(be)->stream);
}

static cudpo_status cuda_copy_out(backend *be, void *dst, const void *src, size_t bytes)
{
    CUDPO_REQUIRE(bytes == 0 || (dst != NULL && src != NULL));
    if (bytes > 0)
        CUDA_TRY(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, of(be)->stream));
    CUDA_TRY(cudaStreamSynchronize(of(be)->stream));
    return CUDPO_OK;
}

/* A dense tensor is one row: a copy of rows is slower, and has a limit to their distance (2^31 - 1 bytes). */
static cudpo_status cuda_copy(backend *be, tensor dst, tensor src)
{
    CUDPO_REQUIRE(src.rows >= 0 && src.cols >= 0);
    CUDPO_REQUIRE(tensor_is(src, src.type, src.rows, src.cols));
    CUDPO_REQUIRE(tensor_is(dst, src.type, src.rows, src.cols));
    const size_t size = dtype_size(src.type), row = (size_t)src.cols * size;
    const cudaStream_t stream = of(be)->stream;
    if (src.rows == 0 || src.cols == 0) return CUDPO_OK;
    if (tensor_dense(dst) && tensor_dense(src))
        CUDA_TRY(cudaMemcpyAsync(dst.data, src.data, row * (size_t)src.rows,
                                 cudaMemcpyDeviceToDevice, stream));
    else
        CUDA_TRY(cudaMemcpy2DAsync(dst.data, (size_t)dst.stride * size, src.data,
                                   (size_t)src.stride * size, row, (size_t)src.rows,
                                   cudaMemcpyDeviceToDevice, stream));
    return CUDPO_OK;
}

static cudpo_status cuda_zero(backend *be, tensor t)
{
    CUDPO_REQUIRE(t.rows >= 0 && t.cols >= 0);
    CUDPO_REQUIRE(tensor_is(t, t.type, t.rows, t.cols));
    const size_t size = dtype_size(t.type), row = (size_t)t.cols * size;
    const cudaStream_t stream = of(be)->stream;
    if (t.rows == 0 || t.cols == 0) return CUDPO_OK;
    if (tensor_dense(t))
        CUDA_TRY(cudaMemsetAsync(t.data, 0, row * (size_t)t.rows, stream));
    else
        CUDA_TRY(
            cudaMemset2DAsync(t.data, (size_t)t.stride * size, 0, row, (size_t)t.rows, stream));
    return CUDPO_OK;
}

static cudpo_status cuda_sync(backend *be)
{
    CUDA_TRY(cudaStreamSynchronize(of(be)->stream));
    return CUDPO_OK;
}

cudpo_status cuda_scratch(scratch *out, cuda_backend *be, size_t bytes)
{
    if (bytes > be->memory.bytes) {
        CUDA_TRY(cudaStreamSynchronize(be->stream)); /* the old memory may be in use */
        cuda_free(&be->table, be->memory.data);
        be->memory = (scratch){0};
        CUDPO_TRY(cuda_alloc(&be->table, &be->memory.data, bytes));
        be->memory.bytes = bytes;
    }
    *out = be->memory;
    return CUDPO_OK;
}

static cudpo_status cuda_available_memory(backend *be, size_t *bytes)
{
    size_t total = 0;
    (void)be;
    CUDA_TRY(cudaMemGetInfo(bytes, &total));
    return CUDPO_OK;
}

static size_t cuda_working_memory(backend *be, const workload *most)
{
    return cuda_working_bytes(of(be)->large_scratch, most);
}

static cudpo_status cuda_reserve(backend *be, const workload *most)
{
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), cuda_working_memory(be, most)));
    of(be)->reserved = true;
    return CUDPO_OK;
}

static cudpo_status cuda_host_alloc(backend *be, void **out, size_t bytes)
{
    (void)be;
    CUDPO_REQUIRE(out != NULL);
    *out = NULL;
    CUDA_TRY(cudaMallocHost(out, bytes > 0 ? bytes : 1));
    return CUDPO_OK;
}

static void cuda_host_free(backend *be, void *memory)
{
    (void)be;
    (void)cudaFreeHost(memory);
}

static cudpo_status cuda_copy_out_later(backend *be, void *host, const void *src, size_t bytes)
{
    CUDPO_REQUIRE(bytes == 0 || (host != NULL && src != NULL));
    if (bytes > 0)
        CUDA_TRY(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, of(be)->stream));
    return CUDPO_OK;
}

static cudpo_status cuda_mark(backend *be, int mark)
{
    CUDPO_REQUIRE(mark >= 0 && mark < MARKS);
    CUDA_TRY(cudaEventRecord(of(be)->marks[mark], of(be)->stream));
    return CUDPO_OK;
}

static cudpo_status cuda_wait(backend *be, int mark)
{
    CUDPO_REQUIRE(mark >= 0 && mark < MARKS);
    CUDA_TRY(cudaEventSynchronize(of(be)->marks[mark]));
    return CUDPO_OK;
}

static cudpo_status cuda_fetch(backend *be, int slot, void *dst, const void *host, size_t bytes)
{
    CUDPO_REQUIRE(slot >= 0 && slot < FETCHES);
    CUDPO_REQUIRE(bytes > 0 && dst != NULL && host != NULL);
    return fetcher_fetch(&of(be)->fetcher, slot, dst, host, bytes, of(be)->stream);
}

static cudpo_status cuda_arrived(backend *be, int slot)
{
    CUDPO_REQUIRE(slot >= 0 && slot < FETCHES);
    return fetcher_arrived(&of(be)->fetcher, slot, of(be)->stream);
}

/* Events are made when they are first wanted: only benchmarks do. */
static cudpo_status cuda_stamp(backend *be, int slot)
{
    CUDPO_REQUIRE(slot >= 0 && slot < STAMPS);
    cudaEvent_t *stamp = &of(be)->stamps[slot];
    if (*stamp == NULL) CUDA_TRY(cudaEventCreate(stamp));
    CUDA_TRY(cudaEventRecord(*stamp, of(be)->stream));
    return CUDPO_OK;
}

static cudpo_status cuda_elapsed(backend *be, double *seconds, int from, int to)
{
    float milliseconds = 0;
    CUDPO_REQUIRE(seconds != NULL && from >= 0 && from < STAMPS && to >= 0 && to < STAMPS);
    const cudaEvent_t begin = of(be)->stamps[from], end = of(be)->stamps[to];
    CUDPO_REQUIRE(begin != NULL && end != NULL);
    CUDA_TRY(cudaEventSynchronize(begin));
    CUDA_TRY(cudaEventSynchronize(end));
    CUDA_TRY(cudaEventElapsedTime(&milliseconds, begin, end));
    *seconds = (double)milliseconds * 1e-3;
    return CUDPO_OK;
}

static cudpo_status cuda_recall(backend *be, const char *path)
{
    CUDPO_REQUIRE(path != NULL);
    return cuda_gemm_recall(of(be)->gemm, path);
}

static cudpo_status cuda_keep(backend *be, const char *path)
{
    CUDPO_REQUIRE(path != NULL);
    return cuda_gemm_keep(of(be)->gemm, path);
}

static cudpo_status cuda_faults(backend *be, uint32_t *bits)
{
    CUDPO_TRY(cuda_copy_out(be, bits, of(be)->fault.data, sizeof *bits));
    return cuda_zero(be, of(be)->fault);
}

enum { OLDEST = 80 }; /* compute capability that the kernels need, times 10 */

/* Why there is no GPU to be had, for a person. */
static cudpo_status no_device(cudaError_t error)
{
    int driver = 0, runtime = 0;
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (error == cudaErrorInsufficientDriver && driver == 0)
        return cudpo_fail(CUDPO_EDEVICE, "device",
                          "there is no NVIDIA driver: install one, or use --device cpu");
    if (error == cudaErrorInsufficientDriver)
        return cudpo_fail(CUDPO_EDEVICE, "device",
                          "the NVIDIA driver is for CUDA %d.%d, this program needs %d.%d: install "
                          "a newer driver, or use --device cpu",
                          driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (error == cudaErrorNoDevice)
        return cudpo_fail(CUDPO_EDEVICE, "device",
                          "there is no GPU, or CUDA_VISIBLE_DEVICES hides it: use --device cpu");
    return cudpo_fail(CUDPO_EDEVICE, "device", "no GPU can be used: %s; use --device cpu",
                      cudaGetErrorString(error));
}

static cudpo_status choose_device(cuda_backend *be, int device)
{
    struct cudaDeviceProp p;
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices == 0)
        return no_device(error != cudaSuccess ? error : cudaErrorNoDevice);
    CUDPO_REQUIRE(device >= 0);
    device %= devices; /* a rank may see its own GPU alone, whatever its number is elsewhere */
    CUDA_TRY(cudaGetDeviceProperties(&p, device));
    if (p.major * 10 + p.minor < OLDEST)
        return cudpo_fail(CUDPO_EDEVICE, "device",
                          "%s has compute capability %d.%d, and %d.%d or later is needed: use "
                          "--device cpu",
                          p.name, p.major, p.minor, OLDEST / 10, OLDEST % 10);
    CUDA_TRY(cudaSetDevice(device));
    snprintf(be->description, sizeof be->description, "cuda:%d, %s, %.1f GB", device, p.name,
             (double)p.totalGlobalMem * 1e-9);
    be->table.description = be->description;
    be->table.memory = p.totalGlobalMem;
    be->table.cache = (size_t)p.l2CacheSize;
    be->large_scratch = cuda_large_scratch(p.totalGlobalMem);
    return CUDPO_OK;
}

static cudpo_status start(cuda_backend *be, const backend_options *options)
{
    void *word = NULL;
    CUDPO_TRY(choose_device(be, options->device));
    CUDA_TRY(cudaStreamCreateWithFlags(&be->stream, cudaStreamNonBlocking));
    for (int i = 0; i < MARKS; i++) {
        CUDA_TRY(cudaEventCreateWithFlags(&be->marks[i], cudaEventDisableTiming));
    }
    CUDPO_TRY(staging_open(&be->staging));
    CUDPO_TRY(fetcher_open(&be->fetcher));
    CUDPO_TRY(cuda_alloc(&be->table, &word, sizeof(uint32_t)));
    be->fault = tensor_vector(word, DTYPE_I32, 1);
    CUDPO_TRY(cuda_zero(&be->table, be->fault));
    return cuda_gemm_open(&be->gemm, options->cache);
}

static void cuda_close(backend *be)
{
    if (be == NULL) return;
    if (of(be)->stream != NULL) (void)cudaStreamSynchronize(of(be)->stream);
    cuda_gemm_close(of(be)->gemm);
    fetcher_close(&of(be)->fetcher);
    staging_close(&of(be)->staging);
    for (int i = 0; i < MARKS; i++) {
        if (of(be)->marks[i] != NULL) (void)cudaEventDestroy(of(be)->marks[i]);
    }
    for (int i = 0; i < STAMPS; i++) {
        if (of(be)->stamps[i] != NULL) (void)cudaEventDestroy(of(be)->stamps[i]);
    }
    cuda_free(be, of(be)->memory.data);
    cuda_free(be, of(be)->fault.data);
    if (of(be)->stream != NULL) (void)cudaStreamDestroy(of(be)->stream);
    free(of(be));
}

cudpo_status backend_cuda_open(backend **out, const backend_options *options)
{
    const backend_options none = {0};
    CUDPO_REQUIRE(out != NULL);
    *out = NULL;
    cuda_backend *be = calloc(1, sizeof *be);
    if (be == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory for a backend");
    be->table = (backend){.name = "cuda",
                          .close = cuda_close,
                          .alloc = cuda_alloc,
                          .free = cuda_free,
                          .copy_in = cuda_copy_in,
                          .copy_out = cuda_copy_out,
                          .available_memory = cuda_available_memory,
                          .working_memory = cuda_working_memory,
                          .reserve = cuda_reserve,
                          .copy = cuda_copy,
                          .zero = cuda_zero,
                          .sync = cuda_sync,
                          .host_alloc = cuda_host_alloc,
                          .host_free = cuda_host_free,
                          .copy_out_later = cuda_copy_out_later,
                          .mark = cuda_mark,
                          .wait = cuda_wait,
                          .fetch = cuda_fetch,
                          .arrived = cuda_arrived,
                          .stamp = cuda_stamp,
                          .elapsed = cuda_elapsed,
                          .recall = cuda_recall,
                          .keep = cuda_keep,
                          .faults = cuda_faults,
                          .on_device = true};
    cuda_ops_install(&be->table);
    const cudpo_status status = start(be, options != NULL ? options : &none);
    if (status == CUDPO_OK)
        *out = &be->table;
    else
        cuda_close(&be->table);
    return status;
}

const char *backend_cuda_version(size_t *table_bytes)
{
    *table_bytes = sizeof(backend);
    return CUDPO_VERSION " " CUDPO_INTERFACE;
}
