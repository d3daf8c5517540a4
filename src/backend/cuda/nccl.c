/* nccl.c - opens NCCL.  What an installation of PyTorch brings is not where the system's loader looks: $CUDPO_NCCL names it. */
#include "backend/cuda/nccl.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define REMEDY                                                                                     \
    "install NCCL (libnccl2, or nvidia-nccl with its path in $CUDPO_NCCL), or set ddp_backend to " \
    "tcp or mpi"

enum { OLDEST = 21400 }; /* the first with communicators that do not block */

/* POSIX has dlsym return a pointer to an object that may be copied into one to a function. */
static bool find(void *library, const char *name, void *function)
{
    void *const address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

static const char *find_all(nccl_library *n, void *library)
{
    const struct {
        const char *name;
        void *function;
    } all[] = {
        {"ncclGetVersion", &n->get_version},       {"ncclGetErrorString", &n->error_string},
        {"ncclGetLastError", &n->last_error},      {"ncclGetUniqueId", &n->get_unique_id},
        {"ncclCommInitRankConfig", &n->comm_init}, {"ncclCommGetAsyncError", &n->comm_async_error},
        {"ncclGroupStart", &n->group_start},       {"ncclGroupEnd", &n->group_end},
        {"ncclAllReduce", &n->all_reduce},         {"ncclReduce", &n->reduce},
        {"ncclAllGather", &n->all_gather},         {"ncclBroadcast", &n->broadcast},
        {"ncclCommFinalize", &n->comm_finalize},   {"ncclCommDestroy", &n->comm_destroy},
        {"ncclCommAbort", &n->comm_abort},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!find(library, all[i].name, all[i].function)) return all[i].name;
    }
    return NULL;
}

cudpo_status nccl_load(nccl_library *out)
{
    const char *const named = getenv("CUDPO_NCCL");
    *out = (nccl_library){.path = named != NULL && *named != '\0' ? named : "libnccl.so.2"};
    void *const library = dlopen(out->path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return cudpo_fail(CUDPO_EDEVICE, "NCCL", "it can't be loaded: %s; " REMEDY, dlerror());
    const char *const missing = find_all(out, library);
    if (missing != NULL && out->get_version == NULL)
        return cudpo_fail(CUDPO_EDEVICE, "NCCL", "%s is no NCCL, it has no %s; " REMEDY, out->path,
                          missing);
    if (out->get_version(&out->version) != NCCL_SUCCESS)
        return cudpo_fail(CUDPO_EDEVICE, "NCCL", "%s does not say its version; " REMEDY, out->path);
    if (missing != NULL || out->version < OLDEST)
        return cudpo_fail(CUDPO_EDEVICE, "NCCL",
                          "%s is of version %d, and %d or later is needed%s%s; " REMEDY, out->path,
                          out->version, OLDEST, missing != NULL ? ": it has no " : "",
                          missing != NULL ? missing : "");
    return CUDPO_OK;
}
