/* progress.h - one live line for a person at a terminal. */
#ifndef CUDPO_TRAIN_PROGRESS_H
#define CUDPO_TRAIN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
    bool live;          /* stderr is a terminal that can be redrawn */
    bool drawn;         /* the line stands there now */
    int64_t first_step; /* where this process began: rates count from there */
    int64_t total_steps;
    int64_t units; /* done by this process */
    double begin, last_draw;
} progress;

/* Live where stderr is a terminal, TERM is not "dumb" and CI is not set. */
void progress_begin(progress *p, int64_t first_step, int64_t total_steps);

/* Step, total, loss, accuracy (NaN: left out), units a second, time left; at most ten times a second. */
void progress_step(progress *p, int64_t step, double loss, double accuracy, int64_t units);

double progress_rate(
    const progress *p); /* units a second since the beginning; 0 before the first */

/* Take the line away, so that another can be printed. */
void progress_clear(progress *p);

#endif /* CUDPO_TRAIN_PROGRESS_H */
