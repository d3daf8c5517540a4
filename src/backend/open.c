/* open.c - finds the CUDA backend's plugin and opens it.  The program itself knows no CUDA. */
#include "backend/open.h"
#include "base/log.h"
#include "base/plugin.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const plugin_kind cuda_kind = {
    .file = "libcudpo_cuda.so",
    .variable = "CUDPO_PLUGIN",
    .version = "backend_cuda_version",
    .bytes = sizeof(backend),
    .where = "device",
    .missing = "this cudpo has no CUDA backend (libcudpo_cuda.so): build it with `cmake --workflow "
               "--preset cuda`, or use --device cpu",
    .unloadable = "the CUDA backend can't be loaded",
    .advice = "install the CUDA libraries that it names, or use --device cpu",
};

/* The plugin, and the functions that every one has. */
typedef struct cuda_plugin {
    plugin library;
    cudpo_status (*open)(backend **be, const backend_options *options);
    void (*report)(void (*line)(void *context, const char *name, const char *value), void *context);
} cuda_plugin;

static cudpo_status load_plugin(cuda_plugin *p)
{
    CUDPO_TRY(plugin_open(&p->library, &cuda_kind));
    if (plugin_function(&p->library, "backend_cuda_open", &p->open) &&
        plugin_function(&p->library, "backend_cuda_report", &p->report))
        return CUDPO_OK;
    return cudpo_fail(CUDPO_EDEVICE, p->library.path, "lacks a function: build it anew");
}

static cudpo_status open_plugin(backend **be, const backend_options *options)
{
    cuda_plugin p;
    CUDPO_TRY(load_plugin(&p));
    return p.open(be, options);
}

cudpo_status backend_plugin_function(void *function, const char *name)
{
    cuda_plugin p;
    CUDPO_TRY(load_plugin(&p));
    if (plugin_function(&p.library, name, function)) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDEVICE, p.library.path, "has no %s: build it anew", name);
}

void backend_report(void (*line)(void *context, const char *name, const char *value), void *context)
{
    cuda_plugin p;
    char blas[256];
    snprintf(blas, sizeof blas, "%d threads, %s", omp_get_max_threads(), openblas_get_config());
    line(context, "CPU", blas);
    if (load_plugin(&p) != CUDPO_OK) {
        line(context, "CUDA backend", cudpo_error_message());
        cudpo_error_clear();
        return;
    }
    line(context, "CUDA backend", p.library.path);
    p.report(line, context);
}

cudpo_status backend_open(backend **be, const char *device, const backend_options *options)
{
    CUDPO_REQUIRE(be != NULL && device != NULL);
    const char *wanted = getenv("CUDPO_DEVICE");
    if (strcmp(device, "auto") == 0 && wanted != NULL && *wanted != '\0') device = wanted;
    *be = backend_cpu();
    if (strcmp(device, "cpu") == 0) return CUDPO_OK;
    if (strcmp(device, "cuda") == 0) {
        *be = NULL;
        return open_plugin(be, options);
    }
    if (strcmp(device, "auto") != 0)
        return cudpo_fail(CUDPO_EUSAGE, "device", "%s is none of auto, cpu, cuda", device);
    backend *gpu = NULL;
    if (open_plugin(&gpu, options) == CUDPO_OK) {
        *be = gpu;
        log_info("device: %s", gpu->description);
        return CUDPO_OK;
    }
    char path[PLUGIN_PATH];
    const char *why = cudpo_error_message();
    if (strncmp(why, "device: ", 8) == 0) why += 8;
    log_info("device: cpu (%s)",
             plugin_find(path, &cuda_kind) ? why : "built without the CUDA backend");
    cudpo_error_clear();
    return CUDPO_OK;
}
