/* pmix.c - see pmix.h. */
#include "dist/pmix.h"
#include "dist/rendezvous.h"
#include "dist/wire.h"

#ifdef CUDPO_PMIX

#include <dlfcn.h>
#include <errno.h>
#include <pmix.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool pmix_is_built(void)
{
    return true;
}

/* Everything of libpmix that is called, so that nothing is linked. */
typedef struct pmix_calls {
    pmix_status_t (*init)(pmix_proc_t *, pmix_info_t[], size_t);
    pmix_status_t (*finalize)(const pmix_info_t[], size_t);
    pmix_status_t (*put)(pmix_scope_t, const char[], pmix_value_t *);
    pmix_status_t (*commit)(void);
    pmix_status_t (*fence)(const pmix_proc_t[], size_t, const pmix_info_t[], size_t,
                           pmix_op_cbfunc_t, void *);
    pmix_status_t (*get)(const pmix_proc_t *, const char[], const pmix_info_t[], size_t,
                         pmix_value_t **);
    const char *(*error)(pmix_status_t);
} pmix_calls;

/* A fence that is under way; PMIx's own thread ends it. */
typedef struct fence {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    pmix_status_t status;
} fence;

struct pmix {
    void *library;
    pmix_calls call;
    pmix_proc_t self;
    bool connected;
};

static cudpo_status failed(const pmix *p, const char *what, pmix_status_t s)
{
    return cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "%s: %s", what, p->call.error(s));
}

static cudpo_status find(const pmix *p, void *function, const char *name)
{
    void *const at = dlsym(p->library, name);
    if (at == NULL) return cudpo_fail(CUDPO_ERENDEZVOUS, "libpmix.so.2", "has no %s", name);
    memcpy(function, &at, sizeof at); /* C has no conversion to a pointer to a function */
    return CUDPO_OK;
}

static cudpo_status load(pmix *p)
{
    p->library = dlopen("libpmix.so.2", RTLD_NOW | RTLD_LOCAL);
    if (p->library == NULL)
        return cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx",
                          "%s; install it, or give --rdzv_endpoint HOST:PORT", dlerror());
    CUDPO_TRY(find(p, &p->call.init, "PMIx_Init"));
    CUDPO_TRY(find(p, &p->call.finalize, "PMIx_Finalize"));
    CUDPO_TRY(find(p, &p->call.put, "PMIx_Put"));
    CUDPO_TRY(find(p, &p->call.commit, "PMIx_Commit"));
    CUDPO_TRY(find(p, &p->call.fence, "PMIx_Fence_nb"));
    CUDPO_TRY(find(p, &p->call.get, "PMIx_Get"));
    return find(p, &p->call.error, "PMIx_Error_string");
}

static pmix_proc_t whom(const pmix *p, pmix_rank_t rank)
{
    pmix_proc_t who = p->self;
    who.rank = rank;
    return who;
}

/* A number of the job or of this process, whatever its width. */
static cudpo_status number(const pmix *p, int64_t *out, pmix_rank_t rank, const char *key)
{
    const pmix_proc_t who = whom(p, rank);
    pmix_value_t *v = NULL;
    const pmix_status_t s = p->call.get(&who, key, NULL, 0, &v);
    if (s != PMIX_SUCCESS || v == NULL) return failed(p, key, s);
    const bool narrow = v->type == PMIX_UINT16, wide = v->type == PMIX_UINT32;
    if (narrow) *out = v->data.uint16;
    if (wide) *out = v->data.uint32;
    free(v);
    return narrow || wide ? CUDPO_OK
                          : cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "%s makes no sense", key);
}

static cudpo_status connect_to_server(pmix *p)
{
    CUDPO_TRY(load(p));
    const pmix_status_t s = p->call.init(&p->self, NULL, 0);
    if (s != PMIX_SUCCESS) return failed(p, "no server", s);
    p->connected = true;
    return p->self.rank < MAX_RANKS
               ? CUDPO_OK
               : cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "this is rank %u", p->self.rank);
}

cudpo_status pmix_open(pmix **out)
{
    pmix *p = calloc(1, sizeof *p);
    *out = NULL;
    if (p == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "PMIx");
    const cudpo_status s = connect_to_server(p);
    if (s == CUDPO_OK)
        *out = p;
    else
        pmix_close(p);
    return s;
}

int32_t pmix_rank(const pmix *p)
{
    return (int32_t)p->self.rank;
}

static cudpo_status complete(const pmix *p, placement *place)
{
    int64_t size, local_size, local_rank, node;
    if (pmix_rank(p) != place->rank)
        return cudpo_fail(CUDPO_ECONFIG, "PMIX_RANK", "is %d, and to PMIx this is rank %d",
                          (int)place->rank, (int)pmix_rank(p));
    CUDPO_TRY(number(p, &size, PMIX_RANK_WILDCARD, PMIX_JOB_SIZE));
    CUDPO_TRY(number(p, &local_size, PMIX_RANK_WILDCARD, PMIX_LOCAL_SIZE));
    CUDPO_TRY(number(p, &local_rank, p->self.rank, PMIX_LOCAL_RANK));
    CUDPO_TRY(number(p, &node, p->self.rank, PMIX_NODEID));
    return placement_complete(place, size, local_rank, local_size, node);
}

cudpo_status pmix_complete(placement *place, pmix **session)
{
    *session = NULL;
    if (place->size != 0) return CUDPO_OK;
    CUDPO_TRY(pmix_open(session));
    const cudpo_status s = complete(*session, place);
    if (s != CUDPO_OK) {
        pmix_close(*session);
        *session = NULL;
    }
    return s;
}

void pmix_close(pmix *p)
{
    if (p == NULL) return;
    if (p->connected) p->call.finalize(NULL, 0);
    /* The library stays: threads of its own may still be on their way out of it. */
    free(p);
}

cudpo_status pmix_put(pmix *p, const char *key, const char *text)
{
    pmix_value_t v = {.type = PMIX_STRING};
    v.data.string = (char *)(uintptr_t)text; /* it is copied */
    pmix_status_t s = p->call.put(PMIX_GLOBAL, key, &v);
    if (s == PMIX_SUCCESS) s = p->call.commit();
    return s == PMIX_SUCCESS ? CUDPO_OK : failed(p, key, s);
}

static void end_fence(pmix_status_t status, void *argument)
{
    fence *f = argument;
    pthread_mutex_lock(&f->lock);
    f->done = true;
    f->status = status;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static bool wait_for(fence *f, double seconds, bool (*stopped)(void))
{
    const long look_ns = 200000000;
    const double until = wire_clock() + seconds;
    pthread_mutex_lock(&f->lock);
    while (!f->done && wire_clock() < until && (stopped == NULL || !stopped())) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += look_ns;
        t.tv_sec += t.tv_nsec / 1000000000L;
        t.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&f->changed, &f->lock, &t);
    }
    const bool done = f->done;
    pthread_mutex_unlock(&f->lock);
    return done;
}

cudpo_status pmix_fence(pmix *p, double seconds, bool (*stopped)(void))
{
    pmix_info_t collect = {.key = PMIX_COLLECT_DATA};
    collect.value.type = PMIX_BOOL;
    collect.value.data.flag = true;
    fence *f = calloc(1, sizeof *f);
    if (f == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "PMIx");
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    pmix_status_t s = p->call.fence(NULL, 0, &collect, 1, end_fence, f);
    if (s == PMIX_SUCCESS) {
        /* Of one that does not end, nothing is freed: PMIx may still end it. */
        const bool done = wait_for(f, seconds, stopped);
        if (!done && stopped != NULL && stopped())
            return cudpo_fail(CUDPO_ESTOPPED, "PMIx", RENDEZVOUS_STOPPED);
        if (!done)
            return cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "not all ranks came within %g s", seconds);
        s = f->status;
    }
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return s == PMIX_SUCCESS || s == PMIX_OPERATION_SUCCEEDED ? CUDPO_OK : failed(p, "fence", s);
}

cudpo_status pmix_get(pmix *p, char *out, size_t size, int32_t rank, const char *key)
{
    const pmix_proc_t who = whom(p, (pmix_rank_t)rank);
    pmix_value_t *v = NULL;
    const pmix_status_t s = p->call.get(&who, key, NULL, 0, &v);
    if (s != PMIX_SUCCESS || v == NULL) return failed(p, key, s);
    const bool fits = v->type == PMIX_STRING && v->data.string != NULL &&
                      (size_t)snprintf(out, size, "%s", v->data.string) < size;
    if (v->type == PMIX_STRING) free(v->data.string);
    free(v);
    return fits ? CUDPO_OK : cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "%s makes no sense", key);
}

#else

bool pmix_is_built(void)
{
    return false;
}

static cudpo_status absent(void)
{
    return cudpo_fail(
        CUDPO_ERENDEZVOUS, "PMIx",
        "this build has none: give --rdzv_endpoint HOST:PORT (or build with libpmix-dev)");
}

cudpo_status pmix_open(pmix **out)
{
    *out = NULL;
    return absent();
}

int32_t pmix_rank(const pmix *p)
{
    (void)p;
    return -1;
}

cudpo_status pmix_complete(placement *place, pmix **session)
{
    *session = NULL;
    return place->size != 0 ? CUDPO_OK : absent();
}

void pmix_close(pmix *p)
{
    (void)p;
}

cudpo_status pmix_put(pmix *p, const char *key, const char *text)
{
    (void)p, (void)key, (void)text;
    return absent();
}

cudpo_status pmix_fence(pmix *p, double seconds, bool (*stopped)(void))
{
    (void)p, (void)seconds, (void)stopped;
    return absent();
}

cudpo_status pmix_get(pmix *p, char *out, size_t size, int32_t rank, const char *key)
{
    (void)p, (void)out, (void)size, (void)rank, (void)key;
    return absent();
}

#endif
