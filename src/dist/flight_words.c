/* flight_words.c - the plain part of the report: what is in the records, without judging it. */
#include "dist/flight_words.h"

#include <stdio.h>
#include <time.h>

cudpo_status flight_put_ranks(buffer *out, const flight_records *all, const int32_t *mark,
                              int32_t value)
{
    int32_t members = 0, runs = 0;
    for (int32_t i = 0; i < all->n; i++)
        members += mark[i] == value;
    CUDPO_TRY(buffer_printf(out, members == 1 ? "rank " : "ranks "));
    for (int32_t i = 0; i < all->n; i++) {
        if (mark[i] != value) continue;
        const int32_t first = all->ranks[i].rank;
        while (i + 1 < all->n && mark[i + 1] == value &&
               all->ranks[i + 1].rank == all->ranks[i].rank + 1)
            i++;
        CUDPO_TRY(buffer_printf(out, "%s%d", runs++ == 0 ? "" : ",", (int)first));
        if (all->ranks[i].rank > first)
            CUDPO_TRY(buffer_printf(out, "-%d", (int)all->ranks[i].rank));
    }
    return CUDPO_OK;
}

cudpo_status flight_put_event(buffer *out, const flight_records *all, const flight_event *e,
                              int64_t sequence)
{
    if (e == NULL) return buffer_printf(out, "collective %lld", (long long)sequence);
    const flight_kind *k = &all->kinds[e->kind];
    return buffer_printf(out, "%s %lld of step %lld (%lld %s)", k->op, (long long)sequence,
                         (long long)e->step, (long long)e->elements, k->type);
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t last_time(const flight_records *all)
{
    int64_t last = 0;
    for (int32_t i = 0; i < all->n; i++) {
        const flight_record *r = &all->ranks[i];
        last = later(last, later(r->begun, later(r->ended, r->noted)));
        for (int64_t s = r->oldest; s <= r->newest; s++) {
            const flight_event *e = flight_event_of(r, s);
            if (e != NULL) last = later(last, later(e->scheduled, later(e->started, e->completed)));
        }
    }
    return last;
}

static double seconds_before(int64_t last, int64_t t)
{
    return (double)(last - t) * 1e-9;
}

/* The last event that came as far as `state`; *sequence 0: none did. */
static const flight_event *last_event(const flight_record *r, int64_t *sequence, int32_t state)
{
    for (*sequence = r->newest; *sequence > 0 && *sequence >= r->oldest; --*sequence) {
        const flight_event *e = flight_event_of(r, *sequence);
        if (e != NULL && e->state >= state) return e;
    }
    *sequence = 0;
    return NULL;
}

static cudpo_status put_last(buffer *out, const flight_records *all, const flight_record *r,
                             int64_t last, flight_state state)
{
    static const char *const names[] = {"", "scheduled", "started", "completed"};
    int64_t sequence;
    const flight_event *e = last_event(r, &sequence, (int32_t)state);
    CUDPO_TRY(buffer_printf(out, "    %-10s", names[state]));
    if (e == NULL)
        return buffer_printf(out, "%s\n", r->oldest > 1 ? "none that is still recorded" : "none");
    CUDPO_TRY(flight_put_event(out, all, e, sequence));
    const int64_t t = state == FLIGHT_COMPLETED                    ? e->completed
                      : state == FLIGHT_STARTED && e->started != 0 ? e->started
                                                                   : e->scheduled;
    return buffer_printf(out, ", %.3f s\n", seconds_before(last, t));
}

static cudpo_status put_end(buffer *out, const flight_record *r, int64_t last)
{
    if (r->noted != 0)
        CUDPO_TRY(buffer_printf(out, "    noted     %s, %.3f s\n", r->note,
                                seconds_before(last, r->noted)));
    if (r->ended != 0)
        return buffer_printf(out, "    ended     by itself, %.3f s\n",
                             seconds_before(last, r->ended));
    return buffer_printf(out, "    ended     not by itself: it was killed, or runs\n");
}

cudpo_status flight_put_records(buffer *out, const flight_records *all)
{
    const int64_t last = last_time(all);
    const time_t whole = (time_t)(last / 1000000000);
    struct tm tm;
    char text[64] = "?";
    if (gmtime_r(&whole, &tm) != NULL) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    CUDPO_TRY(buffer_printf(out, "\nSeconds count back from the last event of all, %s.\n", text));
    for (int32_t i = 0; i < all->n; i++) {
        const flight_record *r = &all->ranks[i];
        CUDPO_TRY(buffer_printf(out, "rank %d on %s, process %d\n", (int)r->rank,
                                r->host[0] == '\0' ? "?" : r->host, (int)r->pid));
        for (flight_state state = FLIGHT_SCHEDULED; state <= FLIGHT_COMPLETED; state++)
            CUDPO_TRY(put_last(out, all, r, last, state));
        CUDPO_TRY(put_end(out, r, last));
    }
    return CUDPO_OK;
}
