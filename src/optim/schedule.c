/* schedule.c - learning rate schedules. */
#include "optim/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"linear", "cosine", "cosine_with_min_lr", "constant",
                                    "constant_with_warmup"};

const char *schedule_name(schedule_kind kind)
{
    return names[kind];
}

bool schedule_find(const char *name, schedule_kind *kind)
{
    for (int i = 0; i < SCHEDULE_KINDS; i++) {
        if (strcmp(names[i], name) != 0) continue;
        *kind = (schedule_kind)i;
        return true;
    }
    return false;
}

double schedule_factor(schedule_kind kind, int64_t k, int64_t w, int64_t T, double min_rate)
{
    if (kind == SCHEDULE_CONSTANT) return 1.0;
    if (k < w) return (double)k / (double)w;
    const double rest = T - w > 1 ? (double)(T - w) : 1.0;
    const double cosine = 0.5 * (1.0 + cos(3.14159265358979323846 * (double)(k - w) / rest));
    switch (kind) {
    case SCHEDULE_LINEAR:
        return fmax(0.0, (double)(T - k) / rest);
    case SCHEDULE_COSINE:
        return fmax(0.0, cosine);
    case SCHEDULE_COSINE_WITH_MIN_LR:
        return fmax(0.0, cosine * (1.0 - min_rate) + min_rate);
    case SCHEDULE_CONSTANT:
    case SCHEDULE_CONSTANT_WITH_WARMUP:
    case SCHEDULE_KINDS:
        break;
    }
    return 1.0;
}
