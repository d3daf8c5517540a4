/* forward.h - signals that this process gets go to its ranks, once each, and wake the loop that waits for them.
 *
 * Every rank is a process group of its own: what a terminal or a sender addresses to the group of this process reaches no rank
 * by itself. */
#ifndef CUDPO_LAUNCH_FORWARD_H
#define CUDPO_LAUNCH_FORWARD_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/** Handle signals until forward_restore(); one that was ignored stays so, for ranks too (nohup).
 *  In:      groups  [n] process groups that are running, 0 where none is; may change between hold and release only.
 *  Out:     wake    is readable when a signal has come or a child has ended; forward_awake() empties it.
 *  Returns: CUDPO_OK; CUDPO_EINVAL. */
CUDPO_MUST_USE cudpo_status forward_install(int *wake, const pid_t *groups, size_t n);
void forward_restore(void);
void forward_awake(void);

/* No signal is handled in between. */
void forward_hold(void);
void forward_release(void);

/* In a new child, before it becomes another program: its signals are as if this process had never handled any. */
void forward_leave(void);

/* Has one come that asks to stop? */
bool forward_stopped(void);

#endif /* CUDPO_LAUNCH_FORWARD_H */
