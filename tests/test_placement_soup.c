/* test_placement_soup.c - variables of all launchers beside one another, whether they make sense or not. */
/* rooms: dist base */
#include "test_placement.h"
#include "base/rng.h"

enum { SOUPS = 5000 };

static uint64_t drawn;

static int below(int n)
{
    return (int)rng_below(99, 0, drawn++, n);
}

/* Whatever variables stand beside one another: an error, or a rank that two of them name. */
static void takes_no_rank_from_nowhere(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"RANK", "WORLD_SIZE"},
                                           {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
                                           {"SLURM_PROCID", "SLURM_NTASKS"},
                                           {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                           {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"},
                                           {"PMI_RANK", "PMI_SIZE"},
                                           {"PET_NODE_RANK", "PET_NNODES"},
                                           {"JOB_COMPLETION_INDEX", "WORLD_SIZE"}};
    static const char *const others[] = {"LOCAL_RANK",          "LOCAL_WORLD_SIZE",
                                         "GROUP_RANK",          "GROUP_WORLD_SIZE",
                                         "ROLE_RANK",           "ROLE_WORLD_SIZE",
                                         "MASTER_ADDR",         "MASTER_PORT",
                                         "SLURM_STEP_ID",       "SLURM_JOB_ID",
                                         "SLURM_LOCALID",       "SLURM_NODEID",
                                         "SLURM_GTIDS",         "SLURM_STEP_TASKS_PER_NODE",
                                         "PMIX_RANK",           "PMIX_NAMESPACE",
                                         "PMI_JOBID",           "MPI_LOCALRANKID",
                                         "MPI_LOCALNRANKS",     "NPROC_PER_NODE",
                                         "PET_NPROC_PER_NODE",  "TORCHELASTIC_RUN_ID",
                                         "CUDA_VISIBLE_DEVICES"};
    enum { PAIRS = sizeof pairs / sizeof *pairs, OTHERS = sizeof others / sizeof *others };
    static environment e;
    int found = 0, alone = 0;
    for (int i = 0; i < SOUPS; i++) {
        placement p;
        e.n = 0;
        for (int k = 1 + below(3); k > 0; k--) { /* small numbers, so that some fit */
            const int j = below(PAIRS);
            if (below(8) > 0) environment_number(&e, pairs[j][0], below(3));
            if (below(8) > 0) environment_number(&e, pairs[j][1], 1 + below(3));
        }
        for (int k = below(12); k > 0; k--)
            environment_number(&e, others[below(OTHERS)], below(3));
        cudpo_error_clear();
        const cudpo_status status = placement_find(&p, &no_wish, environment_get, &e);
        if (status != CUDPO_OK) {
            assert_int_equal(status, CUDPO_ECONFIG);
            assert_true(cudpo_error_message()[0] != '\0' && p.size == 0);
            continue;
        }
        bool named = p.launcher == LAUNCHER_NONE && p.size == 1 && p.rank == 0;
        alone += named;
        for (int j = 0; j < PAIRS && !named; j++) {
            const char *rank = environment_find(&e, pairs[j][0]);
            const char *size = environment_find(&e, pairs[j][1]);
            named = rank != NULL && size != NULL && atoi(rank) == p.rank && atoi(size) == p.size;
        }
        if (p.launcher == LAUNCHER_PMIX && p.size == 0)
            named = atoi(environment_find(&e, "PMIX_RANK")) == p.rank;
        assert_true(named && (p.size == 0 || p.rank < p.size));
        assert_true(p.local_rank < (p.local_size > 0 ? p.local_size : MAX_RANKS));
        assert_true(p.size == 1 || p.port > 0 || p.pmix);
        found++;
    }
    cudpo_error_clear();
    printf("%d of %d environments gave a rank, %d of them one process\n", found, SOUPS, alone);
    assert_true(found - alone > SOUPS / 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(takes_no_rank_from_nowhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
