/* attempt.h - all ranks of this node, once: from their start to the end of the last. */
#ifndef CUDPO_LAUNCH_ATTEMPT_H
#define CUDPO_LAUNCH_ATTEMPT_H

#include "launch/layout.h"

#include <stdint.h>
#include <sys/types.h>

typedef struct attempt_plan {
    const layout *where;
    const char *program;     /* a path */
    const char *fallback;    /* another that leads to the same program; NULL: none */
    const char *const *argv; /* ended by NULL */
    double grace;
    const char *address;    /* of rank 0 */
    int64_t port;           /* the same */
    const char *id;         /* of this run; of one node: of this attempt and no other */
    const char *token_file; /* NULL: none */
    int64_t restart;        /* attempts before this one */
    pid_t *groups;          /* [ranks] of forward.h; all 0 */
    int wake;               /* of forward.h */
} attempt_plan;

/** Out:     exit_status  as cudpo_launch().
 *  Returns: CUDPO_OK; CUDPO_ENOMEM where a rank can't be started: those that were are gone; CUDPO_ESTOPPED where a signal came
 *           before. */
CUDPO_MUST_USE cudpo_status attempt_run(int *exit_status, const attempt_plan *p);

#endif /* CUDPO_LAUNCH_ATTEMPT_H */
