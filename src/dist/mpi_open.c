/* mpi_open.c - opens the plugin that knows MPI, and gives it a thread. */
#include "base/plugin.h"
#include "dist/mpi/mpi_plugin.h"

static const plugin_kind mpi_kind = {
    .file = "libcudpo_mpi.so",
    .variable = "CUDPO_MPI_PLUGIN",
    .version = "communicator_mpi_version",
    .bytes = sizeof(queued_transport),
    .where = "MPI",
    .missing =
        "this cudpo was built without MPI (libcudpo_mpi.so): build it where pkg-config finds "
        "ompi-c, or use --ddp_backend tcp",
    .unloadable = "the MPI plugin can't be loaded",
    .advice = "install the MPI library that it names, or use --ddp_backend tcp",
};

cudpo_status communicator_mpi(communicator **out, backend *be, control *company)
{
    plugin p;
    queued_transport transport;
    cudpo_status (*open)(queued_transport * t, control * company);
    *out = NULL;
    CUDPO_REQUIRE(!be->on_device);
    CUDPO_TRY(plugin_open(&p, &mpi_kind));
    if (!plugin_function(&p, "communicator_mpi_open", &open))
        return cudpo_fail(CUDPO_EDEVICE, p.path, "lacks a function: build it anew");
    CUDPO_TRY(open(&transport, company));
    const cudpo_status status = communicator_queued(out, &transport, be, company,
                                                    control_rank(company), control_size(company));
    if (status != CUDPO_OK) transport.close(transport.context, true);
    return status;
}

void communicator_mpi_report(void (*line)(void *context, const char *name, const char *value),
                             void *context)
{
    plugin p;
    const cudpo_status status = plugin_open(&p, &mpi_kind);
    line(context, "MPI", status == CUDPO_OK ? p.path : cudpo_error_message());
    cudpo_error_clear();
}
