/* flight_words.h - ranks, collectives and times as the report of flight records says them. */
#ifndef CUDPO_DIST_FLIGHT_WORDS_H
#define CUDPO_DIST_FLIGHT_WORDS_H

#include "base/buffer.h"
#include "cudpo/status.h"
#include "dist/flight_read.h"

#include <stdbool.h>
#include <stdint.h>

/** "rank 3", "ranks 0-2,5": those of the records whose mark [all->n] is `value`. */
CUDPO_MUST_USE cudpo_status flight_put_ranks(buffer *out, const flight_records *all,
                                             const int32_t *mark, int32_t value);

/** "all_reduce 41 of step 12 (1048576 float32)"; e NULL, where no ring holds it any more: "collective 41". */
CUDPO_MUST_USE cudpo_status flight_put_event(buffer *out, const flight_records *all,
                                             const flight_event *e, int64_t sequence);

/** Who is to be looked at first: who the first note is about, who left no record, who is blamed [all->n] and has not said why.
 *  In:  certain  blamed are who did another thing than the others; else only who did not come as far. */
CUDPO_MUST_USE cudpo_status flight_put_suspects(buffer *out, const flight_records *all,
                                                const bool *blamed, bool certain);

/** What each rank did last, a paragraph each; times count back from the last event of all. */
CUDPO_MUST_USE cudpo_status flight_put_records(buffer *out, const flight_records *all);

#endif /* CUDPO_DIST_FLIGHT_WORDS_H */
