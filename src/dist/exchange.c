/* exchange.c - small things between all ranks, through rank 0: each gives its part, rank 0 sends the whole to each.
 *
 * A rank gives (GIVE, then DATA) and waits for the answer (TAKE, then DATA), so none is ever more than one call ahead of rank 0,
 * which keeps at most one part of each. */
#include "dist/company.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t most = (size_t)1 << 30; /* bytes of all ranks together */

static bool put_stand(wire *w, wire_type type, const company_stand *s, size_t size)
{
    uint8_t data[256];
    wire_fields f = {.at = data, .end = data + sizeof data};
    wire_put_int(&f, s->kind);
    wire_put_int(&f, (int64_t)s->bytes);
    wire_put_int(&f, (int64_t)size);
    wire_put_text(&f, s->what);
    return !f.bad && wire_send(w, type, s->count, data, (size_t)(f.at - data));
}

/* `size` bytes come of a call in which each rank, but for a collect, has `bytes`. */
static bool get_stand(const wire *w, company_stand *s, size_t *size)
{
    uint8_t *const begin = (uint8_t *)(uintptr_t)w->small;
    wire_fields f = {.at = begin, .end = begin + w->length};
    s->count = w->count;
    s->kind = (company_kind)wire_get_int(&f);
    const int64_t bytes = wire_get_int(&f), n = wire_get_int(&f);
    wire_get_text(&f, s->what, sizeof s->what);
    s->bytes = (size_t)bytes;
    *size = (size_t)n;
    return !f.bad && bytes >= 0 && n >= 0 && (uint64_t)bytes <= most && (uint64_t)n <= most;
}

static void out_of_step(control *c, int32_t rank, const char *fmt, const char *a, const char *b)
{
    char text[COMPANY_TEXT];
    snprintf(text, sizeof text, fmt, (int)rank, a, b);
    company_fail(c, rank, CUDPO_EPEER, "ranks out of step", text);
}

/* Rank 0 is in a call and a member's GIVE is here: are they in the same? */
static void compare(control *c, int32_t r)
{
    const company_stand *a = &c->members[r].stand, *b = &c->call.stand;
    char text[COMPANY_TEXT];
    if (a->count != b->count || a->kind != b->kind || strcmp(a->what, b->what) != 0) {
        snprintf(text, sizeof text, "rank %d is at '%s' while rank 0 is at '%s'", (int)r, a->what,
                 b->what);
    } else if (a->bytes != b->bytes && a->kind != COMPANY_COLLECT) {
        snprintf(text, sizeof text, "rank %d has %zu bytes at '%s' and rank 0 has %zu", (int)r,
                 a->bytes, a->what, b->bytes);
    } else {
        return;
    }
    company_fail(c, r, CUDPO_EPEER, "ranks out of step", text);
}

void exchange_without(control *c, int32_t rank)
{
    /* Others: the answer is here, and the main thread has not seen it yet. */
    if (!c->call.active || c->call.done || (c->rank == 0 && c->members[rank].given)) return;
    out_of_step(c, rank, "rank %d said goodbye while %s others are at '%s'", "the",
                c->call.stand.what);
}

/* Rank 0: a member's part is whole. */
static void part_is_whole(control *c, int32_t r)
{
    c->members[r].whole = true;
    if (c->call.active && --c->waiting == 0) pthread_cond_broadcast(&c->changed);
}

static void hear_give(control *c, int32_t r)
{
    member *x = &c->members[r];
    size_t held = 0;
    const bool sense = !x->given && get_stand(&x->w, &x->stand, &x->size);
    const bool gives = x->stand.kind == COMPANY_EXCHANGE || x->stand.kind == COMPANY_COLLECT;
    if (!sense || x->size != (gives ? x->stand.bytes : 0)) {
        out_of_step(c, r, "rank %d gives what makes no sense%s%s", "", "");
        return;
    }
    for (int32_t i = 1; i < c->size; i++)
        held += c->members[i].given ? c->members[i].size : 0;
    if (held + x->size > most) {
        out_of_step(c, r, "rank %d and others have more than 1 GiB at '%s'%s", x->stand.what, "");
        return;
    }
    x->data = x->size > 0 ? malloc(x->size) : NULL;
    if (x->size > 0 && x->data == NULL) {
        company_fail(c, 0, CUDPO_ENOMEM, "rank 0", "no memory for what ranks give");
        return;
    }
    x->given = true;
    x->when = wire_clock();
    x->w.sink = (wire_span){.at = {x->data}, .size = {x->size}};
    x->w.sink_count = x->stand.count;
    if (c->call.active) compare(c, r);
    if (x->size == 0 && !atomic_load(&c->failed)) part_is_whole(c, r);
}

static void hear_take(control *c)
{
    wire *w = &c->members[0].w;
    company_call *call = &c->call;
    company_stand s;
    size_t size;
    const bool sense = get_stand(w, &s, &size) && call->active && !call->done &&
                       s.count == call->stand.count && s.kind == call->stand.kind;
    if (!sense || (s.kind != COMPANY_COLLECT && size != call->size)) {
        out_of_step(c, 0, "rank %d answers what was not asked, at '%s'%s", call->stand.what, "");
        return;
    }
    size_t index = 0;
    if (s.kind == COMPANY_COLLECT) {
        index = (size_t)c->size * sizeof *call->sizes;
        call->size = size;
        call->answer = malloc(size + 1);
        if (call->answer == NULL) {
            char where[COMPANY_NAME];
            snprintf(where, sizeof where, "rank %d", (int)c->rank);
            company_fail(c, c->rank, CUDPO_ENOMEM, where, "no memory for what ranks give");
            return;
        }
    }
    w->sink = (wire_span){.at = {(uint8_t *)call->sizes, call->answer}, .size = {index, size}};
    w->sink_count = s.count;
    call->done = index + size == 0;
    if (call->done) pthread_cond_broadcast(&c->changed);
}

void exchange_hear(control *c, int32_t m)
{
    member *x = &c->members[m];
    if (x->w.type == WIRE_GIVE && c->rank == 0) {
        hear_give(c, m);
    } else if (x->w.type == WIRE_TAKE && c->rank != 0) {
        hear_take(c);
    } else if (x->w.type != WIRE_DATA || (c->rank == 0 && (!x->given || x->whole))) {
        out_of_step(c, c->rank == 0 ? m : 0, "rank %d sends what makes no sense%s%s", "", "");
    } else if (wire_span_left(&x->w.sink) == 0 && c->rank == 0) {
        part_is_whole(c, m);
    } else if (wire_span_left(&x->w.sink) == 0) {
        c->call.done = true;
        pthread_cond_broadcast(&c->changed);
    }
}

/* When the first of those who stand in the call that is under way came to it; `now` where nobody does. */
static double first_came(const control *c, double now, const char **what)
{
    double since = c->call.active ? c->call.since : now;
    *what = c->call.stand.what;
    for (int32_t r = 1; r < c->size; r++) {
        const member *x = &c->members[r];
        if (!x->given || x->when >= since) continue;
        since = x->when;
        *what = x->stand.what;
    }
    return since;
}

void exchange_look(control *c, double now)
{
    const char *what;
    const double since = first_came(c, now, &what);
    char list[RANKS_TEXT], where[COMPANY_TEXT], place[COMPANY_TEXT], text[COMPANY_TEXT];
    bool missing[MAX_RANKS];
    int32_t culprit = 0; /* where all are here somebody takes nothing, and its silence will tell */
    if (now - since <= c->peer_timeout) return;
    missing[0] = !c->call.active;
    for (int32_t r = c->size - 1; r > 0; r--) {
        missing[r] = !c->members[r].whole;
        if (missing[r]) culprit = r;
    }
    if (missing[0]) culprit = 0;
    rendezvous_ranks(list, missing, c->size);
    company_describe(place, culprit == 0 ? &c->place : &c->members[culprit].place);
    snprintf(where, sizeof where, "%s did not come", list);
    snprintf(text, sizeof text, "others wait at '%s' for %.1f s; rank %d was last heard of%.200s",
             what, now - since, (int)culprit, place[0] != '\0' ? place : " before the first step");
    company_fail(c, culprit, CUDPO_EPEER, where, text);
}

/* The call is over, well or not: nothing points into the caller's memory any more. */
static cudpo_status end_call(control *c, cudpo_status s)
{
    c->call = (company_call){0};
    pthread_mutex_unlock(&c->lock);
    return s == CUDPO_OK ? CUDPO_OK : control_status(c);
}

static void begin_call(control *c, company_kind kind, size_t bytes, const char *what)
{
    pthread_mutex_lock(&c->lock);
    c->call = (company_call){.active = true, .since = wire_clock()};
    c->call.stand = (company_stand){.count = ++c->calls, .kind = kind, .bytes = bytes};
    snprintf(c->call.stand.what, sizeof c->call.stand.what, "%s", what);
}

/* Rank 0: wait for everybody's part. */
static cudpo_status gather(control *c)
{
    c->waiting = 0;
    for (int32_t r = 1; r < c->size; r++) {
        member *x = &c->members[r];
        c->waiting += !x->whole;
        if (x->given)
            compare(c, r);
        else if (x->left)
            exchange_without(c, r);
    }
    while (c->waiting > 0 && !atomic_load(&c->failed))
        company_wait(c, wire_clock() + 1);
    return atomic_load(&c->failed) ? CUDPO_EPEER : CUDPO_OK;
}

/* Rank 0: everybody's part was used.  Before the answers go out: whoever has one may come with the next part at once. */
static void forget_parts(control *c)
{
    c->call.active = false;
    for (int32_t r = 1; r < c->size; r++) {
        member *x = &c->members[r];
        free(x->data);
        x->data = NULL;
        x->given = x->whole = false;
    }
}

/* Rank 0: send the whole to everybody, and wait until it is with the system: it is the caller's memory. */
static cudpo_status spread(control *c, const uint64_t *sizes, const void *all, size_t size)
{
    const size_t index = sizes == NULL ? 0 : (size_t)c->size * sizeof *sizes;
    const wire_span span = {.at = {(uint8_t *)(uintptr_t)sizes, (uint8_t *)(uintptr_t)all},
                            .size = {index, size}};
    forget_parts(c);
    for (int32_t r = 1; r < c->size; r++) {
        wire *w = &c->members[r].w;
        company_beat(c, r);
        if (!put_stand(w, WIRE_TAKE, &c->call.stand, size)) continue;
        if (index + size > 0) wire_send_bulk(w, c->call.stand.count, span);
        wire_flush(w);
    }
    company_wake(c);
    for (int32_t r = 1; r < c->size; r++)
        while (!wire_is_flushed(&c->members[r].w) && !atomic_load(&c->failed))
            company_wait(c, wire_clock() + 1);
    return atomic_load(&c->failed) ? CUDPO_EPEER : CUDPO_OK;
}

/* Others: give, and wait for the answer. */
static cudpo_status ask(control *c, const void *mine, size_t bytes)
{
    wire *w = &c->members[0].w;
    if (c->members[0].left) exchange_without(c, 0);
    if (atomic_load(&c->failed)) return CUDPO_EPEER;
    company_beat(c, 0); /* rank 0 knows how far this one came, should it be its last */
    if (put_stand(w, WIRE_GIVE, &c->call.stand, bytes) && bytes > 0)
        wire_send_bulk(w, c->call.stand.count,
                       (wire_span){.at = {(uint8_t *)(uintptr_t)mine}, .size = {bytes}});
    wire_flush(w);
    if (!wire_is_flushed(w)) company_wake(c);
    while (!c->call.done && !atomic_load(&c->failed)) {
        company_wait(c, wire_clock() + 1);
        /* Rank 0 decides who is late; this is for one that does not.  On the clock of the thread that forgives a suspended process its
         * silence. */
        if (!c->call.done && c->turned - c->call.since > c->peer_timeout + 10)
            out_of_step(c, 0, "rank %d does not answer at '%s'%s", c->call.stand.what, "");
    }
    return c->call.done && !atomic_load(&c->failed) ? CUDPO_OK : CUDPO_EPEER;
}

cudpo_status control_exchange(control *c, void *all, const void *mine, size_t bytes,
                              const char *what)
{
    CUDPO_REQUIRE(bytes > 0 && bytes <= most / (size_t)c->size);
    memmove((uint8_t *)all + (size_t)c->rank * bytes, mine, bytes);
    CUDPO_TRY(control_status(c));
    if (c->size == 1) return CUDPO_OK;
    begin_call(c, COMPANY_EXCHANGE, bytes, what);
    if (c->rank != 0) {
        c->call.answer = all;
        c->call.size = bytes * (size_t)c->size;
        return end_call(c, ask(c, mine, bytes));
    }
    cudpo_status s = gather(c);
    for (int32_t r = 1; r < c->size && s == CUDPO_OK; r++)
        memcpy((uint8_t *)all + (size_t)r * bytes, c->members[r].data, bytes);
    if (s == CUDPO_OK) s = spread(c, NULL, all, bytes * (size_t)c->size);
    return end_call(c, s);
}

cudpo_status control_broadcast(control *c, void *data, size_t bytes, const char *what)
{
    CUDPO_REQUIRE(bytes <= most);
    CUDPO_TRY(control_status(c));
    if (c->size == 1) return CUDPO_OK;
    begin_call(c, bytes > 0 ? COMPANY_BROADCAST : COMPANY_BARRIER, bytes, what);
    if (c->rank != 0) {
        c->call.answer = data;
        c->call.size = bytes;
        return end_call(c, ask(c, NULL, 0));
    }
    cudpo_status s = gather(c);
    if (s == CUDPO_OK) s = spread(c, NULL, data, bytes);
    return end_call(c, s);
}

cudpo_status control_barrier(control *c, const char *what)
{
    return control_broadcast(c, NULL, 0, what);
}

/* Rank 0: all parts in one block. */
static cudpo_status join_parts(control *c, uint64_t *sizes, uint8_t **block, size_t *total,
                               const void *mine, size_t bytes)
{
    uint8_t *at;
    *total = bytes;
    for (int32_t r = 1; r < c->size; r++)
        *total += c->members[r].size;
    *block = at = malloc(*total + 1);
    if (*total > most || at == NULL) {
        company_fail(c, 0, CUDPO_ENOMEM, "rank 0", "no memory for what ranks give, or above 1 GiB");
        return CUDPO_ENOMEM;
    }
    for (int32_t r = 0; r < c->size; r++) {
        sizes[r] = r == 0 ? bytes : c->members[r].size;
        if (sizes[r] > 0) memcpy(at, r == 0 ? mine : c->members[r].data, sizes[r]);
        at += sizes[r];
    }
    return CUDPO_OK;
}

cudpo_status control_collect(control *c, void **all, size_t *begin, const void *mine, size_t bytes,
                             const char *what)
{
    CUDPO_REQUIRE(bytes <= most);
    *all = NULL;
    CUDPO_TRY(control_status(c));
    uint64_t *sizes = calloc((size_t)c->size, sizeof *sizes);
    uint8_t *block = NULL;
    size_t total = 0;
    if (sizes == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%s", what);
    begin_call(c, COMPANY_COLLECT, bytes, what);
    c->call.sizes = sizes;
    cudpo_status s = c->rank == 0 ? gather(c) : ask(c, mine, bytes);
    if (c->rank != 0) {
        block = c->call.answer;
        total = c->call.size;
    } else if (s == CUDPO_OK) {
        s = join_parts(c, sizes, &block, &total, mine, bytes);
        if (s == CUDPO_OK) s = spread(c, sizes, block, total);
    }
    s = end_call(c, s);
    begin[0] = 0;
    for (int32_t r = 0; r < c->size; r++)
        begin[r + 1] = begin[r] + (size_t)sizes[r];
    free(sizes);
    if (s == CUDPO_OK && begin[c->size] != total)
        s = cudpo_fail(CUDPO_EPEER, "rank 0", "sent parts that are not the whole of '%s'", what);
    if (s != CUDPO_OK) {
        free(block);
        return s;
    }
    *all = block;
    return CUDPO_OK;
}
