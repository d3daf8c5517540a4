/* ranks.h - the options of commands that run as several ranks. */
#ifndef CUDPO_CLI_RANKS_H
#define CUDPO_CLI_RANKS_H

#include "cli/cli.h"
#include "cudpo/ranks.h"

enum { RANKS_OPTIONS = 8 };

/* They are of the process, not of the run: no configuration keys, and no part of what a run is repeated by. */
void ranks_options(cli_option out[RANKS_OPTIONS], cudpo_ranks *ranks);

#endif /* CUDPO_CLI_RANKS_H */
