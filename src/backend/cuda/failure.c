/* failure.c - what to say when a call of the CUDA runtime fails: which, why, and what helps. */
#include "backend/cuda/runtime.h"

#include <stdlib.h>
#include <string.h>

enum { NAMED = 64 }; /* characters of a call's name at most */

const char *cuda_device_remedy(void)
{
    return getenv("CUDPO_SYNC") != NULL
               ? "; if it stays so, the driver's log (dmesg, Xid) says what became of the GPU; a "
                 "run goes on from its last checkpoint with --resume_from_checkpoint true"
               : "; the op that failed may be an earlier one: CUDPO_SYNC=1 names it; a run goes on "
                 "from its last checkpoint with --resume_from_checkpoint true";
}

static cudpo_status no_memory(const char *where, const char *call, int length)
{
    size_t available = 0, total = 0;
    if (strncmp(call, "cudaMallocHost", 14) == 0)
        return cudpo_fail(CUDPO_ENOMEM, where,
                          "%.*s: the host can't pin so much of its memory (ulimit -l, or a control "
                          "group's limit)",
                          length, call);
    (void)cudaMemGetInfo(&available, &total);
    return cudpo_fail(CUDPO_ENOMEM, where,
                      "%.*s: out of memory: %.3f of the GPU's %.3f GB are free; nvidia-smi shows "
                      "which processes hold the rest",
                      length, call, (double)available * 1e-9, (double)total * 1e-9);
}

cudpo_status cuda_failed(const char *where, const char *call, cudaError_t error)
{
    const size_t name = strcspn(call, "(");
    const int length = (int)(name < NAMED ? name : NAMED);
    (void)cudaGetLastError(); /* or the next launch would report it again */
    if (error == cudaErrorMemoryAllocation) return no_memory(where, call, length);
    return cudpo_fail(CUDPO_EDEVICE, where, "%.*s: %s%s", length, call, cudaGetErrorString(error),
                      cuda_device_remedy());
}
