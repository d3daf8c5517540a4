/* company.c - control's thread: it keeps every connection, sends heartbeats, and decides when a peer counts as lost. */
#include "dist/company.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* s in which goodbyes must be through; where the company has failed, who is lost never answers */
static const double last_words = 2, brief_words = 0.3;
enum { FRAMES = 16 }; /* of one member, before the others get their turn */

void company_describe(char out[COMPANY_TEXT], const company_place *p)
{
    out[0] = '\0';
    if (p->collective[0] != '\0')
        snprintf(out, COMPANY_TEXT, " at step %lld in %s %lld", (long long)p->step, p->collective,
                 (long long)p->sequence);
    else if (p->step > 0)
        snprintf(out, COMPANY_TEXT, " at step %lld", (long long)p->step);
}

void company_wake(control *c)
{
    const char byte = 0;
    if (write(c->wake[1], &byte, 1) < 0) return; /* full: it will wake anyway */
}

void company_wait(control *c, double deadline)
{
    const struct timespec t = {.tv_sec = (time_t)deadline,
                               .tv_nsec = (long)((deadline - (double)(time_t)deadline) * 1e9)};
    pthread_cond_timedwait(&c->changed, &c->lock, &t);
}

static int32_t rank_of(const control *c, int32_t m)
{
    return c->rank == 0 ? m : 0;
}

void company_fail(control *c, int32_t rank, cudpo_status status, const char *where,
                  const char *text)
{
    uint8_t data[WIRE_SMALL];
    wire_fields f = {.at = data, .end = data + sizeof data};
    if (atomic_load(&c->failed)) return;
    c->status = status;
    snprintf(c->where, sizeof c->where, "%.200s", where);
    snprintf(c->text, sizeof c->text, "%.1000s", text);
    c->failed_at = wire_clock();
    atomic_store(&c->failed, true);
    wire_put_int(&f, rank);
    wire_put_int(&f, status);
    wire_put_text(&f, c->where);
    wire_put_text(&f, c->text);
    for (int32_t m = 0; m < c->n_members; m++) {
        wire *w = &c->members[m].w;
        if (w->fd < 0) continue;
        wire_detach(w);
        (void)wire_send(w, WIRE_ABORT, 0, data, (size_t)(f.at - data));
        wire_flush(w);
    }
    pthread_cond_broadcast(&c->changed);
    company_wake(c);
}

static void lose(control *c, int32_t m, const char *why)
{
    char where[COMPANY_NAME], place[COMPANY_TEXT], text[COMPANY_TEXT];
    snprintf(where, sizeof where, "rank %d was lost", (int)rank_of(c, m));
    company_describe(place, &c->members[m].place);
    snprintf(text, sizeof text, "%.400s%.400s", why, place);
    company_fail(c, rank_of(c, m), CUDPO_EPEER, where, text);
}

void company_move(company_place *p, company_place to)
{
    const bool same = p->sequence == to.sequence && strcmp(p->collective, to.collective) == 0;
    to.since = same ? p->since : wire_clock();
    *p = to;
}

static void hear_beat(member *m)
{
    wire_fields f = {.at = m->w.small, .end = m->w.small + m->w.length};
    company_place p = {0};
    p.sequence = wire_get_int(&f);
    p.step = wire_get_int(&f);
    wire_get_text(&f, p.collective, sizeof p.collective);
    if (!f.bad) company_move(&m->place, p);
}

static void hear_abort(control *c, int32_t m)
{
    wire *w = &c->members[m].w;
    wire_fields f = {.at = w->small, .end = w->small + w->length};
    char where[COMPANY_TEXT], text[COMPANY_TEXT];
    const int64_t rank = wire_get_int(&f), status = wire_get_int(&f);
    wire_get_text(&f, where, sizeof where);
    wire_get_text(&f, text, sizeof text);
    if (f.bad || status <= CUDPO_OK || status > CUDPO_ERENDEZVOUS || rank < 0 || rank >= c->size)
        lose(c, m, "it failed and did not say why");
    else
        company_fail(c, (int32_t)rank, (cudpo_status)status, where, text);
}

static void hear_bye(control *c, int32_t m)
{
    c->members[m].left = true;
    if (c->rank == 0) { /* who leaves waits for this */
        wire_flush(&c->members[m].w);
        wire_close(&c->members[m].w);
    }
    exchange_without(c, rank_of(c, m));
}

static void hear_end(control *c, int32_t m, wire_event e)
{
    member *x = &c->members[m];
    char why[COMPANY_TEXT];
    const int error = errno;
    if (!x->left && !c->closing) {
        if (e == WIRE_CLOSED || error == ECONNRESET)
            snprintf(why, sizeof why, "it closed its connection (killed?)");
        else
            snprintf(why, sizeof why, "its connection broke: %s", strerror(error));
        lose(c, m, why);
    }
    wire_close(&x->w);
    pthread_cond_broadcast(&c->changed);
}

static void hear(control *c, int32_t m)
{
    member *x = &c->members[m];
    for (int i = 0; i < FRAMES && x->w.fd >= 0; i++) {
        /* Whoever fails or leaves listens only for the others' doing so. */
        const bool over = atomic_load(&c->failed) || c->closing || x->left;
        const wire_event e = over ? wire_drain(&x->w) : wire_read(&x->w);
        if (e == WIRE_NOTHING) return;
        if (e != WIRE_FRAME) {
            hear_end(c, m, e);
            return;
        }
        switch (x->w.type) {
        case WIRE_BEAT:
            hear_beat(x);
            break;
        case WIRE_ABORT:
            hear_abort(c, m);
            break;
        case WIRE_BYE:
            hear_bye(c, m);
            break;
        default:
            exchange_hear(c, m);
        }
    }
}

void company_beat(control *c, int32_t m)
{
    uint8_t data[128];
    wire_fields f = {.at = data, .end = data + sizeof data};
    wire_put_int(&f, c->place.sequence);
    wire_put_int(&f, c->place.step);
    wire_put_text(&f, c->place.collective);
    (void)wire_send(&c->members[m].w, WIRE_BEAT, 0, data, (size_t)(f.at - data));
}

static void send_beats(control *c)
{
    for (int32_t m = 0; m < c->n_members; m++) {
        const member *x = &c->members[m];
        /* One that waits to be sent already is enough. */
        if (x->w.fd >= 0 && !x->left && !x->shut && x->w.urgent.size == 0) company_beat(c, m);
    }
}

/* A process that was stopped and goes on must not take its own silence for that of the others. */
static void forgive(control *c, double gap)
{
    for (int32_t m = 0; m < c->n_members; m++) {
        c->members[m].w.heard += gap;
        c->members[m].place.since += gap;
        c->members[m].when += gap;
    }
    c->place.since += gap;
    c->call.since += gap;
}

static void find_silent(control *c, double now)
{
    for (int32_t m = 0; m < c->n_members && !atomic_load(&c->failed); m++) {
        const member *x = &c->members[m];
        const double silent = now - x->w.heard;
        char why[COMPANY_TEXT];
        if (x->w.fd < 0 || x->left || silent <= c->peer_timeout) continue;
        snprintf(
            why, sizeof why,
            "nothing was heard of it for %.1f s (its process stands still, or the network is gone)",
            silent);
        lose(c, m, why);
        /* Nobody waits for its goodbye; should it wake, the reason is there. */
        wire_close(&c->members[m].w);
    }
}

/* Rank 0: does somebody stand in a collective for too long?  Those are behind who have not come as far, or wait for nothing. */
static void find_stuck(control *c, double now)
{
    const company_place *first = NULL;
    char list[RANKS_TEXT], where[COMPANY_TEXT], place[COMPANY_TEXT], text[COMPANY_TEXT];
    int32_t who = 0;
    for (int32_t r = 0; r < c->size; r++) {
        const company_place *p = r == 0 ? &c->place : &c->members[r].place;
        if (p->collective[0] == '\0' || now - p->since <= c->peer_timeout) continue;
        if (first != NULL && p->sequence <= first->sequence) continue;
        first = p;
        who = r;
    }
    if (first == NULL) return;
    bool behind[MAX_RANKS];
    int32_t culprit = -1;
    for (int32_t r = c->size; r-- > 0;) {
        const company_place *p = r == 0 ? &c->place : &c->members[r].place;
        behind[r] = p->sequence < first->sequence ||
                    (p->sequence == first->sequence && p->collective[0] == '\0');
        if (behind[r]) culprit = r;
    }
    company_describe(place, first);
    if (culprit < 0) {
        /* A silent one stands still, not its network: wait until it counts as lost. */
        for (int32_t r = 1; r < c->size; r++)
            if (c->members[r].w.fd >= 0 && now - c->members[r].w.heard > 3 * c->period) return;
        snprintf(where, sizeof where, "all ranks");
        snprintf(text, sizeof text, "stand still%.200s for %.1f s", place, now - first->since);
    } else {
        const company_place *p = culprit == 0 ? &c->place : &c->members[culprit].place;
        char at[COMPANY_TEXT];
        rendezvous_ranks(list, behind, c->size);
        company_describe(at, p);
        snprintf(where, sizeof where, "%s did not come", list);
        snprintf(text, sizeof text,
                 "rank %d waits%.200s for %.1f s; rank %d was last heard of%.200s%s", (int)who,
                 place, now - first->since, (int)culprit,
                 at[0] != '\0' ? at : " before the first step",
                 p->collective[0] != '\0' ? "" : ", waiting for nobody");
    }
    company_fail(c, culprit < 0 ? 0 : culprit, CUDPO_EPEER, where, text);
}

/* The only place beside src/cli that ends the process: the main thread may hang in a collective or a driver for ever, and a
 * rank that does not end keeps its GPU and, under most launchers, the whole job. */
static void end_process(const control *c)
{
    char line[2 * COMPANY_TEXT + 16];
    int n = snprintf(line, sizeof line, "cudpo: %s: %s", c->where, c->text);
    for (int i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    line[n++] = '\n';
    for (int at = 0; at < n;) {
        const ssize_t w = write(2, line + at, (size_t)(n - at));
        if (w <= 0) break;
        at += (int)w;
    }
    _exit(cudpo_exit_code(c->status));
}

static void look_at_clock(control *c)
{
    const double now = wire_clock(), gap = now - c->turned;
    if (gap < c->period && !c->closing) return;
    if (gap > c->period + 1) forgive(c, gap);
    c->turned = now;
    if (c->closing) return;
    if (atomic_load(&c->failed)) {
        if (now - c->failed_at > c->grace) end_process(c);
        return;
    }
    send_beats(c);
    find_silent(c, now);
    if (c->rank == 0) {
        exchange_look(c, now);
        if (!atomic_load(&c->failed)) find_stuck(c, now);
    }
}

/* Send what waits; close this end where no more will come.  Are all connections gone? */
static bool send_all(control *c)
{
    bool gone = true;
    for (int32_t m = 0; m < c->n_members; m++) {
        member *x = &c->members[m];
        if (x->w.fd < 0) continue;
        if (!wire_is_flushed(&x->w)) {
            wire_flush(&x->w);
            if (wire_is_flushed(&x->w)) pthread_cond_broadcast(&c->changed);
        }
        if ((c->closing || x->left) && !x->shut && wire_is_flushed(&x->w)) {
            shutdown(x->w.fd, SHUT_WR);
            x->shut = true;
        }
        gone = false;
    }
    return gone;
}

void *company_run(void *argument)
{
    control *c = argument;
    char nothing[64];
    pthread_mutex_lock(&c->lock);
    for (;;) {
        const bool gone = send_all(c);
        const double words = atomic_load(&c->failed) ? brief_words : last_words;
        if (c->closing && (gone || wire_clock() > c->closing_at + words)) break;
        nfds_t n = 0;
        c->polls[n++] = (struct pollfd){.fd = c->wake[0], .events = POLLIN};
        for (int32_t m = 0; m < c->n_members; m++) {
            const wire *w = &c->members[m].w;
            const short out = wire_is_flushed(w) ? 0 : POLLOUT;
            c->polls[n++] = (struct pollfd){.fd = w->fd, .events = (short)(POLLIN | out)};
        }
        pthread_mutex_unlock(&c->lock);
        const int ready = poll(c->polls, n, (int)(c->period * 1e3));
        pthread_mutex_lock(&c->lock);
        if (ready > 0 && c->polls[0].revents != 0)
            while (read(c->wake[0], nothing, sizeof nothing) == (ssize_t)sizeof nothing)
                continue;
        for (int32_t m = 0; ready > 0 && m < c->n_members; m++)
            if (c->polls[1 + m].revents != 0) hear(c, m);
        look_at_clock(c);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

void *company_watch(void *argument)
{
    control *c = argument;
    double next = 0;
    pthread_mutex_lock(&c->lock);
    while (!c->watch_ends) {
        const bool failed = atomic_load(&c->failed);
        if (c->watch.look == NULL || (failed && c->stopped)) {
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        if (!failed && wire_clock() < next) {
            company_wait(c, next);
            continue;
        }
        const control_watch watch = c->watch;
        cudpo_status s = CUDPO_OK;
        c->watching = true;
        c->stopped = failed;
        pthread_mutex_unlock(&c->lock);
        cudpo_error_clear();
        if (failed)
            watch.stop(watch.context);
        else
            s = watch.look(watch.context);
        pthread_mutex_lock(&c->lock);
        c->watching = false;
        next = wire_clock() + 0.1;
        if (s != CUDPO_OK) {
            char where[COMPANY_NAME];
            snprintf(where, sizeof where, "rank %d", (int)c->rank);
            company_fail(c, c->rank, s, where, cudpo_error_message());
        }
        pthread_cond_broadcast(&c->changed);
    }
    c->watch_ended = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}
