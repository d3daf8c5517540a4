/* company.h - inside of control: what its threads share.
 *
 * One lock guards it all.  The main thread leaves what it wants in `call` and waits for `changed`; control's thread (company.c)
 * polls the connections, and no other thread waits for a socket.  Nothing blocks under the lock. */
#ifndef CUDPO_DIST_COMPANY_H
#define CUDPO_DIST_COMPANY_H

#include "dist/rendezvous.h"

#include <pthread.h>
#include <stdatomic.h>

enum { COMPANY_NAME = 48, COMPANY_TEXT = 1024 };

/* What a main thread waits for: goes out with heartbeats. */
typedef struct company_place {
    char collective[COMPANY_NAME]; /* "": nothing */
    int64_t sequence, step;
    double since; /* when rank 0 first heard of it */
} company_place;

typedef enum company_kind {
    COMPANY_EXCHANGE = 1,
    COMPANY_COLLECT,
    COMPANY_BROADCAST,
    COMPANY_BARRIER
} company_kind;

/* What a rank said it is at: GIVE. */
typedef struct company_stand {
    uint64_t count; /* of calls, from 1 */
    company_kind kind;
    size_t bytes;            /* that the caller named; of a collect, its own */
    char what[COMPANY_NAME]; /* where two differ, messages name both */
} company_stand;

typedef struct member {
    wire w;
    bool left; /* said BYE */
    bool shut; /* this rank's end is closed for sending */
    company_place place;
    /* Rank 0 only: this rank's part of the call that it is at. */
    bool given; /* its GIVE has come */
    bool whole; /* and all of its data */
    company_stand stand;
    double when;
    size_t size;
    uint8_t *data;
} member;

/* A call of the main thread under way. */
typedef struct company_call {
    bool active;
    company_stand stand;
    double since;
    bool done;       /* others: the answer is here */
    uint8_t *answer; /* others: where it goes, or (collect) new memory */
    size_t size;
    uint64_t *sizes; /* collect: [size] of each rank's part */
} company_call;

struct control {
    int32_t rank, size;
    double peer_timeout, grace, period; /* s; period: of heartbeats */
    uint8_t secret[CONTROL_SECRET];
    char address[HANDSHAKE_ADDRESS];
    pmix *session; /* NULL: none */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread, watcher;
    int wake[2]; /* a pipe that ends poll() */
    struct pollfd *polls;

    member *members; /* rank 0: [size], the first unused; others: [1], rank 0 */
    int32_t n_members;
    company_place place; /* this rank's */
    company_call call;
    uint64_t calls;
    int32_t waiting; /* rank 0: members whose part of the call is not whole */
    double turned;   /* when the thread last looked at the clock */

    /* Written once, before `failed` is set. */
    cudpo_status status;
    char where[COMPANY_TEXT], text[COMPANY_TEXT];
    atomic_bool failed;
    double failed_at;
    bool closing;
    double closing_at;

    control_watch watch; /* look NULL: none */
    bool watching;       /* look() or stop() is under way */
    bool stopped;        /* stop() was called */
    bool watch_ends, watch_ended;
};

/* With the lock held. */

/* The company has failed, unless it had before: tell the others, wake all who wait. */
void company_fail(control *c, int32_t rank, cudpo_status status, const char *where,
                  const char *text);
void company_wait(control *c, double deadline); /* for `changed` */
void company_wake(control *c);                  /* control's thread has something to send */

void company_beat(control *c, int32_t member); /* a heartbeat, to be sent */

void *company_run(void *c);   /* control's thread */
void *company_watch(void *c); /* look() and stop() */

/* exchange.c: a frame of a call came, a member said goodbye, some have been waiting for too long. */
void exchange_hear(control *c, int32_t member);
void exchange_without(control *c, int32_t rank);
void exchange_look(control *c, double now);

/* A rank is at `to` now: `since` stays where that is the same wait. */
void company_move(company_place *p, company_place to);

/* " at step 12 in all_reduce 40" */
void company_describe(char out[COMPANY_TEXT], const company_place *p);

#endif /* CUDPO_DIST_COMPANY_H */
