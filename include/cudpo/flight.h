/* flight.h - why ranks of a run stand still or ended: what their flight records say together. */
#ifndef CUDPO_FLIGHT_H
#define CUDPO_FLIGHT_H

#include "cudpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Read the flight records of a folder (rank-NNNNN.bin, one a rank), also while they are written.
 *  Out:     text  for people, in new memory: the first collective in which the ranks differ, who is suspected, and what each
 *                 rank did last.  NULL on failure.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT where there is none; CUDPO_EDATA naming a file that is no record, is damaged, or is of
 *           another run; CUDPO_EPERM; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status cudpo_flight(char **text, const char *folder);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_FLIGHT_H */
