/* signals.h - what a scheduler or a person asks of a running job: noted at once, looked at between steps, and before the
 * first one between the parts of loading. */
#ifndef CUDPO_TRAIN_SIGNALS_H
#define CUDPO_TRAIN_SIGNALS_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <sys/types.h>

/** Handle SIGTERM, SIGINT, SIGUSR1 (save and stop) and SIGUSR2 (save and go on) until signals_restore(). */
CUDPO_MUST_USE cudpo_status signals_install(void);
void signals_restore(void);

/** The end of the process that started this one is a wish to stop, too. */
void signals_follow(pid_t launcher);

bool signals_stop_wanted(void);
bool signals_save_wanted(void); /* true once per SIGUSR2 */

#endif /* CUDPO_TRAIN_SIGNALS_H */
