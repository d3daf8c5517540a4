/* endpoint.h - where rank 0 listens. */
#ifndef CUDPO_DIST_ENDPOINT_H
#define CUDPO_DIST_ENDPOINT_H

#include "dist/placement.h"
#include "dist/variables.h"

/** Fill in address, port and `derived` of a placement that is complete otherwise: --rdzv_endpoint; MASTER_ADDR and MASTER_PORT;
 *  what the launcher knows.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG: no HOST:PORT, no port, half of it, or nothing that says where. */
CUDPO_MUST_USE cudpo_status endpoint_find(placement *p, const placement_wish *wish,
                                          const variables *v);

#endif /* CUDPO_DIST_ENDPOINT_H */
