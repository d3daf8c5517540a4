/* lines.h - one stream of a rank's output, passed on line by line with the rank before each. */
#ifndef CUDPO_LAUNCH_LINES_H
#define CUDPO_LAUNCH_LINES_H

#include <stdbool.h>
#include <stddef.h>

enum { LINES_LONGEST = 16384, LINES_PREFIX = 24 };

typedef struct lines {
    int from; /* read without waiting; -1: it has ended */
    int to;
    bool
        lost; /* `to` can't be written: what comes is read all the same, so that the rank goes on */
    char prefix[LINES_PREFIX];
    size_t held; /* bytes of a line that has not ended */
    char data[LINES_LONGEST];
} lines;

/* Pass on what is there.  A line longer than LINES_LONGEST is broken in several; a last one without an
 * end waits for lines_finish().
 * Returns: whether there may be more at once. */
bool lines_move(lines *l);

/* Pass on all that is there, also a last line that has no end, and close `from`. */
void lines_finish(lines *l);

#endif /* CUDPO_LAUNCH_LINES_H */
