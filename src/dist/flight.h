/* flight.h - the last few thousand collectives of a rank, in a file that outlives its process however that ends.
 *
 * FOLDER/rank-NNNNN.bin is mapped: what was written is in the system's cache when the process is killed.  Entries are a ring. */
#ifndef CUDPO_DIST_FLIGHT_H
#define CUDPO_DIST_FLIGHT_H

#include "base/buffer.h"
#include "cudpo/status.h"

#include <stdint.h>

typedef struct flight flight;

typedef enum flight_state { FLIGHT_SCHEDULED = 1, FLIGHT_STARTED, FLIGHT_COMPLETED } flight_state;

/** Begin a record; an older one of the same rank is replaced.
 *  Returns: CUDPO_OK; CUDPO_EWRITE. */
CUDPO_MUST_USE cudpo_status flight_open(flight **out, const char *folder, int32_t rank,
                                        int32_t size, const char *run_id);
void flight_close(flight *f); /* NULL is fine; says in the record that the rank ended by itself */

/* A collective is scheduled; later, what became of it.  Of any thread, one at a time for each entry.  NULL is fine. */
void flight_schedule(flight *f, int64_t sequence, const char *op, int64_t elements,
                     const char *type, int64_t step);
void flight_mark(flight *f, int64_t sequence, flight_state state);
void flight_note(flight *f, const char *text); /* why the rank ends, once */

/** Read all records of a folder and say in `out`, for people, how far each rank came and what the first mismatch is: a collective
 *  that some ranks began and others did not, or with other sizes; and which ranks are suspected.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT where there is none; CUDPO_EDATA naming the file that is no record, or of another run. */
CUDPO_MUST_USE cudpo_status flight_analyse(buffer *out, const char *folder);

#endif /* CUDPO_DIST_FLIGHT_H */
