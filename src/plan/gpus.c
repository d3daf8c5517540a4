/* gpus.c - datasheets.
 *
 * Sources: NVIDIA's data sheets of A100, H100, H200, B200, L40S and the RTX 4090 (dense rates, without sparsity; NVLink is half
 * of the total that they give, which counts both ways).  Memory is what cudaGetDeviceProperties() counts: that of the H200 was
 * read on one, the others are their data sheets' less the same 1.2 % for error correction and firmware.  NICs are those of
 * NVIDIA's DGX of the generation, one a GPU; the last two have 100 Gb/s, which is an assumption. */
#include "plan/gpus.h"
#include "backend/cuda/memory.h"
#include "base/nearest.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define G 1e9
#define T 1e12

static const gpu_facts table[] = {
    {.name = "cpu", .product = "cpu"},
    {"h100", "H100", 84.9 * G, 989.4 * T, 66.9 * T, 3350 * G, 132, 450 * G, 50 * G, 55 * G},
    {"h200", "H200", 150.1 * G, 989.4 * T, 66.9 * T, 4800 * G, 132, 450 * G, 50 * G, 55 * G},
    {"b200", "B200", 191.5 * G, 2250 * T, 75 * T, 7700 * G, 148, 900 * G, 50 * G, 55 * G},
    {"a100", "A100-SXM4-80GB", 84.9 * G, 312 * T, 19.5 * T, 2039 * G, 108, 300 * G, 25 * G, 25 * G},
    {"a100-40gb", "A100-SXM4-40GB", 42.3 * G, 312 * T, 19.5 * T, 1555 * G, 108, 300 * G, 25 * G,
     25 * G},
    {"l40s", "L40S", 47.7 * G, 362 * T, 91.6 * T, 864 * G, 142, 25 * G, 12.5 * G, 25 * G},
    {"rtx4090", "RTX 4090", 25.3 * G, 165.2 * T, 82.6 * T, 1008 * G, 128, 25 * G, 12.5 * G, 25 * G},
};
enum { LINES = sizeof table / sizeof table[0] };

#undef G
#undef T

const gpu_facts *gpu_table(int *n)
{
    *n = LINES;
    return table;
}

cudpo_status gpu_find(const gpu_facts **out, const char *name)
{
    const char *names[LINES];
    char list[256];
    size_t used = 0;
    for (int i = 0; i < LINES; i++) {
        *out = &table[i];
        if (strcasecmp(name, table[i].name) == 0) return CUDPO_OK;
        names[i] = table[i].name;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s",
                                 i == 0           ? ""
                                 : i + 1 == LINES ? " and "
                                                  : ", ",
                                 table[i].name);
    }
    *out = NULL;
    const char *meant = nearest_name(name, names, LINES);
    return cudpo_fail(CUDPO_EUSAGE, "--gpu", "\"%s\" is not known, but %s are%s%s%s", name, list,
                      meant != NULL ? "; did you mean " : "", meant != NULL ? meant : "",
                      meant != NULL ? "?" : "");
}

/* Context and code of a process, of the runtime's count: what a driver of today takes. */
#define CONTEXT 1e9

static cudpo_status free_memory(backend *be, size_t *bytes)
{
    *bytes = be->memory - (size_t)CONTEXT;
    return CUDPO_OK;
}

static size_t working_memory(backend *be, const workload *most)
{
    return cuda_working_bytes(cuda_large_scratch(be->memory), most);
}

static cudpo_status whole_memory(backend *be, size_t *bytes)
{
    *bytes = be->memory;
    return CUDPO_OK;
}

static void close_nothing(backend *be)
{
    (void)be;
}

backend gpu_stand_in(const gpu_facts *gpu)
{
    backend be = *backend_cpu();
    be.close = close_nothing;
    be.name = be.description = gpu->name;
    if (gpu->memory > 0) {
        be.memory = (size_t)gpu->memory;
        be.on_device = true;
        be.available_memory = free_memory;
        be.working_memory = working_memory;
    } else {
        be.memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
        be.available_memory = whole_memory;
    }
    return be;
}
