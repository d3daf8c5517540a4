/* device.c - a backend with its places on disk. */
#include "train/device.h"
#include "backend/open.h"
#include "base/file.h"
#include "train/cache_folder.h"

#include <stdlib.h>
#include <string.h>

cudpo_status device_open(backend **be, const char *device, const char *fallback)
{
    backend_options options = {0};
    char *folder = NULL;
    if (device == NULL) device = "auto";
    if (strcmp(device, "cpu") != 0) CUDPO_TRY(cache_folder(&folder, fallback));
    options.cache = folder;
    const cudpo_status status = backend_open(be, device, &options);
    free(folder);
    return status;
}

static cudpo_status call(cudpo_status (*what)(backend *be, const char *path), backend *be,
                         const char *output_dir)
{
    char *path = path_join(output_dir, DEVICE_CHOICES);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = what(be, path);
    free(path);
    return status;
}

cudpo_status device_recall(backend *be, const char *output_dir)
{
    return call(be->recall, be, output_dir);
}

cudpo_status device_keep(backend *be, const char *output_dir)
{
    return call(be->keep, be, output_dir);
}
