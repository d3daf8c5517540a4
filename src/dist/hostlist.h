/* hostlist.h - Slurm's short forms: a list of hosts is in placement.h; here, of tasks. */
#ifndef CUDPO_DIST_HOSTLIST_H
#define CUDPO_DIST_HOSTLIST_H

#include "cudpo/status.h"

#include <stdint.h>

/** A list of tasks per node such as 2(x2),1: two on each of two nodes, then one on one.
 *  Out:     total  tasks of all nodes;  nodes;  here  tasks of number `node`, 0 where there are fewer nodes.
 *  In:      name   the variable that it is from, for messages.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG where the list makes no sense. */
CUDPO_MUST_USE cudpo_status hostlist_tasks(int64_t *total, int64_t *nodes, int64_t *here,
                                           const char *name, const char *list, int64_t node);

#endif /* CUDPO_DIST_HOSTLIST_H */
