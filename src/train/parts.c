/* parts.c - a ring of stamps.  A step may have more parts than there are stamps, as a pack has some thirty: before a stamp is
 * set again, the stretch behind it is summed, which waits for the device to have come past it - and the device is STAMPS
 * stamps behind the host by then, so that it still has work while the host waits. */
#include "train/parts.h"

#include <string.h>

const char *part_name(step_part part)
{
    static const char *const names[STEP_PARTS] = {
        [PART_DATA] = "data",         [PART_REFERENCE] = "reference forward",
        [PART_FORWARD] = "forward",   [PART_HEAD] = "head",
        [PART_LOSS] = "loss",         [PART_BACKWARD] = "backward",
        [PART_REDUCE] = "all-reduce", [PART_OPTIMIZER] = "optimizer"};
    return names[part];
}

/* The oldest stretch that is not summed, which has ended. */
static cudpo_status sum_one(part_clock *p)
{
    const part_stretch *s = &p->stretch[p->summed % STAMPS];
    double seconds = 0.0;
    CUDPO_TRY(p->be->elapsed(p->be, &seconds, (int)(p->summed % STAMPS),
                             (int)((p->summed + 1) % STAMPS)));
    part_times *t = &p->times[s->step];
    *(s->part == STEP_PARTS ? &t->between : &t->part[s->part]) += seconds;
    p->summed++;
    return CUDPO_OK;
}

/* From here on the device is in that part. */
static cudpo_status stamp(part_clock *p, int part)
{
    if (p->times == NULL || p->now >= p->steps) return CUDPO_OK;
    if (p->set - p->summed == STAMPS) CUDPO_TRY(sum_one(p));
    const int slot = (int)(p->set % STAMPS);
    p->stretch[slot] = (part_stretch){.step = p->now, .part = part};
    CUDPO_TRY(p->be->stamp(p->be, slot));
    p->set++;
    return CUDPO_OK;
}

static void close_ranges(part_clock *p)
{
    if (!p->open) return;
    p->be->range_end(p->be); /* the part */
    p->be->range_end(p->be); /* the step */
    p->open = false;
}

static cudpo_status at(void *context, step_part part)
{
    part_clock *p = context;
    if (!p->open) return CUDPO_OK;
    p->be->range_end(p->be);
    p->be->range_begin(p->be, part_name(part));
    return stamp(p, part);
}

void parts_follow(part_clock *p, backend *be)
{
    *p = (part_clock){.be = be};
    be->follower = (part_follower){.at = at, .context = p};
}

void parts_leave(part_clock *p)
{
    if (p->be == NULL) return;
    close_ranges(p);
    if (p->be->follower.context == p) p->be->follower = (part_follower){0};
    p->be = NULL;
}

cudpo_status parts_begin(part_clock *p)
{
    close_ranges(p);
    p->be->range_begin(p->be, "step");
    p->be->range_begin(p->be, part_name(PART_DATA));
    p->open = true;
    return stamp(p, PART_DATA);
}

cudpo_status parts_end(part_clock *p)
{
    close_ranges(p);
    CUDPO_TRY(stamp(p, STEP_PARTS));
    p->now++;
    return CUDPO_OK;
}

void parts_time(part_clock *p, part_times *times, int64_t steps)
{
    memset(times, 0, (size_t)steps * sizeof *times);
    p->times = times;
    p->steps = steps;
    p->now = p->set = p->summed = 0;
}

cudpo_status parts_sum(part_clock *p)
{
    while (p->summed + 1 < p->set)
        CUDPO_TRY(sum_one(p));
    p->times = NULL;
    return CUDPO_OK;
}
