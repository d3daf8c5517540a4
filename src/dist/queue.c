/* queue.c - a ring of jobs under one mutex; every change of it wakes all that wait. */
#include "dist/queue.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *const queue_op_names[QUEUE_OPS] = {"all_reduce", "reduce", "all_gather", "broadcast"};

enum {
    LOOK_MS = 50,    /* between two looks at the company */
    GRACE_MS = 3000, /* that a job has to end once nobody wants its result */
};

struct queue {
    cudpo_status (*work)(void *context, const queue_job *job);
    void *context;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    queue_job jobs[QUEUE_JOBS];
    int64_t first, count; /* the first is the one that runs; it stays here until it is done */
    bool running, ending;
    cudpo_status failure; /* the first; nothing is begun behind it */
    char message[1024];
};

/* Of the thread that calls, so that others can have the message, too. */
static void keep_failure(queue *q, cudpo_status status)
{
    q->failure = status;
    snprintf(q->message, sizeof q->message, "%s", cudpo_error_message());
}

/* The kept failure as this thread's. */
static cudpo_status failure_again(const queue *q)
{
    if (q->failure == CUDPO_OK) return CUDPO_OK;
    const char *end = strstr(q->message, ": ");
    if (end == NULL) return cudpo_fail(q->failure, "collective", "%s", q->message);
    char where[sizeof q->message];
    snprintf(where, sizeof where, "%.*s", (int)(end - q->message), q->message);
    return cudpo_fail(q->failure, where, "%s", end + 2);
}

static void *run(void *argument)
{
    queue *q = argument;
    pthread_mutex_lock(&q->mutex);
    while (true) {
        while (q->count == 0 && !q->ending)
            pthread_cond_wait(&q->changed, &q->mutex);
        if (q->count == 0) break;
        const queue_job job = q->jobs[q->first];
        q->running = true;
        pthread_mutex_unlock(&q->mutex);
        const cudpo_status status = q->work(q->context, &job);
        pthread_mutex_lock(&q->mutex);
        q->running = false;
        q->first = (q->first + 1) % QUEUE_JOBS;
        q->count--;
        if (status != CUDPO_OK && q->failure == CUDPO_OK) keep_failure(q, status);
        if (q->failure != CUDPO_OK) q->count = 0;
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
    return NULL;
}

static cudpo_status no_thread(int error)
{
    return cudpo_fail(CUDPO_ENOMEM, "thread", "can't be started: %s", strerror(error));
}

/* Signals are the main thread's: none is delivered to the thread. */
static cudpo_status start(queue *q)
{
    sigset_t all, before;
    sigfillset(&all);
    int error = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (error != 0) return no_thread(error);
    error = pthread_create(&q->thread, NULL, run, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 ? CUDPO_OK : no_thread(error);
}

static cudpo_status prepare(queue *q)
{
    pthread_condattr_t attributes;
    int error = pthread_mutex_init(&q->mutex, NULL);
    if (error != 0) return no_thread(error);
    error = pthread_condattr_init(&attributes);
    if (error == 0) {
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        error = pthread_cond_init(&q->changed, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    if (error == 0) return CUDPO_OK;
    pthread_mutex_destroy(&q->mutex);
    return no_thread(error);
}

static void release(queue *q)
{
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    free(q);
}

cudpo_status queue_open(queue **out, cudpo_status (*work)(void *context, const queue_job *job),
                        void *context)
{
    *out = NULL;
    queue *q = calloc(1, sizeof *q);
    if (q == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "queue");
    q->work = work;
    q->context = context;
    cudpo_status status = prepare(q);
    if (status != CUDPO_OK) {
        free(q);
        return status;
    }
    status = start(q);
    if (status != CUDPO_OK) {
        release(q);
        return status;
    }
    *out = q;
    return CUDPO_OK;
}

static struct timespec after_ms(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

static void wait_a_little(queue *q)
{
    const struct timespec until = after_ms(LOOK_MS);
    pthread_cond_timedwait(&q->changed, &q->mutex, &until);
}

/* Nothing is begun any more; the job that runs may still end by itself. */
static void give_up(queue *q)
{
    const struct timespec until = after_ms(GRACE_MS);
    if (q->count > q->running) q->count = q->running;
    while (q->running && pthread_cond_timedwait(&q->changed, &q->mutex, &until) != ETIMEDOUT)
        ;
}

cudpo_status queue_wait(queue *q, control *company)
{
    int64_t told = 0;
    pthread_mutex_lock(&q->mutex);
    while (q->count > 0) {
        const queue_job job = q->jobs[q->first];
        pthread_mutex_unlock(&q->mutex); /* the company has locks of its own */
        cudpo_status lost = CUDPO_OK;
        if (company != NULL) {
            if (job.sequence != told)
                control_waits(company, queue_op_names[job.op], job.sequence, job.step);
            told = job.sequence;
            lost = control_status(company);
        }
        pthread_mutex_lock(&q->mutex);
        if (lost != CUDPO_OK) {
            if (q->failure == CUDPO_OK) keep_failure(q, lost);
            give_up(q);
            break;
        }
        if (q->count > 0 && q->jobs[q->first].sequence == job.sequence) wait_a_little(q);
    }
    const cudpo_status status = failure_again(q);
    pthread_mutex_unlock(&q->mutex);
    if (told != 0) control_waits(company, NULL, 0, 0);
    return status;
}

cudpo_status queue_push(queue *q, control *company, const queue_job *job)
{
    pthread_mutex_lock(&q->mutex);
    const bool full = q->count == QUEUE_JOBS; /* nobody else adds to them */
    pthread_mutex_unlock(&q->mutex);
    if (full) CUDPO_TRY(queue_wait(q, company));
    pthread_mutex_lock(&q->mutex);
    const cudpo_status status = failure_again(q);
    if (status == CUDPO_OK) {
        q->jobs[(q->first + q->count++) % QUEUE_JOBS] = *job;
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
    return status;
}

queue_end queue_close(queue *q)
{
    if (q == NULL) return QUEUE_DONE;
    pthread_mutex_lock(&q->mutex);
    const bool whole = q->count == 0 && q->failure == CUDPO_OK;
    q->ending = true;
    pthread_cond_broadcast(&q->changed);
    give_up(q);
    const bool stuck = q->running;
    pthread_mutex_unlock(&q->mutex);
    if (stuck) { /* nor is the queue freed */
        pthread_detach(q->thread);
        return QUEUE_STUCK;
    }
    pthread_join(q->thread, NULL);
    release(q);
    return whole ? QUEUE_DONE : QUEUE_FAILED;
}
