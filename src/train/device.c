/* device.c - a backend with its places on disk. */
#include "train/device.h"
#include "backend/open.h"
#include "base/file.h"
#include "train/cache_folder.h"

#include <stdlib.h>
#include <string.h>

cudpo_status device_open(backend **be, const char *device, const char *fallback, const char *run)
{
    char *folder = NULL;
    if (device == NULL) device = "auto";
    if (strcmp(device, "cpu") != 0) CUDPO_TRY(cache_folder(&folder, fallback));
    char *choices = run != NULL ? path_join(run, DEVICE_CHOICES) : NULL;
    const backend_options options = {.cache = folder, .run = choices};
    const cudpo_status status = run != NULL && choices == NULL
                                    ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path")
                                    : backend_open(be, device, &options);
    free(choices);
    free(folder);
    return status;
}

cudpo_status device_keep(backend *be, const char *output_dir)
{
    char *choices = path_join(output_dir, DEVICE_CHOICES);
    if (choices == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = be->keep(be, choices);
    free(choices);
    return status;
}
