/* test_queue.c - collectives in a thread of their own: their order, failures, and ends.  The company is a stand-in. */
/* rooms: dist */
#include "test.h"
#include "dist/queue.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* In place of control.c: a company that fails when it is told to, and remembers what it was told. */
struct control {
    atomic_bool lost;
    atomic_int waits; /* calls with a collective */
    int64_t sequence; /* of the last call */
};

cudpo_status control_status(const control *c)
{
    return atomic_load(&c->lost) ? cudpo_fail(CUDPO_EPEER, "rank 3", "left: told so") : CUDPO_OK;
}

void control_waits(control *c, const char *collective, int64_t sequence, int64_t step)
{
    assert_true(collective == NULL || step == sequence / 10);
    c->waits += collective != NULL;
    c->sequence = sequence;
}

enum { MOST = 5000 };
/* What the worker did, and what it shall do. */
typedef struct record {
    int64_t done[MOST];
    atomic_int count;
    int64_t fails_at; /* sequence */
    control *company; /* a job lasts until it fails, but for `deaf` ms at least */
    int deaf;
    int slow; /* ms that a job lasts */
    pthread_t thread;
} record;

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static cudpo_status work(void *context, const queue_job *job)
{
    record *r = context;
    r->thread = pthread_self();
    if (job->sequence == r->fails_at)
        return cudpo_fail(CUDPO_EDEVICE, "wire: cut", "at %d", (int)job->sequence);
    if (r->company != NULL) {
        atomic_fetch_add(&r->count, 1);
        sleep_ms(r->deaf);
        while (!atomic_load(&r->company->lost))
            sleep_ms(1);
        return control_status(r->company);
    }
    sleep_ms(r->slow);
    *tensor_f32(job->x) += (float)job->op;
    const int n = atomic_load(&r->count);
    r->done[n] = job->sequence;
    atomic_store(&r->count, n + 1);
    return CUDPO_OK;
}

static queue_job job_of(int64_t sequence, float *x)
{
    return (queue_job){.op = (queue_op)(sequence % QUEUE_OPS),
                       .x = tensor_vector(x, DTYPE_F32, 1),
                       .sequence = sequence,
                       .step = sequence / 10};
}

static void jobs_are_done_in_order_by_another_thread(void **state)
{
    (void)state;
    static record r;
    control company = {0};
    queue *q;
    float x = 0.0f;
    r = (record){0};
    CHECK_OK(queue_open(&q, work, &r));
    CHECK_OK(queue_wait(q, &company));    /* of none */
    for (int64_t i = 1; i <= MOST; i++) { /* more than there is room for at once */
        const queue_job job = job_of(i, &x);
        CHECK_OK(queue_push(q, NULL, &job));
        if (i % 1000 == 0) CHECK_OK(queue_wait(q, i % 2000 == 0 ? NULL : &company));
        if (i % 1000 == 0) assert_int_equal(atomic_load(&r.count), i);
    }
    CHECK_OK(queue_wait(q, &company));
    for (int i = 0; i < MOST; i++)
        assert_int_equal(r.done[i], i + 1);
    assert_false(pthread_equal(r.thread, pthread_self()));
    CHECK_NEAR(x, MOST / QUEUE_OPS * (0 + 1 + 2 + 3), 0);
    assert_int_equal(company.sequence, 0); /* told that nothing is waited for any more */
    assert_int_equal(queue_close(q), QUEUE_DONE);
    assert_int_equal(queue_close(NULL), QUEUE_DONE);
}

static void jobs_that_nobody_waits_for_are_dropped(void **state)
{
    (void)state;
    static record r;
    control company = {0};
    queue *q;
    float x = 0.0f;
    r = (record){.company = &company}; /* the first lasts until the company is lost */
    CHECK_OK(queue_open(&q, work, &r));
    for (int64_t i = 1; i <= 3; i++) {
        const queue_job job = job_of(i, &x);
        CHECK_OK(queue_push(q, NULL, &job));
    }
    while (atomic_load(&r.count) == 0)
        sleep_ms(1);
    atomic_store(&company.lost, true);
    assert_int_equal(queue_close(q), QUEUE_FAILED);
    assert_int_equal(atomic_load(&r.count), 1);
}

/* The first job fills the queue behind it; then jobs are dropped although none failed. */
static void a_full_queue_makes_room_first(void **state)
{
    (void)state;
    static record r;
    queue *q;
    float x = 0.0f;
    r = (record){.slow = 1};
    CHECK_OK(queue_open(&q, work, &r));
    for (int64_t i = 1; i <= QUEUE_JOBS + 900; i++) {
        const queue_job job = job_of(i, &x);
        CHECK_OK(queue_push(q, NULL, &job));
    }
    const int begun = atomic_load(&r.count);
    assert_true(begun >= QUEUE_JOBS); /* there was no room before */
    assert_int_equal(queue_close(q), QUEUE_FAILED);
    const int done = atomic_load(&r.count);
    assert_true(done < QUEUE_JOBS + 900);
    for (int i = 0; i < done; i++)
        assert_int_equal(r.done[i], i + 1);
}

static void behind_a_failure_nothing_is_begun(void **state)
{
    (void)state;
    static record r;
    queue *q;
    float x = 0.0f;
    r = (record){.fails_at = 7};
    CHECK_OK(queue_open(&q, work, &r));
    for (int64_t i = 1; i <= 100; i++) {
        const queue_job job = job_of(i, &x);
        if (queue_push(q, NULL, &job) != CUDPO_OK) cudpo_error_clear();
    }
    CHECK_FAILS(queue_wait(q, NULL), CUDPO_EDEVICE, "wire: cut: at 7");
    CHECK_FAILS(queue_wait(q, NULL), CUDPO_EDEVICE, "wire: cut: at 7");
    const queue_job job = job_of(101, &x);
    CHECK_FAILS(queue_push(q, NULL, &job), CUDPO_EDEVICE, "wire: cut: at 7");
    assert_int_equal(atomic_load(&r.count), 6);
    assert_int_equal(queue_close(q), QUEUE_FAILED);
    assert_int_equal(atomic_load(&r.count), 6);
}

static void *lose(void *argument)
{
    record *r = argument;
    while (atomic_load(&r->count) == 0 || atomic_load(&r->company->waits) == 0)
        sleep_ms(1);
    atomic_store(&r->company->lost, true);
    return NULL;
}

/* Wait for a job that ends only with the company, which another thread makes fail. */
static void wait_for_the_lost(record *r, queue **q, double *lasted)
{
    static float x;
    pthread_t other;
    CHECK_OK(queue_open(q, work, r));
    for (int64_t i = 41; i <= 43; i++) {
        const queue_job job = job_of(i, &x);
        CHECK_OK(queue_push(*q, NULL, &job));
    }
    assert_int_equal(pthread_create(&other, NULL, lose, r), 0);
    const double begin = seconds();
    CHECK_FAILS(queue_wait(*q, r->company), CUDPO_EPEER, "rank 3: left: told so");
    *lasted = seconds() - begin;
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(atomic_load(&r->count), 1); /* the others were dropped */
    assert_int_equal(r->company->sequence, 0);
    assert_true(r->company->waits >= 1);
}

static void a_lost_company_ends_the_wait(void **state)
{
    (void)state;
    static record r;
    static control company;
    queue *q;
    double lasted;
    company = (control){0};
    r = (record){.company = &company};
    wait_for_the_lost(&r, &q, &lasted);
    assert_true(lasted < 2.0);
    assert_int_equal(queue_close(q), QUEUE_FAILED);
}

/* Static, and not closed but left: its thread lives on, which is the point. */
static void a_job_that_never_ends_holds_nobody_for_ever(void **state)
{
    (void)state;
    static record r;
    static control company;
    queue *q;
    double lasted;
    company = (control){0};
    r = (record){.company = &company, .deaf = 60000};
    wait_for_the_lost(&r, &q, &lasted);
    assert_true(lasted < 10.0);
    const double begin = seconds();
    assert_int_equal(queue_close(q), QUEUE_STUCK);
    assert_true(seconds() - begin < 10.0);
}

/* Signals that the queue's thread may take. */
static cudpo_status look_at_mask(void *context, const queue_job *job)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGCHLD};
    int *open = context;
    sigset_t blocked;
    (void)job;
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
    *open = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *open += !sigismember(&blocked, numbers[i]);
    return CUDPO_OK;
}

static void signals_are_the_main_threads(void **state)
{
    (void)state;
    static float x;
    int open = -1;
    queue *q;
    const queue_job job = {.x = tensor_vector(&x, DTYPE_F32, 1), .sequence = 1};
    CHECK_OK(queue_open(&q, look_at_mask, &open));
    CHECK_OK(queue_push(q, NULL, &job));
    CHECK_OK(queue_wait(q, NULL));
    assert_int_equal(open, 0);
    assert_int_equal(queue_close(q), QUEUE_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_done_in_order_by_another_thread),
        cmocka_unit_test(jobs_that_nobody_waits_for_are_dropped),
        cmocka_unit_test(a_full_queue_makes_room_first),
        cmocka_unit_test(behind_a_failure_nothing_is_begun),
        cmocka_unit_test(a_lost_company_ends_the_wait),
        cmocka_unit_test(a_job_that_never_ends_holds_nobody_for_ever),
        cmocka_unit_test(signals_are_the_main_threads),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
