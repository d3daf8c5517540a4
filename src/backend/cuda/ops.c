/* ops.c - each op of the table as a call of its launcher, with the backend's stream, fault word and scratch. */
#include "backend/cuda/ops.h"

static cuda_backend *of(backend *be)
{
    return (cuda_backend *)be;
}

static cudpo_status swiglu(backend *be, tensor act, tensor gate_up)
{
    return cuda_swiglu(act, gate_up, of(be)->stream);
}

void cuda_ops_install(backend *t)
{
    t->swiglu = swiglu;
}
