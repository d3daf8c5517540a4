/* mpi_plugin.h - MPI as the program finds it in the plugin: see communicator_mpi(). */
#ifndef CUDPO_DIST_MPI_PLUGIN_H
#define CUDPO_DIST_MPI_PLUGIN_H

#include "dist/queued.h"

/** What the plugin was built as: see plugin_kind.  bytes = sizeof(queued_transport). */
const char *communicator_mpi_version(size_t *bytes);

/** Begin MPI, whose ranks must be those of the company.
 *  Out:     t  how collectives are done.
 *  Returns: as communicator_mpi(). */
CUDPO_MUST_USE cudpo_status communicator_mpi_open(queued_transport *t, control *company);

#endif /* CUDPO_DIST_MPI_PLUGIN_H */
