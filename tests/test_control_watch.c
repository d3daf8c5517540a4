/* Tests of what ends a rank whose main thread can't: control_watch, and the end of the process after `grace`. */
/* rooms: base dist */
#include "test_control.h"

#include <pthread.h>

/* What a watch sees; the page is shared with the test. */
typedef struct seen {
    atomic_int *looks, *stops;
    atomic_bool fails, hangs, looking, slow;
    pthread_t main;
    bool own_thread;
} seen;

static cudpo_status look(void *context)
{
    seen *s = context;
    atomic_store(&s->looking, true);
    atomic_fetch_add(s->looks, 1);
    cudpo_status status = CUDPO_OK;
    if (atomic_load(&s->slow)) job_sleep(0.005);
    if (atomic_load(&s->fails)) status = cudpo_fail(CUDPO_EDEVICE, "NCCL", "the network is down");
    atomic_store(&s->looking, false);
    return status;
}

static void stop(void *context)
{
    seen *s = context;
    atomic_fetch_add(s->stops, 1);
    s->own_thread = !pthread_equal(s->main, pthread_self());
    while (atomic_load(&s->hangs))
        job_sleep(0.01);
}

/* The page's `ready` counts looks and `go` counts stops, of all ranks. */
static seen see(job *j)
{
    return (seen){.looks = &j->page->ready, .stops = &j->page->go, .main = pthread_self()};
}

static cudpo_status wait_for_end(control *c)
{
    const double limit = job_clock() + JOB_LIMIT;
    while (control_status(c) == CUDPO_OK && job_clock() < limit)
        job_sleep(0.001);
    return control_status(c);
}

static cudpo_status one_watch_fails(control *c, job *j, int rank)
{
    seen s = see(j);
    const control_watch watch = {.look = look, .stop = stop, .context = &s};
    CUDPO_TRY(control_barrier(c, "start"));
    control_set_watch(c, &watch);
    if (!job_reach(s.looks, 10)) return cudpo_fail(CUDPO_EDATA, "look()", "is not called");
    atomic_store(&s.fails, rank == 1);
    const cudpo_status status = wait_for_end(c);
    if (!job_reach(s.stops, 3)) return cudpo_fail(CUDPO_EDATA, "stop()", "is not called");
    job_sleep(0.3); /* no second time */
    control_set_watch(c, NULL);
    return s.own_thread ? status : CUDPO_EDATA;
}

static void what_a_watch_sees_ends_all(void **state)
{
    (void)state;
    job j = job_make(3);
    job_start_all(&j, one_watch_fails);
    for (int r = 0; r < 3; r++)
        job_expect(&j, r, CUDPO_EDEVICE, "rank 1: NCCL: the network is down");
    assert_int_equal(atomic_load(&j.page->go), 3); /* once each */
    job_free(&j);
}

/* After it was taken away, a watch is not called, and its context may go. */
static cudpo_status watch_is_taken_away(control *c, job *j, int rank)
{
    seen *s = malloc(sizeof *s);
    (void)rank;
    for (int i = 0; i < 50; i++) {
        *s = see(j);
        atomic_store(&s->slow, true);
        const control_watch watch = {.look = look, .stop = stop, .context = s};
        control_set_watch(c, &watch);
        job_sleep(0.001 * (i % 5));
        control_set_watch(c, NULL);
        if (atomic_load(&s->looking)) return cudpo_fail(CUDPO_EDATA, "look()", "goes on");
        memset(s, 0xee, sizeof *s);
    }
    free(s);
    job_sleep(0.3);
    return control_barrier(c, "end");
}

static void a_watch_ends_when_told(void **state)
{
    (void)state;
    job j = job_make(2);
    job_start_all(&j, watch_is_taken_away);
    for (int r = 0; r < 2; r++)
        job_expect(&j, r, CUDPO_OK, "");
    assert_true(atomic_load(&j.page->ready) > 0);
    job_free(&j);
}

/* The main thread never looks up again; what it would have said goes to the page's folder. */
static cudpo_status hangs_for_ever(control *c, job *j, int rank)
{
    char name[32];
    snprintf(name, sizeof name, "err-%d", rank);
    const int fd = open(scratch_path(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, 2) < 0) return cudpo_fail(CUDPO_EWRITE, "stderr", "test");
    CUDPO_TRY(control_barrier(c, "start"));
    atomic_fetch_add(&j->page->ready, 1);
    if (rank == 2 && job_reach(&j->page->ready, 3)) {
        control_abort(c, CUDPO_ENUMERIC, "step 7: not\na number");
        return CUDPO_ENUMERIC;
    }
    for (;;)
        pause();
}

static void a_process_that_hangs_is_ended(void **state)
{
    (void)state;
    job j = job_make(3);
    j.options.grace = 0.5;
    const double begin = job_clock();
    job_start_all(&j, hangs_for_ever);
    for (int r = 0; r < 3; r++)
        assert_int_equal(job_end(&j, r), 79);
    const double took = job_clock() - begin;
    assert_true(took > 0.5 && took < 5);
    for (int r = 0; r < 2; r++) {
        char name[32], *text;
        size_t n;
        snprintf(name, sizeof name, "err-%d", r);
        CHECK_OK(file_read(&text, &n, scratch_path(name), 4096));
        assert_string_equal(text, "cudpo: rank 2: step 7: not?a number\n");
        free(text);
    }
    job_free(&j);
}

/* A driver that hangs in stop(): the main thread waits for it in vain, and the process ends all the same. */
static cudpo_status stop_hangs(control *c, job *j, int rank)
{
    static seen s;
    s = see(j);
    atomic_store(&s.hangs, rank == 1);
    const control_watch watch = {.look = look, .stop = stop, .context = &s};
    control_set_watch(c, &watch);
    CUDPO_TRY(control_barrier(c, "start"));
    atomic_fetch_add(&j->page->ready, 1);
    if (rank == 0) {
        (void)cudpo_fail(CUDPO_EDEVICE, "GPU", "fell off");
        control_abort(c, CUDPO_EDEVICE, "fell off");
        return CUDPO_EDEVICE;
    }
    return wait_for_end(c);
}

static void a_stop_that_hangs_is_ended(void **state)
{
    (void)state;
    job j = job_make(2);
    j.options.grace = 0.5;
    job_start_all(&j, stop_hangs);
    assert_int_equal(job_end(&j, 0), 69);
    assert_int_equal(job_end(&j, 1), 69);
    job_free(&j);
}

/* Nothing failed, but look() does not come back: closing goes on without it. */
static cudpo_status hang(void *context)
{
    seen *s = context;
    atomic_store(&s->hangs, true);
    while (atomic_load(&s->hangs))
        pause();
    return CUDPO_OK;
}

static cudpo_status look_hangs(control *c, job *j, int rank)
{
    static seen s; /* the watch outlives this call */
    s = see(j);
    const control_watch watch = {.look = rank == 1 ? hang : look, .stop = stop, .context = &s};
    control_set_watch(c, &watch);
    job_sleep(0.2);
    return control_barrier(c, "end");
}

static void a_look_that_hangs_is_left_behind(void **state)
{
    (void)state;
    job j = job_make(2);
    j.options.grace = 0.5;
    job_start_all(&j, look_hangs);
    job_expect(&j, 0, CUDPO_OK, "");
    job_expect(&j, 1, CUDPO_OK, "");
    job_free(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_watch_sees_ends_all),
        cmocka_unit_test(a_watch_ends_when_told),
        cmocka_unit_test(a_process_that_hangs_is_ended),
        cmocka_unit_test(a_stop_that_hangs_is_ended),
        cmocka_unit_test(a_look_that_hangs_is_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
