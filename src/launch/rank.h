/* rank.h - one rank as a process. */
#ifndef CUDPO_LAUNCH_RANK_H
#define CUDPO_LAUNCH_RANK_H

#include "launch/attempt.h"
#include "launch/lines.h"

#include <stdbool.h>

typedef struct rank {
    int64_t index; /* among all nodes */
    pid_t pid;     /* 0: not running */
    int status;    /* once it has ended: exit status, or 128 + signal */
    bool made_to;  /* ended after it was told to, since another had failed */
    lines out, err;
} rank;

/** Start a rank of this node.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status rank_start(rank *r, const attempt_plan *p, int64_t local);

/* It has ended, but was not waited for: its whole group goes with it, and what it has written is passed on. */
void rank_end(rank *r, pid_t *group);

#endif /* CUDPO_LAUNCH_RANK_H */
