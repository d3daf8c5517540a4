/* nccl_header.c - our declarations of NCCL (backend/cuda/nccl.h) beside NVIDIA's: compiled where that header is, never run. */
#include "backend/cuda/nccl.h"

#include <nccl.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)
#define FIELD(ours, theirs)                                                                 \
    _Static_assert(offsetof(nccl_config, ours) == offsetof(ncclConfig_t, theirs) &&         \
                       sizeof((nccl_config *)0)->ours == sizeof((ncclConfig_t *)0)->theirs, \
                   #ours)

SAME(NCCL_SUCCESS, ncclSuccess);
SAME(NCCL_CUDA_ERROR, ncclUnhandledCudaError);
SAME(NCCL_SYSTEM_ERROR, ncclSystemError);
SAME(NCCL_INTERNAL_ERROR, ncclInternalError);
SAME(NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(NCCL_INVALID_USAGE, ncclInvalidUsage);
SAME(NCCL_REMOTE_ERROR, ncclRemoteError);
SAME(NCCL_IN_PROGRESS, ncclInProgress);
SAME(NCCL_FLOAT32, ncclFloat32);
SAME(NCCL_BFLOAT16, ncclBfloat16);
SAME(NCCL_SUM, ncclSum);
SAME(NCCL_UNDEFINED, NCCL_CONFIG_UNDEF_INT);
_Static_assert(sizeof(nccl_id) == sizeof(ncclUniqueId), "nccl_id");
_Static_assert(sizeof(nccl_result) == sizeof(ncclResult_t), "nccl_result");
_Static_assert(sizeof(nccl_type) == sizeof(ncclDataType_t), "nccl_type");
_Static_assert(sizeof(nccl_op) == sizeof(ncclRedOp_t), "nccl_op");
_Static_assert(sizeof(nccl_config) <= sizeof(ncclConfig_t), "nccl_config");
_Static_assert(NCCL_CONFIG_VERSION <= NCCL_VERSION_CODE, "NCCL_CONFIG_VERSION");
FIELD(size, size);
FIELD(magic, magic);
FIELD(version, version);
FIELD(blocking, blocking);
FIELD(cga_cluster_size, cgaClusterSize);
FIELD(min_ctas, minCTAs);
FIELD(max_ctas, maxCTAs);
FIELD(net_name, netName);
FIELD(split_share, splitShare);
FIELD(traffic_class, trafficClass);
FIELD(comm_name, commName);

/* The same arguments suit both. */
#define BOTH(ours, theirs, ...)     \
    do {                            \
        (void)n->ours(__VA_ARGS__); \
        (void)theirs(__VA_ARGS__);  \
    } while (0)

void nccl_header(const nccl_library *n, const void *a, void *b, size_t count, ncclComm_t c,
                 cudaStream_t s);
void nccl_header(const nccl_library *n, const void *a, void *b, size_t count, ncclComm_t c,
                 cudaStream_t s)
{
    ncclResult_t state;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int version;
    BOTH(get_version, ncclGetVersion, &version);
    BOTH(error_string, ncclGetErrorString, 0);
    BOTH(last_error, ncclGetLastError, c);
    BOTH(get_unique_id, ncclGetUniqueId, b);
    BOTH(group_start, ncclGroupStart, );
    BOTH(group_end, ncclGroupEnd, );
    BOTH(all_reduce, ncclAllReduce, a, b, count, 7, 0, c, s);
    BOTH(reduce, ncclReduce, a, b, count, 7, 0, 1, c, s);
    BOTH(all_gather, ncclAllGather, a, b, count, 7, c, s);
    BOTH(broadcast, ncclBroadcast, a, b, count, 7, 1, c, s);
    BOTH(comm_finalize, ncclCommFinalize, c);
    BOTH(comm_destroy, ncclCommDestroy, c);
    BOTH(comm_abort, ncclCommAbort, c);
    (void)n->comm_init(&c, 2, (nccl_id){{0}}, 1, &(nccl_config){.magic = NCCL_MAGIC});
    (void)ncclCommInitRankConfig(&c, 2, (ncclUniqueId){{0}}, 1, &config);
    (void)n->comm_async_error(c, &(nccl_result){NCCL_SUCCESS});
    (void)ncclCommGetAsyncError(c, &state);
}
