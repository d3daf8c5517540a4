/* open.c - finds the CUDA backend's plugin and opens it.  The program itself knows no CUDA. */
#include "backend/open.h"
#include "base/file.h"
#include "base/log.h"

#include <cblas.h>
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN "libcudpo_cuda.so"

enum { PATH = 4096, LONG_PATH = PATH + 256 };

/* The folder of the running program, or "". */
static void program_folder(char out[PATH])
{
    const ssize_t n = readlink("/proc/self/exe", out, PATH - 1);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash != NULL) *slash = '\0';
}

/* The plugin's path: the one that is named, or that of this installation; false: there is none. */
static bool find_plugin(char out[LONG_PATH])
{
    const char *named = getenv("CUDPO_PLUGIN");
    if (named != NULL && *named != '\0') {
        snprintf(out, LONG_PATH, "%s", named);
        return true;
    }
    static const char *const places[] = {"/" PLUGIN, "/../" CUDPO_PLUGIN_FOLDER "/" PLUGIN};
    char folder[PATH];
    program_folder(folder);
    for (int i = 0; i < 2; i++) {
        snprintf(out, LONG_PATH, "%s%s", folder, places[i]);
        if (file_is_regular(out)) return true;
    }
    return false;
}

static cudpo_status load(void **library, const char *path)
{
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*library != NULL) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDEVICE, "device",
                      "the CUDA backend can't be loaded: %s; install the CUDA libraries that it "
                      "names, or use --device cpu",
                      dlerror());
}

/* A function of the plugin.  POSIX has dlsym return a pointer to an object that may be copied into one to a function. */
static bool function_of(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

/* The plugin's functions, and where it was found. */
typedef struct plugin {
    char path[LONG_PATH];
    void *library;
    cudpo_status (*open)(backend **be, const backend_options *options);
    void (*report)(void (*line)(void *context, const char *name, const char *value), void *context);
} plugin;

static cudpo_status load_plugin(plugin *p)
{
    size_t table = 0;
    const char *(*version)(size_t * table_bytes);
    if (!find_plugin(p->path))
        return cudpo_fail(CUDPO_EDEVICE, "device",
                          "this cudpo has no CUDA backend (" PLUGIN
                          "): build it with `cmake --workflow --preset cuda`, or use --device cpu");
    CUDPO_TRY(load(&p->library, p->path));
    if (function_of(p->library, "backend_cuda_version", &version) &&
        function_of(p->library, "backend_cuda_open", &p->open) &&
        function_of(p->library, "backend_cuda_report", &p->report) &&
        strcmp(version(&table), CUDPO_VERSION " " CUDPO_INTERFACE) == 0 && table == sizeof(backend))
        return CUDPO_OK;
    (void)dlclose(p->library);
    return cudpo_fail(CUDPO_EDEVICE, p->path, "is of another version of cudpo: build it anew");
}

static cudpo_status open_plugin(backend **be, const backend_options *options)
{
    plugin p;
    CUDPO_TRY(load_plugin(&p));
    return p.open(be, options); /* the library stays loaded: CUDA's own threads may run in it */
}

cudpo_status backend_plugin_function(void *function, const char *name)
{
    plugin p;
    CUDPO_TRY(load_plugin(&p));
    if (function_of(p.library, name, function)) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDEVICE, p.path, "has no %s: build it anew", name);
}

void backend_report(void (*line)(void *context, const char *name, const char *value), void *context)
{
    plugin p;
    char blas[256];
    snprintf(blas, sizeof blas, "%d threads, %s", omp_get_max_threads(), openblas_get_config());
    line(context, "CPU", blas);
    if (load_plugin(&p) != CUDPO_OK) {
        line(context, "CUDA backend", cudpo_error_message());
        cudpo_error_clear();
        return;
    }
    line(context, "CUDA backend", p.path);
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
    char path[LONG_PATH];
    const char *why = cudpo_error_message();
    if (strncmp(why, "device: ", 8) == 0) why += 8;
    log_info("device: cpu (%s)", find_plugin(path) ? why : "built without the CUDA backend");
    cudpo_error_clear();
    return CUDPO_OK;
}
