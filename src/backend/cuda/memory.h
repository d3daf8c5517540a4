/* memory.h - the working memory of a GPU's ops: sizes alone, so that a run can be planned where there is none. */
#ifndef CUDPO_BACKEND_CUDA_MEMORY_H
#define CUDPO_BACKEND_CUDA_MEMORY_H

#include "backend/backend.h"

/* Bytes that an op which can do with less does not ask for, on a GPU with so much memory. */
size_t cuda_large_scratch(size_t memory);

/* Bytes of scratch that ops ask for at most; of them, attention's. */
size_t cuda_working_bytes(size_t large_scratch, const workload *most);
size_t cuda_attention_bytes(size_t large_scratch, const workload *most);

#endif /* CUDPO_BACKEND_CUDA_MEMORY_H */
