/* Tests of src/dist/control.h: what ranks exchange, and that one which dies, stops or fails ends all of them with its reason. */
/* rooms: base dist */
#include "test_control.h"

/* Rank r gives r * 1000 + i; everybody has everybody's. */
static cudpo_status exchanges(control *c, job *j, int rank)
{
    int32_t mine[4], all[JOB_RANKS * 4];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 4; i++)
            mine[i] = rank * 1000 + round * 10 + i;
        CUDPO_TRY(control_exchange(c, all, mine, sizeof mine, "numbers"));
        for (int k = 0; k < 4 * j->size; k++)
            if (all[k] != k / 4 * 1000 + round * 10 + k % 4)
                return cudpo_fail(CUDPO_EDATA, "exchange", "element %d is %d", k, (int)all[k]);
        int64_t word = rank == 0 ? 77 + round : -1;
        CUDPO_TRY(control_broadcast(c, &word, sizeof word, "word"));
        if (word != 77 + round) return cudpo_fail(CUDPO_EDATA, "broadcast", "%d", (int)word);
        CUDPO_TRY(control_barrier(c, "barrier"));
    }
    return CUDPO_OK;
}

static void all_know_what_all_gave(void **state)
{
    const int sizes[] = {1, 2, 4, 16};
    (void)state;
    for (int i = 0; i < 4; i++) {
        job j = job_make(sizes[i]);
        job_start_all(&j, exchanges);
        for (int r = 0; r < j.size; r++)
            job_expect(&j, r, CUDPO_OK, "");
        job_free(&j);
    }
}

/* Parts of different lengths, empty ones and, from the last rank, one of many chunks. */
static cudpo_status collects(control *c, job *j, int rank)
{
    size_t begin[JOB_RANKS + 1];
    const size_t large = 1000001;
    for (int round = 0; round < 3; round++) {
        const size_t n = rank == j->size - 1 ? large : (size_t)rank;
        uint8_t *mine = malloc(n + 1), *all;
        for (size_t i = 0; i < n; i++)
            mine[i] = (uint8_t)(i * 7 + (size_t)rank + (size_t)round);
        const cudpo_status s = control_collect(c, (void **)&all, begin, mine, n, "lines");
        free(mine);
        CUDPO_TRY(s);
        for (int r = 0; r < j->size; r++) {
            const size_t want = r == j->size - 1 ? large : (size_t)r;
            if (begin[r + 1] - begin[r] != want)
                return cudpo_fail(CUDPO_EDATA, "collect", "rank %d has %zu", r,
                                  begin[r + 1] - begin[r]);
            for (size_t i = 0; i < want; i++)
                if (all[begin[r] + i] != (uint8_t)(i * 7 + (size_t)r + (size_t)round))
                    return cudpo_fail(CUDPO_EDATA, "collect", "byte %zu of rank %d", i, r);
        }
        free(all);
    }
    return CUDPO_OK;
}

static void parts_of_any_length(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        job j = job_make(size);
        job_start_all(&j, collects);
        for (int r = 0; r < size; r++)
            job_expect(&j, r, CUDPO_OK, "");
        job_free(&j);
    }
}

static cudpo_status waits(control *c, job *j, int rank)
{
    (void)rank;
    control_waits(c, "all_reduce", 40, 12);
    CUDPO_TRY(control_barrier(c, "all know where the others are"));
    return job_wait_for_failure(c, j);
}

/* 200, but where processes start slowly, as under a sanitizer, what 3 s allow, and at least 20. */
static bool more_trials(int trial, double begin)
{
    return trial < 20 || (trial < 200 && job_clock() < begin + 3);
}

static void a_killed_rank_ends_all(void **state)
{
    double worst = 0;
    const double begin = job_clock();
    int trial;
    (void)state;
    for (trial = 0; more_trials(trial, begin); trial++) {
        const int victim = trial % 4;
        char text[128];
        job j = job_make(4);
        job_start_all(&j, waits);
        assert_true(job_reach(&j.page->ready, 4));
        const double killed = job_clock();
        kill(j.pid[victim], SIGKILL);
        assert_int_equal(job_end(&j, victim), 128 + SIGKILL);
        snprintf(text, sizeof text,
                 "rank %d was lost: it closed its connection (killed?) at step 12 in all_reduce 40",
                 victim);
        for (int r = 0; r < 4; r++) {
            if (r == victim) continue;
            job_expect(&j, r, CUDPO_EPEER, text);
            const double took = j.page->rank[r].noticed - killed;
            if (!(took <= worst)) worst = took;
        }
        job_free(&j);
    }
    printf("SIGKILL noticed by all others within %.1f ms (worst of %d)\n", worst * 1e3, trial);
    assert_true(worst < 2);
}

/* Tests that wait for a second run side by side. */
static void a_stopped_rank_ends_all(void **state)
{
    job jobs[3];
    double stopped[3];
    (void)state;
    for (int victim = 0; victim < 3; victim++) {
        jobs[victim] = job_make(3);
        jobs[victim].options.peer_timeout = 1;
        job_start_all(&jobs[victim], waits);
        assert_true(job_reach(&jobs[victim].page->ready, 3));
        stopped[victim] = job_clock();
        kill(jobs[victim].pid[victim], SIGSTOP);
    }
    for (int victim = 0; victim < 3; victim++) {
        char text[128];
        snprintf(text, sizeof text, "rank %d was lost: nothing was heard of it for", victim);
        for (int r = 0; r < 3; r++) {
            if (r == victim) continue;
            job_expect(&jobs[victim], r, CUDPO_EPEER, text);
            const double took = jobs[victim].page->rank[r].noticed - stopped[victim];
            printf("SIGSTOP of rank %d noticed by rank %d after %.2f s of 1 s\n", victim, r, took);
            assert_true(took > 0.5 && took < 3); /* the last heartbeat may be 0.2 s old */
        }
        job_free(&jobs[victim]);
    }
}

/* Rank 2 says why; ranks 0 and 1 wait in a barrier, rank 3 is busy elsewhere. */
static cudpo_status one_aborts(control *c, job *j, int rank)
{
    if (rank == 3) return job_wait_for_failure(c, j);
    if (rank != atomic_load(&j->page->go)) return control_barrier(c, "save");
    (void)cudpo_fail(CUDPO_ENUMERIC, "step 7", "the loss is not a number");
    control_abort(c, CUDPO_ENUMERIC, cudpo_error_message());
    return CUDPO_ENUMERIC;
}

static void a_failure_ends_all_with_its_reason(void **state)
{
    (void)state;
    for (int victim = 0; victim < 3; victim++) {
        char text[128];
        job j = job_make(4);
        atomic_store(&j.page->go, victim);
        job_start_all(&j, one_aborts);
        snprintf(text, sizeof text, "rank %d: step 7: the loss is not a number", victim);
        for (int r = 0; r < 4; r++)
            job_expect(&j, r, CUDPO_ENUMERIC, r == victim ? "step 7: the loss" : text);
        job_free(&j);
    }
}

/* A process that ends without a word, though nothing killed it. */
static cudpo_status one_leaves_silently(control *c, job *j, int rank)
{
    if (rank == 1) _exit(0);
    return job_wait_for_failure(c, j);
}

static void an_end_without_goodbye_is_a_loss(void **state)
{
    (void)state;
    job j = job_make(3);
    job_start_all(&j, one_leaves_silently);
    job_expect(&j, 0, CUDPO_EPEER, "rank 1 was lost: it closed its connection");
    job_expect(&j, 2, CUDPO_EPEER, "rank 1 was lost: it closed its connection");
    job_free(&j);
}

/* Nobody misses who said goodbye; a call that it does not come to fails, on all who come. */
static cudpo_status one_leaves_early(control *c, job *j, int rank)
{
    CUDPO_TRY(control_barrier(c, "start"));
    if (rank == atomic_load(&j->page->go)) return CUDPO_OK;
    while (kill(getppid(), 0) == 0 &&
           atomic_load(&j->page->rank[atomic_load(&j->page->go)].status) < 0)
        job_sleep(0.001);
    return control_barrier(c, "end");
}

static void a_goodbye_is_no_loss(void **state)
{
    (void)state;
    for (int leaver = 0; leaver < 3; leaver++) {
        char text[128];
        job j = job_make(3);
        atomic_store(&j.page->go, leaver);
        job_start_all(&j, one_leaves_early);
        snprintf(text, sizeof text, "rank %d said goodbye while", leaver);
        for (int r = 0; r < 3; r++)
            job_expect(&j, r, r == leaver ? CUDPO_OK : CUDPO_EPEER, r == leaver ? "" : text);
        job_free(&j);
    }
}

/* The last answer and the goodbye of rank 0 come at the same time. */
static cudpo_status leaves_at_once(control *c, job *j, int rank)
{
    (void)j, (void)rank;
    return control_barrier(c, "the only one");
}

static void goodbyes_overtake_nothing(void **state)
{
    (void)state;
    const double begin = job_clock();
    for (int trial = 0; more_trials(trial, begin); trial++) {
        job j = job_make(4);
        job_start_all(&j, leaves_at_once);
        for (int r = 0; r < 4; r++)
            job_expect(&j, r, CUDPO_OK, "");
        job_free(&j);
    }
}

static cudpo_status differ(control *c, job *j, int rank)
{
    int64_t word = 0, all[JOB_RANKS];
    (void)j;
    return rank == 1 ? control_broadcast(c, &word, sizeof word, "resume")
                     : control_exchange(c, all, &word, sizeof word, "save");
}

static cudpo_status differ_in_size(control *c, job *j, int rank)
{
    int64_t word[2] = {0}, all[JOB_RANKS * 2];
    (void)j;
    return control_exchange(c, all, word, rank == 1 ? 16 : 8, "word");
}

/* Ranks 1 and 2 have more than is allowed together; only the first bytes of it are ever sent. */
static cudpo_status collect_too_much(control *c, job *j, int rank)
{
    const size_t n = rank == 0 ? 8 : (size_t)600 << 20;
    void *all, *mine = calloc(n, 1);
    size_t begin[JOB_RANKS + 1];
    (void)j;
    if (mine == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "test");
    const cudpo_status s = control_collect(c, &all, begin, mine, n, "rows");
    free(mine);
    return s;
}

static void ranks_in_different_calls(void **state)
{
    const struct {
        job_part part;
        const char *text;
    } cases[] = {
        {differ, "ranks out of step: rank 1 is at 'resume' while rank 0 is at 'save'"},
        {differ_in_size, "ranks out of step: rank 1 has 16 bytes at 'word' and rank 0 has 8"},
        {collect_too_much, "have more than 1 GiB at 'rows'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = job_make(3);
        job_start_all(&j, cases[i].part);
        for (int r = 0; r < 3; r++)
            job_expect(&j, r, CUDPO_EPEER, cases[i].text);
        job_free(&j);
    }
}

/* All ranks of a job end alike, with both of these in their messages. */
static void expect_all(job *j, const char *text, const char *more)
{
    for (int r = 0; r < j->size; r++) {
        job_expect(j, r, CUDPO_EPEER, text);
        if (strstr(j->page->rank[r].message, more) == NULL)
            fail_msg("no \"%s\" in: %s", more, j->page->rank[r].message);
    }
    job_free(j);
}

/* One is busy for ever, though its heartbeats go on; `go` says which. */
static cudpo_status one_does_not_come(control *c, job *j, int rank)
{
    if (rank != atomic_load(&j->page->go)) return control_barrier(c, "save");
    control_waits(c, "all_reduce", 3, 2);
    control_waits(c, NULL, 0, 0);
    return job_wait_for_failure(c, j);
}

static void who_does_not_come_is_named(void **state)
{
    job jobs[3];
    (void)state;
    for (int absent = 0; absent < 3; absent++) {
        jobs[absent] = job_make(3);
        jobs[absent].options.peer_timeout = 1;
        atomic_store(&jobs[absent].page->go, absent);
        job_start_all(&jobs[absent], one_does_not_come);
    }
    for (int absent = 0; absent < 3; absent++) {
        char text[128];
        snprintf(text, sizeof text, "rank %d did not come: others wait at 'save' for", absent);
        expect_all(&jobs[absent], text, "was last heard of at step 2");
    }
}

/* In a collective that is none of control's: only what control_waits() said tells who is behind. */
static cudpo_status one_is_behind(control *c, job *j, int rank)
{
    const bool behind = rank == atomic_load(&j->page->go);
    control_waits(c, "all_reduce", 40, 12);
    control_waits(c, behind ? NULL : "all_reduce", 41, 12);
    return job_wait_for_failure(c, j);
}

static void who_is_behind_is_named(void **state)
{
    job jobs[4];
    (void)state;
    for (int absent = 0; absent < 4; absent++) { /* 3: nobody */
        jobs[absent] = job_make(3);
        jobs[absent].options.peer_timeout = 1;
        atomic_store(&jobs[absent].page->go, absent);
        job_start_all(&jobs[absent], one_is_behind);
    }
    for (int absent = 0; absent < 4; absent++) {
        char text[128];
        snprintf(text, sizeof text, "rank %d did not come: rank ", absent);
        expect_all(&jobs[absent], absent == 3 ? "all ranks: stand still" : text,
                   " at step 12 in all_reduce 41");
    }
}

/* When a whole machine stood still, nobody is to blame; and half of the limit is no reason to end one that did alone. */
static cudpo_status waits_for_go(control *c, job *j, int rank)
{
    (void)rank;
    CUDPO_TRY(control_barrier(c, "start"));
    atomic_fetch_add(&j->page->ready, 1);
    if (!job_reach(&j->page->go, 1)) return cudpo_fail(CUDPO_EDATA, "test", "no go");
    return control_barrier(c, "end");
}

static void some_stops_are_forgiven(void **state)
{
    const struct {
        bool victims[3];
        double peer_timeout;
    } cases[] = {
        {{true, true, true}, 1},
        {{true, false, false}, 4},
        {{false, false, true}, 4},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    job jobs[CASES];
    (void)state;
    for (int k = 0; k < CASES; k++) {
        jobs[k] = job_make(3);
        jobs[k].options.peer_timeout = cases[k].peer_timeout;
        job_start_all(&jobs[k], waits_for_go);
        assert_true(job_reach(&jobs[k].page->ready, 3));
        for (int r = 0; r < 3; r++)
            if (cases[k].victims[r]) kill(jobs[k].pid[r], SIGSTOP);
    }
    job_sleep(2);
    for (int k = 0; k < CASES; k++)
        for (int r = 0; r < 3; r++)
            kill(jobs[k].pid[r], SIGCONT);
    job_sleep(0.5); /* that they judge one another */
    for (int k = 0; k < CASES; k++) {
        atomic_store(&jobs[k].page->go, 1);
        for (int r = 0; r < 3; r++)
            job_expect(&jobs[k], r, CUDPO_OK, "");
        job_free(&jobs[k]);
    }
}

static cudpo_status tells_secret(control *c, job *j, int rank)
{
    memcpy(j->page->rank[rank].extra, control_secret(c), CONTROL_SECRET);
    snprintf(j->page->rank[rank].extra + CONTROL_SECRET, 64, "%s", control_address(c));
    return control_rank(c) == rank && control_size(c) == j->size
               ? CUDPO_OK
               : cudpo_fail(CUDPO_EDATA, "rank", "%d of %d", (int)control_rank(c),
                            (int)control_size(c));
}

static void all_know_the_secret(void **state)
{
    char before[CONTROL_SECRET] = {0};
    (void)state;
    for (int size = 1; size <= 3; size++) {
        job j = job_make(size);
        job_start_all(&j, tells_secret);
        for (int r = 0; r < size; r++) {
            job_expect(&j, r, CUDPO_OK, "");
            assert_memory_equal(j.page->rank[r].extra, j.page->rank[0].extra, CONTROL_SECRET);
            assert_string_equal(j.page->rank[r].extra + CONTROL_SECRET, "127.0.0.1");
        }
        assert_memory_not_equal(j.page->rank[0].extra, before, CONTROL_SECRET);
        memcpy(before, j.page->rank[0].extra, CONTROL_SECRET);
        job_free(&j);
    }
}

static void one_rank_alone(void **state)
{
    const placement p = {.size = 1};
    const control_options o = {
        .place = &p, .build = "test", .join_timeout = 1, .peer_timeout = 1, .grace = 1};
    control *c;
    int32_t mine = 5, all = 0;
    size_t begin[2];
    void *block;
    (void)state;
    CHECK_OK(control_open(&c, &o));
    CHECK_OK(control_exchange(c, &all, &mine, sizeof mine, "x"));
    assert_int_equal(all, 5);
    CHECK_OK(control_collect(c, &block, begin, &mine, sizeof mine, "x"));
    assert_int_equal(begin[1], sizeof mine);
    assert_memory_equal(block, &mine, sizeof mine);
    free(block);
    CHECK_OK(control_broadcast(c, &mine, sizeof mine, "x"));
    CHECK_OK(control_barrier(c, "x"));
    control_waits(c, "all_reduce", 1, 1);
    control_set_watch(c, NULL);
    CHECK_OK(control_status(c));
    control_abort(c, CUDPO_ENUMERIC, "nobody hears it");
    control_close(c);
    control_close(NULL);
    control_abort(NULL, CUDPO_ENUMERIC, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_alone),
        cmocka_unit_test(all_know_what_all_gave),
        cmocka_unit_test(parts_of_any_length),
        cmocka_unit_test(all_know_the_secret),
        cmocka_unit_test(goodbyes_overtake_nothing),
        cmocka_unit_test(a_goodbye_is_no_loss),
        cmocka_unit_test(an_end_without_goodbye_is_a_loss),
        cmocka_unit_test(a_killed_rank_ends_all),
        cmocka_unit_test(a_stopped_rank_ends_all),
        cmocka_unit_test(some_stops_are_forgiven),
        cmocka_unit_test(a_failure_ends_all_with_its_reason),
        cmocka_unit_test(ranks_in_different_calls),
        cmocka_unit_test(who_does_not_come_is_named),
        cmocka_unit_test(who_is_behind_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
