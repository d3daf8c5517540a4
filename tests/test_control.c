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
    const size_t large = 5000001;
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

static void a_killed_rank_ends_all(void **state)
{
    double worst = 0;
    (void)state;
    for (int trial = 0; trial < 20; trial++) {
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
    printf("SIGKILL noticed by all others within %.1f ms (worst of 20)\n", worst * 1e3);
    assert_true(worst < 2);
}

static void a_stopped_rank_ends_all(void **state)
{
    (void)state;
    for (int victim = 0; victim < 3; victim++) {
        char text[64];
        job j = job_make(3);
        j.options.peer_timeout = 1;
        job_start_all(&j, waits);
        assert_true(job_reach(&j.page->ready, 3));
        const double stopped = job_clock();
        kill(j.pid[victim], SIGSTOP);
        snprintf(text, sizeof text, "rank %d was lost: nothing was heard of it for", victim);
        for (int r = 0; r < 3; r++) {
            if (r == victim) continue;
            job_expect(&j, r, CUDPO_EPEER, text);
            const double took = j.page->rank[r].noticed - stopped;
            printf("SIGSTOP of rank %d noticed by rank %d after %.2f s of 1 s\n", victim, r, took);
            assert_true(took > 0.5 && took < 3); /* the last heartbeat may be 0.2 s old */
        }
        job_free(&j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_know_what_all_gave),
        cmocka_unit_test(parts_of_any_length),
        cmocka_unit_test(a_killed_rank_ends_all),
        cmocka_unit_test(a_stopped_rank_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
