/* device.c - a backend with its places on disk. */
#include "train/device.h"
#include "backend/open.h"
#include "base/file.h"
#include "train/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cudpo_status device_open(backend **be, const char *device, int local_rank, const char *fallback)
{
    backend_options options = {.device = local_rank};
    char *folder = NULL;
    if (device == NULL) device = "auto";
    if (strcmp(device, "cpu") != 0) CUDPO_TRY(cache_folder(&folder, fallback));
    options.cache = folder;
    const cudpo_status status = backend_open(be, device, &options);
    free(folder);
    return status;
}

cudpo_status device_check(backend *be)
{
    uint32_t bits = 0;
    CUDPO_TRY(be->faults(be, &bits));
    bits &= ~(uint32_t)FAULT_NONFINITE; /* a gradient that is no number has been looked at */
    if (bits == 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDEVICE, be->name,
                      "an op was given%s%s%s%s%s out of range: a bug of cudpo, no result can be "
                      "trusted",
                      bits & FAULT_TOKEN ? " tokens" : "", bits & FAULT_LABEL ? " labels" : "",
                      bits & FAULT_INDEX ? " indices" : "", bits & FAULT_SEGMENT ? " segments" : "",
                      bits & FAULT_PLAN ? " a plan of attention" : "");
}

static cudpo_status call(cudpo_status (*what)(backend *be, const char *path), backend *be,
                         const char *output_dir, int rank)
{
    char name[40];
    snprintf(name, sizeof name, DEVICE_RANK_CHOICES "/%d.txt", rank);
    char *path = path_join(output_dir, rank == 0 ? DEVICE_CHOICES : name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = what(be, path);
    free(path);
    return status;
}

cudpo_status device_recall(backend *be, const char *output_dir, int rank)
{
    return call(be->recall, be, output_dir, rank);
}

cudpo_status device_keep(backend *be, const char *output_dir, int rank)
{
    return call(be->keep, be, output_dir, rank);
}
