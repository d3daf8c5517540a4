/* plugin.c - beside the program, or where it is installed. */
#include "base/plugin.h"
#include "base/file.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of the running program, or "". */
static void program_folder(char out[PLUGIN_PATH])
{
    const ssize_t n = readlink("/proc/self/exe", out, PLUGIN_PATH - 1);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash != NULL) *slash = '\0';
}

bool plugin_find(char out[PLUGIN_PATH], const plugin_kind *kind)
{
    const char *named = getenv(kind->variable);
    if (named != NULL && *named != '\0') {
        snprintf(out, PLUGIN_PATH, "%s", named);
        return true;
    }
    static const char *const places[] = {"", "/../" CUDPO_PLUGIN_FOLDER};
    char folder[PLUGIN_PATH];
    program_folder(folder);
    for (int i = 0; i < 2; i++) {
        const int n = snprintf(out, PLUGIN_PATH, "%s%s/%s", folder, places[i], kind->file);
        if (n < PLUGIN_PATH && file_is_regular(out)) return true;
    }
    return false;
}

/* POSIX has dlsym return a pointer to an object that may be copied into one to a function. */
bool plugin_function(const plugin *p, const char *name, void *function)
{
    void *address = dlsym(p->library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

cudpo_status plugin_open(plugin *p, const plugin_kind *kind)
{
    size_t bytes = 0;
    const char *(*version)(size_t * bytes);
    if (!plugin_find(p->path, kind))
        return cudpo_fail(CUDPO_EDEVICE, kind->where, "%s", kind->missing);
    p->library = dlopen(p->path, RTLD_NOW | RTLD_LOCAL);
    if (p->library == NULL)
        return cudpo_fail(CUDPO_EDEVICE, kind->where, "%s: %s; %s", kind->unloadable, dlerror(),
                          kind->advice);
    if (plugin_function(p, kind->version, &version) &&
        strcmp(version(&bytes), CUDPO_VERSION " " CUDPO_INTERFACE) == 0 && bytes == kind->bytes)
        return CUDPO_OK;
    (void)dlclose(p->library);
    return cudpo_fail(CUDPO_EDEVICE, p->path, "is of another version of cudpo: build it anew");
}
