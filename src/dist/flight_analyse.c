/* flight_analyse.c - what the records of all ranks say together: where the ranks part, and who parted from whom.
 *
 * Collectives have the same number on all ranks.  So the first that some ranks scheduled and others did not is the one behind
 * the smallest last number, and who stopped there did not come.  One that is not the same everywhere explains every hang
 * behind it, and is looked for first. */
#include "cudpo/flight.h"
#include "dist/flight_read.h"
#include "dist/flight_words.h"

#include <stdbool.h>
#include <stdlib.h>

enum { SHOWN = 8 }; /* groups or ranks that one message describes */

typedef struct analysis {
    flight_records all;
    buffer *out;
    int32_t *mark;       /* [all.n] which group of a sentence a record belongs to */
    bool *blamed;        /* [all.n] by the first mismatch */
    bool differs;        /* which is that a collective is not the same everywhere */
    int64_t common;      /* first sequence that no ring has dropped */
    int64_t least, most; /* the smallest and the largest of the last sequences */
} analysis;

static const flight_event *event_of(const analysis *a, int32_t i, int64_t sequence)
{
    return flight_event_of(&a->all.ranks[i], sequence);
}

static int32_t state_of(const analysis *a, int32_t i, int64_t sequence)
{
    const flight_event *e = event_of(a, i, sequence);
    return e == NULL ? 0 : e->state;
}

/* The event of whichever rank has it. */
static const flight_event *any_event(const analysis *a, int64_t sequence)
{
    const flight_event *e = NULL;
    for (int32_t i = 0; i < a->all.n && e == NULL; i++)
        e = event_of(a, i, sequence);
    return e;
}

static bool is_same(const flight_event *x, const flight_event *y)
{
    return x->kind == y->kind && x->elements == y->elements && x->step == y->step;
}

static int32_t count_marked(const analysis *a, int32_t value)
{
    int32_t n = 0;
    for (int32_t i = 0; i < a->all.n; i++)
        n += a->mark[i] == value;
    return n;
}

static cudpo_status put_marked(const analysis *a, int32_t value)
{
    return flight_put_ranks(a->out, &a->all, a->mark, value);
}

static cudpo_status put_event(const analysis *a, int64_t sequence)
{
    return flight_put_event(a->out, &a->all, any_event(a, sequence), sequence);
}

/* The first sequence of the common range that is not the same on all ranks that have it; 0: none. */
static int64_t find_difference(const analysis *a)
{
    for (int64_t s = a->common; s <= a->most; s++) {
        const flight_event *first = any_event(a, s);
        for (int32_t i = 0; first != NULL && i < a->all.n; i++) {
            const flight_event *e = event_of(a, i, s);
            if (e != NULL && !is_same(e, first)) return s;
        }
    }
    return 0;
}

/* Mark each record with the first that has the same event, -1 where it has none. Returns: the mark of the largest group; -1
 * where two are as large, and nothing says which of them is right. */
static int32_t mark_groups(analysis *a, int64_t sequence)
{
    int32_t best = -1, members = 0;
    for (int32_t i = 0; i < a->all.n; i++) {
        const flight_event *e = event_of(a, i, sequence);
        a->mark[i] = e == NULL ? -1 : i;
        for (int32_t j = 0; e != NULL && j < i; j++)
            if (a->mark[j] == j && is_same(e, event_of(a, j, sequence))) {
                a->mark[i] = j;
                break;
            }
    }
    for (int32_t i = 0; i < a->all.n; i++) {
        if (a->mark[i] != i) continue;
        const int32_t n = count_marked(a, i);
        if (n > members) best = i;
        if (n == members) best = -1;
        if (n > members) members = n;
    }
    return best;
}

/* Does what one rank has from `own` on stand in the other's record from `others` on, as far as both go? */
static bool continues(const flight_record *r, int64_t own, const flight_record *other,
                      int64_t others)
{
    int64_t n = 0;
    for (; own + n <= r->newest && others + n <= other->newest; n++) {
        const flight_event *x = flight_event_of(r, own + n);
        const flight_event *y = flight_event_of(other, others + n);
        if (x == NULL || y == NULL || !is_same(x, y)) return false;
    }
    return n > 0;
}

/* A rank that left one collective out, or had one more, has all later ones moved by one. */
static cudpo_status put_shift(const analysis *a, const flight_record *odd,
                              const flight_record *usual, int64_t s)
{
    const bool less = continues(odd, s, usual, s + 1), more = continues(odd, s + 1, usual, s);
    if (less == more) return CUDPO_OK; /* neither, or too regular to tell */
    CUDPO_TRY(buffer_printf(a->out, "    rank %d %s ", (int)odd->rank,
                            less ? "left out" : "has one more,"));
    CUDPO_TRY(flight_put_event(a->out, &a->all, flight_event_of(less ? usual : odd, s), s));
    return buffer_printf(a->out, ": what follows is the same\n");
}

static cudpo_status put_difference(analysis *a, int64_t s)
{
    const int32_t usual = mark_groups(a, s);
    a->differs = true;
    int shown = 0;
    CUDPO_TRY(buffer_printf(a->out, "mismatch: collective %lld is not the same on all ranks\n",
                            (long long)s));
    for (int32_t i = 0; i < a->all.n && shown < SHOWN; i++) {
        if (a->mark[i] != i) continue;
        CUDPO_TRY(buffer_printf(a->out, "    "));
        CUDPO_TRY(put_marked(a, i));
        CUDPO_TRY(buffer_printf(a->out, ": "));
        CUDPO_TRY(flight_put_event(a->out, &a->all, event_of(a, i, s), s));
        CUDPO_TRY(buffer_printf(a->out, "\n"));
        shown++;
    }
    shown = 0;
    for (int32_t i = 0; i < a->all.n; i++) {
        a->blamed[i] = a->mark[i] >= 0 && a->mark[i] != usual;
        if (usual >= 0 && a->blamed[i] && shown++ < SHOWN)
            CUDPO_TRY(put_shift(a, &a->all.ranks[i], &a->all.ranks[usual], s));
    }
    return CUDPO_OK;
}

/* Also where the ring has dropped it, for only what is completed falls behind by a ring. */
static bool is_over(const analysis *a, int32_t i, int64_t sequence)
{
    return sequence < a->all.ranks[i].oldest || state_of(a, i, sequence) == FLIGHT_COMPLETED;
}

/* Those who did not come to the first sequence that others have, by what their last was. */
static cudpo_status put_missing(analysis *a, int64_t s)
{
    enum { WAITS = -1, WENT_ON = -2 };
    static const char *const states[] = {"in an unknown state", "not started", "started",
                                         "completed"};
    for (int32_t i = 0; i < a->all.n; i++) {
        a->blamed[i] = a->all.ranks[i].newest < s;
        a->mark[i] = a->blamed[i] ? state_of(a, i, s - 1) : is_over(a, i, s) ? WENT_ON : WAITS;
    }
    /* Whoever is not blamed waits, or what it copied needed nobody else: a broadcast's root. */
    const int32_t waiting = count_marked(a, WAITS);
    CUDPO_TRY(buffer_printf(a->out, "mismatch: "));
    CUDPO_TRY(put_marked(a, waiting > 0 ? WAITS : WENT_ON));
    CUDPO_TRY(buffer_printf(a->out, waiting == 1  ? " waits in "
                                    : waiting > 1 ? " wait in "
                                                  : " went on from "));
    CUDPO_TRY(put_event(a, s));
    for (int32_t state = 0; state <= FLIGHT_COMPLETED; state++) {
        const int32_t n = count_marked(a, state);
        if (n == 0) continue;
        CUDPO_TRY(buffer_printf(a->out, "; "));
        CUDPO_TRY(put_marked(a, state));
        CUDPO_TRY(buffer_printf(a->out, " never came: %s ", n == 1 ? "its last" : "their last"));
        if (s == 1) {
            CUDPO_TRY(buffer_printf(a->out, "is none"));
            continue;
        }
        CUDPO_TRY(buffer_printf(a->out, "is "));
        CUDPO_TRY(put_event(a, s - 1));
        CUDPO_TRY(buffer_printf(a->out, ", %s", states[state]));
    }
    return buffer_printf(a->out, "\n");
}

/* The first sequence that all scheduled and not all completed; 0: none. */
static int64_t find_unfinished(const analysis *a)
{
    for (int64_t s = a->common; s <= a->least; s++)
        for (int32_t i = 0; i < a->all.n; i++)
            if (event_of(a, i, s) != NULL && state_of(a, i, s) != FLIGHT_COMPLETED) return s;
    return 0;
}

static cudpo_status put_unfinished(analysis *a, int64_t s, bool is_first)
{
    static const char *const words[] = {"", "not started", "started", "completed"};
    for (int32_t i = 0; i < a->all.n; i++)
        a->mark[i] = state_of(a, i, s);
    const bool some_started = count_marked(a, FLIGHT_SCHEDULED) < a->all.n;
    CUDPO_TRY(buffer_printf(a->out, is_first ? "mismatch: " : "unfinished: "));
    CUDPO_TRY(buffer_printf(a->out, "all scheduled "));
    CUDPO_TRY(put_event(a, s));
    for (int32_t state = FLIGHT_COMPLETED; state >= FLIGHT_SCHEDULED; state--) {
        if (count_marked(a, state) == 0) continue;
        CUDPO_TRY(buffer_printf(a->out, "%s %s by ", state == FLIGHT_COMPLETED ? ";" : ",",
                                words[state]));
        CUDPO_TRY(put_marked(a, state));
    }
    for (int32_t i = 0; is_first && some_started && i < a->all.n; i++)
        a->blamed[i] = a->mark[i] == FLIGHT_SCHEDULED;
    return buffer_printf(a->out, ": the network or a device\n");
}

static cudpo_status put_no_mismatch(analysis *a)
{
    for (int32_t i = 0; i < a->all.n; i++)
        a->mark[i] = a->all.ranks[i].ended == 0;
    if (a->most == 0) {
        CUDPO_TRY(buffer_printf(a->out, "no mismatch: no rank scheduled a collective"));
    } else {
        CUDPO_TRY(buffer_printf(a->out, "no mismatch: all completed "));
        CUDPO_TRY(put_event(a, a->most));
        CUDPO_TRY(buffer_printf(a->out, ", their last"));
    }
    if (count_marked(a, 1) == 0) return buffer_printf(a->out, ", and all ended by themselves\n");
    CUDPO_TRY(buffer_printf(a->out, "; "));
    CUDPO_TRY(put_marked(a, 1));
    return buffer_printf(a->out, " did not end: killed, or it runs\n");
}

static cudpo_status put_verdict(analysis *a)
{
    const int64_t difference = find_difference(a);
    const int64_t missing = a->most > a->least ? a->least + 1 : 0;
    const int64_t unfinished = find_unfinished(a);
    if (difference > 0) return put_difference(a, difference);
    if (missing > 0) CUDPO_TRY(put_missing(a, missing));
    if (unfinished > 0) CUDPO_TRY(put_unfinished(a, unfinished, missing == 0));
    return missing + unfinished > 0 ? CUDPO_OK : put_no_mismatch(a);
}

static void find_range(analysis *a)
{
    a->common = 1;
    a->least = INT64_MAX;
    for (int32_t i = 0; i < a->all.n; i++) {
        const flight_record *r = &a->all.ranks[i];
        if (r->oldest > a->common) a->common = r->oldest;
        if (r->newest < a->least) a->least = r->newest;
        if (r->newest > a->most) a->most = r->newest;
    }
}

static cudpo_status put_all(analysis *a)
{
    const int32_t n = a->all.n;
    CUDPO_TRY(buffer_printf(a->out, "run \"%s\" of %d rank%s: %d record%s\n", a->all.run_id,
                            (int)a->all.size, a->all.size == 1 ? "" : "s", (int)n,
                            n == 1 ? "" : "s"));
    if (a->common > 1)
        CUDPO_TRY(buffer_printf(a->out,
                                "compared from collective %lld on: a record keeps its last %d\n",
                                (long long)a->common, FLIGHT_ENTRIES));
    CUDPO_TRY(put_verdict(a));
    CUDPO_TRY(flight_put_suspects(a->out, &a->all, a->blamed, a->differs));
    return flight_put_records(a->out, &a->all);
}

cudpo_status flight_analyse(buffer *out, const char *folder)
{
    analysis a = {.out = out};
    cudpo_status status = flight_read(&a.all, folder);
    if (status == CUDPO_OK) {
        a.mark = calloc((size_t)a.all.n, sizeof *a.mark);
        a.blamed = calloc((size_t)a.all.n, sizeof *a.blamed);
        if (a.mark == NULL || a.blamed == NULL)
            status = cudpo_fail(CUDPO_ENOMEM, folder, "analysis");
    }
    if (status == CUDPO_OK) {
        find_range(&a);
        status = put_all(&a);
    }
    free(a.blamed);
    free(a.mark);
    flight_records_free(&a.all);
    return status;
}

cudpo_status cudpo_flight(char **text, const char *folder)
{
    buffer out = {0};
    *text = NULL;
    const cudpo_status status = flight_analyse(&out, folder);
    if (status == CUDPO_OK)
        *text = out.data;
    else
        buffer_free(&out);
    return status;
}
