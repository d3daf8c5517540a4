/* open.h - a backend by the name of its device. */
#ifndef CUDPO_BACKEND_OPEN_H
#define CUDPO_BACKEND_OPEN_H

#include "backend/backend.h"

/** Open the CPU, or the CUDA backend in its plugin, libcudpo_cuda.so, which is looked for in $CUDPO_PLUGIN (its path), beside
 *  the program, and where `cmake --install` puts it.
 *  Out:     be  to be closed by its own close().
 *  In:      device   "cpu"; "cuda"; "auto": $CUDPO_DEVICE where that is set, else the GPU where one can be used, else the CPU,
 *                    and a line on stderr that says which and why.
 *           options  as the CUDA backend takes them.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE: no such device; CUDPO_EDEVICE: "cuda" was asked for and can't be had: why,
 *           and what to do; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status backend_open(backend **be, const char *device,
                                         const backend_options *options);

/** A function that the CUDA backend's plugin exports beside the backend itself.
 *  Out:     function  a pointer to such a function.
 *  Returns: CUDPO_OK; CUDPO_EDEVICE: there is no plugin, or it has no such function. */
CUDPO_MUST_USE cudpo_status backend_plugin_function(void *function, const char *name);

/** What there is of backends on this machine: a call of `line` for each fact. */
void backend_report(void (*line)(void *context, const char *name, const char *value),
                    void *context);

#endif /* CUDPO_BACKEND_OPEN_H */
