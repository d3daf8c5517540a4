/* control.c - opening and closing the company, and what a rank says to it.  See company.h for how it works inside. */
#include "dist/company.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void free_control(control *c)
{
    for (int32_t m = 0; c->members != NULL && m < c->n_members; m++) {
        wire_close(&c->members[m].w);
        free(c->members[m].data);
    }
    for (int i = 0; i < 2; i++)
        if (c->wake[i] >= 0) close(c->wake[i]);
    pmix_close(c->session);
    free(c->members);
    free(c->polls);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    sodium_memzero(c->secret, sizeof c->secret);
    free(c);
}

static cudpo_status make_control(control **out, const control_options *o)
{
    pthread_condattr_t attributes;
    control *c = calloc(1, sizeof *c);
    if (c == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "control");
    c->rank = o->place->rank;
    c->size = o->place->size;
    c->peer_timeout = o->peer_timeout;
    c->grace = o->grace;
    /* Rank 0 looks at all connections whenever something comes: of very many ranks less often. */
    c->period = 0.2 * (1 + c->size / 256);
    if (c->period > o->peer_timeout / 5) c->period = o->peer_timeout / 5;
    c->wake[0] = c->wake[1] = -1;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = c;
    return CUDPO_OK;
}

/* What rank 0 has found where the others can look it up. */
typedef struct meeting {
    rendezvous_target target;
    rendezvous_listener listener; /* of rank 0 */
    char pmix_secret[RENDEZVOUS_SECRET];
    const char *token;
} meeting;

static cudpo_status arrange(meeting *m, const control_options *o, pmix *session)
{
    const placement *p = o->place;
    *m = (meeting){.listener = {.fd = {-1, -1}}, .token = o->token != NULL ? o->token : ""};
    if (session != NULL) {
        m->token = m->pmix_secret;
        return rendezvous_by_pmix(&m->target, m->pmix_secret, &m->listener, session, p,
                                  o->join_timeout, o->stopped);
    }
    CUDPO_TRY(rendezvous_where(&m->target, p, m->token[0] != '\0' || o->open));
    return p->rank == 0 ? rendezvous_listen(&m->listener, &m->target) : CUDPO_OK;
}

static cudpo_status find_others(rendezvous_links *links, const control_options *o, pmix *session)
{
    const double deadline = wire_clock() + o->join_timeout;
    const placement *p = o->place;
    meeting m;
    cudpo_status s = arrange(&m, o, session);
    const handshake_self self = {.run_id = p->run_id,
                                 .build = o->build,
                                 .token = (const uint8_t *)m.token,
                                 .token_size = strlen(m.token),
                                 .rank = p->rank,
                                 .size = p->size};
    const double seconds = deadline - wire_clock();
    if (s == CUDPO_OK)
        s = p->rank == 0 ? rendezvous_receive(links, &m.listener, &self, seconds, o->stopped)
                         : rendezvous_join(links, &m.target, &self, seconds, o->stopped);
    rendezvous_stop(&m.listener);
    sodium_memzero(m.pmix_secret, sizeof m.pmix_secret);
    return s;
}

/* The session with PMIx lasts as long as the company: whoever ended it could not begin MPI any more. */
static cudpo_status find_others_somehow(control *c, rendezvous_links *links,
                                        const control_options *o)
{
    const bool by_pmix = rendezvous_is_by_pmix(o->place);
    if (by_pmix && c->session == NULL) CUDPO_TRY(pmix_open(&c->session));
    return find_others(links, o, by_pmix ? c->session : NULL);
}

/* The connections become the company's. */
static cudpo_status take_links(control *c, rendezvous_links *links)
{
    c->n_members = c->rank == 0 ? c->size : 1;
    c->members = calloc((size_t)c->n_members, sizeof *c->members);
    c->polls = calloc(1 + (size_t)c->n_members, sizeof *c->polls);
    for (int32_t m = 0; m < c->n_members; m++) {
        if (c->members == NULL)
            wire_close(&links->wires[m]);
        else
            c->members[m].w = links->wires[m];
    }
    free(links->wires);
    if (c->members == NULL || c->polls == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)c->size);
    for (int32_t m = 0; m < c->n_members; m++) /* silence counts from now */
        c->members[m].w.heard = wire_clock();
    memcpy(c->secret, links->secret, sizeof c->secret);
    memcpy(c->address, links->address, sizeof c->address);
    return CUDPO_OK;
}

/* Signals are the main thread's. */
static cudpo_status start_threads(control *c)
{
    sigset_t all, before;
    if (pipe(c->wake) != 0)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        fcntl(c->wake[i], F_SETFD, FD_CLOEXEC);
        fcntl(c->wake[i], F_SETFL, O_NONBLOCK);
    }
    c->turned = wire_clock();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&c->thread, NULL, company_run, c);
    if (e == 0 && (e = pthread_create(&c->watcher, NULL, company_watch, c)) != 0) {
        pthread_mutex_lock(&c->lock);
        c->closing = true; /* without a goodbye: this rank is lost to the others */
        company_wake(c);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e == 0 ? CUDPO_OK : cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "thread: %s", strerror(e));
}

cudpo_status control_open(control **out, const control_options *o)
{
    rendezvous_links links = {0};
    control *c = NULL;
    *out = NULL;
    CUDPO_REQUIRE(o->place->size >= 1 && o->place->size <= MAX_RANKS);
    CUDPO_REQUIRE(o->place->rank >= 0 && o->place->rank < o->place->size);
    CUDPO_REQUIRE(o->build != NULL && strlen(o->build) < HANDSHAKE_BUILD);
    CUDPO_REQUIRE(o->peer_timeout > 0 && o->join_timeout > 0 && o->grace >= 0);
    if (sodium_init() < 0) return cudpo_fail(CUDPO_EPERM, CUDPO_HERE, "no random numbers");
    CUDPO_TRY(make_control(&c, o));
    c->session = o->session;
    cudpo_status s = CUDPO_OK;
    if (c->size == 1) {
        randombytes_buf(c->secret, sizeof c->secret);
        snprintf(c->address, sizeof c->address, "127.0.0.1");
    } else {
        s = find_others_somehow(c, &links, o);
        if (s == CUDPO_OK) s = take_links(c, &links);
        if (s == CUDPO_OK) s = start_threads(c);
    }
    if (s == CUDPO_OK)
        *out = c;
    else
        free_control(c);
    return s;
}

/* Wait until what was queued is with the system. */
static void flush_all(control *c)
{
    const double deadline = wire_clock() + 2;
    for (int32_t m = 0; m < c->n_members; m++)
        while (!wire_is_flushed(&c->members[m].w) && wire_clock() < deadline)
            company_wait(c, deadline);
}

void control_abort(control *c, cudpo_status status, const char *message)
{
    char where[COMPANY_NAME];
    if (c == NULL) return;
    pthread_mutex_lock(&c->lock);
    snprintf(where, sizeof where, "rank %d", (int)c->rank);
    company_fail(c, c->rank, status, where, message);
    flush_all(c);
    pthread_mutex_unlock(&c->lock);
}

void control_close(control *c)
{
    if (c == NULL) return;
    if (c->size == 1) {
        free_control(c);
        return;
    }
    /* The watcher first, while the process would still be ended if it hangs in a stop(). */
    pthread_mutex_lock(&c->lock);
    c->watch_ends = true;
    pthread_cond_broadcast(&c->changed);
    const double deadline = wire_clock() + c->grace;
    while (!c->watch_ended && (atomic_load(&c->failed) || wire_clock() < deadline))
        company_wait(c, wire_clock() + 1);
    const bool hangs = !c->watch_ended;
    c->closing = true;
    c->closing_at = wire_clock();
    for (int32_t m = 0; m < c->n_members; m++)
        if (c->members[m].w.fd >= 0) (void)wire_send(&c->members[m].w, WIRE_BYE, 0, NULL, 0);
    company_wake(c);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    if (hangs) {
        pthread_detach(c->watcher); /* and what it looks at stays */
        return;
    }
    pthread_join(c->watcher, NULL);
    free_control(c);
}

cudpo_status control_status(const control *c)
{
    /* What is read behind `failed` was written before it was set, and is not written again. */
    if (!atomic_load(&c->failed)) return CUDPO_OK;
    return cudpo_fail(c->status, c->where, "%s", c->text);
}

const uint8_t *control_secret(const control *c)
{
    return c->secret;
}

int32_t control_rank(const control *c)
{
    return c->rank;
}

int32_t control_size(const control *c)
{
    return c->size;
}

const char *control_address(const control *c)
{
    return c->address;
}

void control_waits(control *c, const char *collective, int64_t sequence, int64_t step)
{
    if (c->size == 1) return;
    pthread_mutex_lock(&c->lock);
    company_place p = {.sequence = c->place.sequence, .step = c->place.step};
    if (collective != NULL) { /* else it stays known how far this rank came */
        p.sequence = sequence;
        p.step = step;
        snprintf(p.collective, sizeof p.collective, "%s", collective);
    }
    company_move(&c->place, p);
    pthread_mutex_unlock(&c->lock);
}

bool control_set_watch(control *c, const control_watch *watch)
{
    if (c->size == 1) return true;
    pthread_mutex_lock(&c->lock);
    const double deadline = wire_clock() + c->grace;
    while (c->watching && (atomic_load(&c->failed) || wire_clock() < deadline))
        company_wait(c, wire_clock() + 1);
    const bool hangs = c->watching;
    if (!hangs) c->watch = watch != NULL ? *watch : (control_watch){0};
    c->stopped = false;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return !hangs;
}
