/* device.c - a backend with its place on disk. */
#include "train/device.h"
#include "backend/open.h"
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
