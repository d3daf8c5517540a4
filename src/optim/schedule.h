/* schedule.h - the learning rate of each step, as transformers' get_scheduler gives it. */
#ifndef CUDPO_OPTIM_SCHEDULE_H
#define CUDPO_OPTIM_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum schedule_kind {
    SCHEDULE_LINEAR,
    SCHEDULE_COSINE,
    SCHEDULE_COSINE_WITH_MIN_LR,
    SCHEDULE_CONSTANT, /* warm-up is ignored, as transformers does */
    SCHEDULE_CONSTANT_WITH_WARMUP,
    SCHEDULE_KINDS
} schedule_kind;

const char *schedule_name(schedule_kind kind);
bool schedule_find(const char *name, schedule_kind *kind);

/* The factor on the learning rate of 0-based step k of T with w warm-up steps: k/w while k < w (so the first step of a
 * warm-up has none), then p = (k-w)/(T-w) and
 *     linear 1 - p;  cosine c = (1 + cos(pi p)) / 2;  cosine_with_min_lr c (1 - r) + r, r = min_rate;  constant 1.
 * Source: transformers/optimization.py. */
double schedule_factor(schedule_kind kind, int64_t k, int64_t w, int64_t T, double min_rate);

#endif /* CUDPO_OPTIM_SCHEDULE_H */
