/* ops.c - each op of the table as a call of its launcher, with the backend's stream, fault word and scratch. */
#include "backend/cuda/ops.h"

void cuda_ops_install(backend *t)
{
    cuda_attention_install(t);
    cuda_layers_install(t);
    cuda_optim_install(t);
    cuda_head_install(t);
    cuda_ranges_install(t);
}
