/* report.c - drivers, libraries and GPUs in words. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/nccl.h"
#include "base/report.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

static void say_version(const report *r, const char *name, cudaError_t (*ask)(int *))
{
    int version = 0;
    if (ask(&version) != cudaSuccess || version == 0)
        report_say(r, name, "none");
    else
        report_say(r, name, "CUDA %d.%d", version / 1000, version % 1000 / 10);
    (void)cudaGetLastError();
}

/* One GPU needs none, so its absence is no failure. */
static void say_nccl(const report *r)
{
    nccl_library nccl;
    if (nccl_load(&nccl) == CUDPO_OK)
        report_say(r, "NCCL", "%d.%d.%d, %s", nccl.version / 10000, nccl.version / 100 % 100,
                   nccl.version % 100, nccl.path);
    else
        report_say(r, "NCCL", "%s", cudpo_error_message());
    cudpo_error_clear();
}

static void say_memory(const report *r, const char *name, int device)
{
    size_t available = 0, total = 0;
    if (cudaSetDevice(device) != cudaSuccess || cudaMemGetInfo(&available, &total) != cudaSuccess)
        report_say(r, name, "can't be used: %s", cudaGetErrorString(cudaGetLastError()));
    else
        report_say(r, name, "%.1f of %.1f GB are free%s", (double)available * 1e-9,
                   (double)total * 1e-9,
                   available < total / 2 ? "; something else fills the rest" : "");
}

/* Which of the others a device reaches without the host. */
static void say_peers(const report *r, const char *name, int device, int devices)
{
    char text[256];
    int used = 0, reached = 0;
    for (int peer = 0; peer < devices; peer++) {
        int can = 0;
        if (peer == device) continue;
        if (cudaDeviceCanAccessPeer(&can, device, peer) != cudaSuccess || !can) continue;
        reached++;
        if (used < (int)sizeof text - 8)
            used += snprintf(text + used, sizeof text - (size_t)used, " %d", peer);
    }
    if (devices > 1)
        report_say(r, name, "%d of %d other GPUs%s%s", reached, devices - 1, reached > 0 ? ":" : "",
                   reached > 0 ? text : "");
}

static void say_device(const report *r, int device, int devices)
{
    struct cudaDeviceProp p;
    char name[32];
    snprintf(name, sizeof name, "GPU %d", device);
    if (cudaGetDeviceProperties(&p, device) != cudaSuccess) {
        report_say(r, name, "%s", cudaGetErrorString(cudaGetLastError()));
        return;
    }
    report_say(r, name, "%s, compute capability %d.%d%s, %d SMs", p.name, p.major, p.minor,
               p.major < 8 ? " (too old: 8.0 or later is needed)" : "", p.multiProcessorCount);
    snprintf(name, sizeof name, "GPU %d memory", device);
    say_memory(r, name, device);
    snprintf(name, sizeof name, "GPU %d peers", device);
    say_peers(r, name, device, devices);
}

void backend_cuda_report(void (*line)(void *context, const char *name, const char *value),
                         void *context)
{
    const report r = {line, context};
    int devices = 0;
    say_version(&r, "driver", cudaDriverGetVersion);
    say_version(&r, "runtime", cudaRuntimeGetVersion);
    report_say(&r, "cuBLASLt", "%zu", cublasLtGetVersion());
    say_nccl(&r);
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices == 0) {
        report_say(&r, "GPUs", "none: %s",
                   error == cudaSuccess ? "nothing is visible" : cudaGetErrorString(error));
        (void)cudaGetLastError();
        return;
    }
    report_say(&r, "GPUs", "%d visible", devices);
    for (int i = 0; i < devices; i++) {
        say_device(&r, i, devices);
    }
}
