/* plugin.h - is the CUDA backend that $CUDPO_PLUGIN names the emulated one, and if not, is there a GPU for it? */
#ifndef CUDPO_TESTS_PLUGIN_H
#define CUDPO_TESTS_PLUGIN_H

#include "test.h"
#include "backend/open.h"

#include <string.h>

static inline bool plugin_emulated(void)
{
    const char *plugin = getenv("CUDPO_PLUGIN");
    return plugin != NULL && strstr(plugin, "emulated") != NULL;
}

/* Does the test run on the CUDA backend this time? */
static inline bool plugin_asked(void)
{
    const char *device = getenv("CUDPO_DEVICE");
    return device != NULL && strcmp(device, "cuda") == 0;
}

/* A machine without a GPU, which is said.  The emulated one is always there: where it can't be opened, the test fails. */
static inline bool plugin_missing(void)
{
    backend *be = NULL;
    if (plugin_emulated()) return false;
    if (backend_open(&be, "cuda", &(backend_options){0}) == CUDPO_OK) {
        be->close(be);
        return false;
    }
    printf("skipped: %s\n", cudpo_error_message());
    cudpo_error_clear();
    return true;
}

#endif /* CUDPO_TESTS_PLUGIN_H */
