/* gpus.c - datasheets.  Dense rates, without sparsity; of NVLink half of the total that they give, which counts both ways.
 *
 * H100, H200  NVIDIA H100 Tensor Core GPU Architecture (white paper), table of peak rates: 66.9 and 989.4 TFLOPS, 132
 *             multiprocessors; the data sheets of both: 3.35 and 4.8 TB/s, NVLink 900 GB/s
 * B200        HGX B200: float32 600 TFLOPS of 8 GPUs, bfloat16 36 PFLOPS of 8 with sparsity, NVLink 1.8 TB/s; 180 GB and
 *             7.7 TB/s.  A device's own 191.5 GB, 148 multiprocessors and 7.67 TB/s: pytorch/ao, pull request 4002
 * A100        data sheet of A100 (NVIDIA 1758950): 19.5 and 312 TFLOPS, 1,555 and 2,039 GB/s, NVLink 600 GB/s; white paper:
 *             108 multiprocessors.  A device's own 42.4 GB: deviceQuery in the documentation of PC2 Paderborn
 * L40S        data sheet: 91.6 and 362.05 TFLOPS, 864 GB/s, 18,176 CUDA cores of 128 a multiprocessor, no NVLink
 * RTX 4090    NVIDIA Ada GPU Architecture (white paper): 82.6 and, added up in float32, 165.2 TFLOPS, 1,008 GB/s, 128
 *             multiprocessors, no NVLink
 *
 * Memory is what cudaGetDeviceProperties() counts: that of the H200 was read on one; where no device is named above, the data
 * sheet's GiB less 1.2 % for error correction and firmware; of the L40S 7.5 %, for GDDR6 has no memory of its own for error
 * correction, and of the RTX 4090 1.8 %, which its driver takes.  NICs are those of NVIDIA's DGX of the generation, one a GPU, 400 Gb/s and of A100 200; the last two have 100 Gb/s, which is an assumption, as is what
 * PCIe reaches: 55 GB/s of the 63 of its fifth generation, 25 of the 31.5 of its fourth. */
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
    {"a100-40gb", "A100-SXM4-40GB", 42.4 * G, 312 * T, 19.5 * T, 1555 * G, 108, 300 * G, 25 * G,
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

/* "80GB", "HBM3", "HBM2e" */
static bool is_memory(const char *word, size_t n)
{
    const size_t digits = strspn(word, "0123456789");
    return (digits > 0 && digits + 2 == n && strncasecmp(word + digits, "GB", 2) == 0) ||
           (n >= 3 && strncasecmp(word, "HBM", 3) == 0);
}

static bool is_variant(const char *behind)
{
    for (;;) {
        behind += strspn(behind, " ");
        const size_t n = strcspn(behind, " ");
        if (n == 0) return false;
        if (!is_memory(behind, n)) return true;
        behind += n;
    }
}

bool gpu_is(const gpu_facts *gpu, const char *name)
{
    const size_t n = strlen(gpu->product);
    if (gpu->memory == 0) return strcasecmp(name, gpu->product) == 0;
    for (const char *at = name; *at != '\0'; at++) {
        const bool begins = at == name || at[-1] == ' ';
        if (begins && strncasecmp(at, gpu->product, n) == 0 && (at[n] == ' ' || at[n] == '\0'))
            return !is_variant(at + n);
    }
    return false;
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
    }
    return be;
}
