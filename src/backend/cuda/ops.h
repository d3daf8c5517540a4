/* ops.h - the CUDA backend's functions: kernels.h's launchers in the shape of the op table. */
#ifndef CUDPO_BACKEND_CUDA_OPS_H
#define CUDPO_BACKEND_CUDA_OPS_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/fetch.h"
#include "backend/cuda/staging.h"
#include "kernels/kernels.h"

/* The backend behind the table: what an op may use beside its arguments. */
typedef struct cuda_backend {
    backend table; /* first, so that a backend * is a cuda_backend * */
    cudpo_stream stream;
    tensor fault; /* [1] i32 */
    staging staging;
    fetcher fetcher;
    struct CUevent_st *marks[MARKS];
    struct CUevent_st *stamps[STAMPS]; /* NULL until first set */
    scratch memory;                    /* grows when an op needs more than was reserved */
    bool reserved;                     /* then an op that can do with it does */
    size_t large_scratch; /* bytes that an op which can do with less does not ask for */
    struct cuda_gemm *gemm;
    char description[320];
} cuda_backend;

/** Scratch of at least `bytes`, which holds until the next op asks.  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status cuda_scratch(scratch *out, cuda_backend *be, size_t bytes);

/** Bytes of scratch that attention asks for at most. */
size_t cuda_attention_memory(const cuda_backend *be, const workload *most);

/** Put the ops into the table. */
void cuda_ops_install(backend *table);
void cuda_attention_install(backend *table);
void cuda_head_install(backend *table);
void cuda_layers_install(backend *table);
void cuda_optim_install(backend *table);
void cuda_ranges_install(backend *table);

#endif /* CUDPO_BACKEND_CUDA_OPS_H */
