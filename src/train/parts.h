/* parts.h - where in a step the device is: ranges for profilers and, for a benchmark, the time that each part takes.
 *
 * Code of a step says backend_part() where it comes to another part.  In a profile a step is a range, and each part one in
 * it; outside of steps (evaluation, scoring) parts are nobody's. */
#ifndef CUDPO_TRAIN_PARTS_H
#define CUDPO_TRAIN_PARTS_H

#include "backend/backend.h"

#include <stdbool.h>
#include <stdint.h>

/* Seconds of the device's clock. */
typedef struct part_times {
    double part[STEP_PARTS];
    double between; /* from the step's end to the begin of the next, where that is timed, too */
} part_times;

/* From one stamp to the next the device is in one part of one step. */
typedef struct part_stretch {
    int64_t step; /* of those that are timed */
    int part;     /* STEP_PARTS: between two steps */
} part_stretch;

typedef struct part_clock {
    backend *be;
    bool open;          /* within a step */
    part_times *times;  /* [steps]; NULL: nobody asked */
    int64_t steps, now; /* of the times; the one under way, or the next */
    /* Stamps that were set, and stretches behind them that have been summed: never more than STAMPS apart, as stretch i
     * has slot i % STAMPS. */
    int64_t set, summed;
    part_stretch stretch[STAMPS];
} part_clock;

/* As profiles and tables call it. */
const char *part_name(step_part part);

/** Follow the parts of a backend's steps; stop it.  At most one follows a backend: the last that began. */
void parts_follow(part_clock *p, backend *be);
void parts_leave(part_clock *p); /* {0} is fine */

/** A step begins, with its data; it ends.  One that failed halfway ends where the next begins. */
CUDPO_MUST_USE cudpo_status parts_begin(part_clock *p);
CUDPO_MUST_USE cudpo_status parts_end(part_clock *p);

/** Time the next `steps` steps.  Out: times  [steps] complete after parts_sum(). */
void parts_time(part_clock *p, part_times *times, int64_t steps);

/** Wait for the device, and stop timing. */
CUDPO_MUST_USE cudpo_status parts_sum(part_clock *p);

#endif /* CUDPO_TRAIN_PARTS_H */
