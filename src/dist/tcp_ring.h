/* tcp_ring.h - the connections of a ring of ranks: one to the next, one from the rank before. */
#ifndef CUDPO_DIST_TCP_RING_H
#define CUDPO_DIST_TCP_RING_H

#include "dist/control.h"

#include <stdint.h>

/** Connect this rank of 2 or more.  Who connects proves to know the run's secret; others are turned away.
 *  Out:     next, before  sockets that do not block, of the caller; -1 where it failed.
 *  Returns: CUDPO_OK; CUDPO_EPEER naming the rank that can't be reached; control_status(). */
CUDPO_MUST_USE cudpo_status tcp_ring_connect(int *next, int *before, control *company, int32_t rank,
                                             int32_t size);

#endif /* CUDPO_DIST_TCP_RING_H */
