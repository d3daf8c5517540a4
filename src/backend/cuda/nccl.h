/* nccl.h - NCCL's functions, from a library that is opened when ranks come together, and not before: one GPU needs none.
 *
 * The few declarations are our own, so that neither a build nor the plugin's start asks for NCCL; tests/nccl_header.c holds
 * them against NVIDIA's header where there is one. */
#ifndef CUDPO_BACKEND_CUDA_NCCL_H
#define CUDPO_BACKEND_CUDA_NCCL_H

#include "cudpo/status.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

typedef enum nccl_result {
    NCCL_SUCCESS = 0,
    NCCL_CUDA_ERROR,
    NCCL_SYSTEM_ERROR,
    NCCL_INTERNAL_ERROR,
    NCCL_INVALID_ARGUMENT,
    NCCL_INVALID_USAGE,
    NCCL_REMOTE_ERROR,
    NCCL_IN_PROGRESS
} nccl_result;

typedef enum nccl_type { NCCL_FLOAT32 = 7, NCCL_BFLOAT16 = 9 } nccl_type;
typedef enum nccl_op { NCCL_SUM = 0 } nccl_op;

typedef struct nccl_id {
    char bytes[128]; /* who knows them can join: a secret */
} nccl_id;

typedef struct ncclComm *nccl_comm;

/* ncclConfig_t up to the last field that is wanted; NCCL reads `size` bytes of it and takes its defaults for the rest. */
typedef struct nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share, traffic_class;
    const char *comm_name;
} nccl_config;

/* nccl_config's first fields, and "no wish" for the others. */
#define NCCL_MAGIC 0xcafebeefu
enum { NCCL_CONFIG_VERSION = 22500, NCCL_UNDEFINED = -2147483647 - 1 };

/* The functions, in the order of their use; every one but the first four may answer NCCL_IN_PROGRESS. */
typedef struct nccl_library {
    const char *path; /* what was opened */
    int version;      /* 22809 is 2.28.9 */
    nccl_result (*get_version)(int *version);
    const char *(*error_string)(nccl_result result);
    const char *(*last_error)(nccl_comm comm);
    nccl_result (*get_unique_id)(nccl_id *id);
    nccl_result (*comm_init)(nccl_comm *comm, int size, nccl_id id, int rank, nccl_config *config);
    nccl_result (*comm_async_error)(nccl_comm comm, nccl_result *result);
    nccl_result (*group_start)(void);
    nccl_result (*group_end)(void);
    nccl_result (*all_reduce)(const void *send, void *receive, size_t n, nccl_type type, nccl_op op,
                              nccl_comm comm, cudaStream_t stream);
    nccl_result (*reduce)(const void *send, void *receive, size_t n, nccl_type type, nccl_op op,
                          int root, nccl_comm comm, cudaStream_t stream);
    nccl_result (*all_gather)(const void *send, void *receive, size_t each, nccl_type type,
                              nccl_comm comm, cudaStream_t stream);
    nccl_result (*broadcast)(const void *send, void *receive, size_t n, nccl_type type, int root,
                             nccl_comm comm, cudaStream_t stream);
    nccl_result (*comm_finalize)(nccl_comm comm);
    nccl_result (*comm_destroy)(nccl_comm comm);
    nccl_result (*comm_abort)(nccl_comm comm);
} nccl_library;

/** Open the library that $CUDPO_NCCL names, else libnccl.so.2 where the system's loader finds it.  It stays open.
 *  Returns: CUDPO_OK; CUDPO_EDEVICE: it can't be loaded, is no NCCL or too old, and what to do. */
CUDPO_MUST_USE cudpo_status nccl_load(nccl_library *out);

#endif /* CUDPO_BACKEND_CUDA_NCCL_H */
