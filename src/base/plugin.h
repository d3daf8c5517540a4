/* plugin.h - libraries of cudpo's own that the program opens only where they are asked for, because they want libraries that
 * most machines lack. */
#ifndef CUDPO_BASE_PLUGIN_H
#define CUDPO_BASE_PLUGIN_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { PLUGIN_PATH = 4096 + 256 };

/* What there is to know of a plugin before it is opened. */
typedef struct plugin_kind {
    const char *file;     /* "libcudpo_x.so" */
    const char *variable; /* of the environment: a path that is used instead */
    /* A function of it, const char *(*)(size_t *bytes): CUDPO_VERSION " " CUDPO_INTERFACE, and the size of the structure that
     * it fills.  One that says other things was built with other headers, and is refused. */
    const char *version;
    size_t bytes;
    /* For messages, which are CUDPO_EDEVICE: what they are about, what is wrong where there is none, what to do where a
     * library that it needs is missing. */
    const char *where, *missing, *unloadable, *advice;
} plugin_kind;

typedef struct plugin {
    char path[PLUGIN_PATH];
    void *library;
} plugin;

/** Path of the plugin: the one that is named, or that of this installation; false: there is none. */
bool plugin_find(char out[PLUGIN_PATH], const plugin_kind *kind);

/** Find it, open it, and see that it was built with this program.  It stays open: threads of what it uses may run in it.
 *  Returns: CUDPO_OK; CUDPO_EDEVICE. */
CUDPO_MUST_USE cudpo_status plugin_open(plugin *p, const plugin_kind *kind);

/** A function of an open plugin, in *function, a pointer to such a function; false: it has none of that name. */
bool plugin_function(const plugin *p, const char *name, void *function);

#endif /* CUDPO_BASE_PLUGIN_H */
