/* nccl.h - NCCL's communicator, as the program finds it in the CUDA backend's plugin: see communicator_nccl(). */
#ifndef CUDPO_DIST_NCCL_NCCL_H
#define CUDPO_DIST_NCCL_NCCL_H

#include "dist/communicator.h"

/* The company of ranks, and the program's functions for it: the plugin is not linked with them. */
typedef struct nccl_company {
    control *control;
    int32_t rank, size;
    double timeout; /* s, until a peer that stands still counts as lost */
    cudpo_status (*status)(const control *c);
    cudpo_status (*broadcast)(control *c, void *data, size_t bytes, const char *what);
    void (*waits)(control *c, const char *collective, int64_t sequence, int64_t step);
    bool (*set_watch)(control *c, const control_watch *watch);
    void (*mark)(flight *f, int64_t sequence, flight_state state);
} nccl_company;

/** Collective.  In: be  a CUDA backend.  Returns: as communicator_nccl(). */
CUDPO_MUST_USE cudpo_status communicator_nccl_open(communicator **out, backend *be,
                                                   const nccl_company *company);

#endif /* CUDPO_DIST_NCCL_NCCL_H */
