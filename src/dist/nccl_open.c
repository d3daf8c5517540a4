/* nccl_open.c - NCCL's communicator, which is in the CUDA backend's plugin. */
#include "backend/open.h"
#include "dist/company.h"
#include "dist/nccl/nccl.h"

cudpo_status communicator_nccl(communicator **out, backend *be, control *company)
{
    cudpo_status (*open)(communicator **, backend *, const nccl_company *);
    CUDPO_REQUIRE(out != NULL && be != NULL && be->on_device && company != NULL);
    *out = NULL;
    CUDPO_TRY(backend_plugin_function(&open, "communicator_nccl_open"));
    const nccl_company c = {.control = company,
                            .rank = control_rank(company),
                            .size = control_size(company),
                            .timeout = company->peer_timeout,
                            .status = control_status,
                            .broadcast = control_broadcast,
                            .waits = control_waits,
                            .set_watch = control_set_watch,
                            .mark = flight_mark};
    return open(out, be, &c);
}
