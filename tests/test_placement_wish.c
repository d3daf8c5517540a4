/* test_placement_wish.c - the command line's part in a placement, PMIx's, and what is derived and said of it. */
/* rooms: dist base */
#include "test_placement.h"

static void does_what_the_command_line_says(void **state)
{
    (void)state;
    placement p;
    placement_wish wish = no_wish;
    wish.rank = 1;
    CHECK_FAILS(placement_of(&p, "", &wish), CUDPO_ECONFIG, "--world_size: is missing");
    wish.world_size = 2;
    CHECK_FAILS(placement_of(&p, "", &wish), CUDPO_ECONFIG, "--rdzv_endpoint HOST:PORT");
    wish.rdzv_endpoint = "[fe80::1]:29500";
    wish.rdzv_id = "run-7";
    CHECK_OK(placement_of(&p, "", &wish));
    assert_int_equal(p.launcher, LAUNCHER_FLAGS);
    assert_string_equal(p.address, "fe80::1");
    assert_int_equal(p.port, 29500);
    assert_string_equal(p.run_id, "run-7");
    assert_int_equal(p.local_rank, 0);
    /* Several GPUs and no word of which. */
    wish.gpus = 4;
    CHECK_FAILS(placement_of(&p, "", &wish), CUDPO_ECONFIG,
                "--rank: is set without a local rank, and 4");
    CHECK_OK(placement_of(&p, "CUDA_VISIBLE_DEVICES=3", &wish));
    wish.local_rank = 1;
    CHECK_OK(placement_of(&p, "", &wish));
    assert_int_equal(p.local_rank, 1);
    /* What contradicts it. */
    CHECK_FAILS(
        placement_of(&p, "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", &wish), CUDPO_ECONFIG,
        "--rank: is 1 and --world_size 2 by the command line, but by the environment RANK is");
    CHECK_FAILS(placement_of(&p, srun_nodes, &wish), CUDPO_ECONFIG, "too few");
    wish.launcher = "flags";
    CHECK_OK(placement_of(&p, srun_nodes, &wish));
    wish.launcher = "slurm";
    CHECK_FAILS(placement_of(&p, srun_nodes, &wish), CUDPO_ECONFIG, "goes without --rank");
    /* Several processes that are started by hand within one interactive task. */
    wish.launcher = NULL;
    environment e = {0};
    environment_add(&e, array_srun);
    CHECK_OK(placement_find(&p, &wish, environment_get, &e));
    assert_int_equal(p.rank, 1);

    static const char *const bad[] = {"",
                                      ":1",
                                      "h",
                                      "h:",
                                      "h:0",
                                      "h:65536",
                                      "h:-1",
                                      "h:1x",
                                      "::1:5",
                                      "[::1]5",
                                      "a b:1",
                                      "h\x1b[1m:1",
                                      "h:99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wish.rdzv_endpoint = bad[i];
        CHECK_FAILS(placement_of(&p, "", &wish), CUDPO_ECONFIG, "--rdzv_endpoint");
    }
}

static void obeys_the_launcher_option(void **state)
{
    (void)state;
    placement p;
    placement_wish wish = no_wish;
    for (int i = 0; i < LAUNCHERS; i++) {
        wish.launcher = launcher_names[i];
        if (i == LAUNCHER_NONE)
            CHECK_OK(placement_of(&p, "", &wish));
        else
            CHECK_FAILS(placement_of(&p, "", &wish), CUDPO_ECONFIG,
                        "was asked for and is not there");
    }
    wish.launcher = "trochrun";
    CHECK_FAILS(placement_of(&p, "", &wish), CUDPO_ECONFIG, "did you mean torchrun?");
    wish.launcher = "none";
    CHECK_OK(placement_of(&p, srun_nodes, &wish));
    assert_int_equal(p.size, 1);
    wish.launcher = "slurm";
    CHECK_OK(placement_of(&p, srun_torchrun, &wish));
    assert_int_equal(p.launcher, LAUNCHER_SLURM);
    wish.launcher = "mpi";
    wish.rdzv_endpoint = "h:1";
    CHECK_OK(placement_of(&p, mpirun_node, &wish));
    assert_int_equal(p.launcher, LAUNCHER_MPI);
    wish.launcher = "kubernetes";
    CHECK_OK(placement_of(&p, INDEXED_PODS "RANK=1 LOCAL_RANK=1", &wish));
    assert_int_equal(p.rank, 3);
    wish.launcher = "torchrun";
    CHECK_FAILS(placement_of(&p, "RANK=1 WORLD_SIZE=2", &wish), CUDPO_ECONFIG, "is not there");
    wish.local_rank = 1;
    CHECK_OK(placement_of(&p, "RANK=1 WORLD_SIZE=2", &wish));
    assert_int_equal(p.local_rank, 1);
    /* Half of what others set does not matter then. */
    wish.launcher = "none";
    wish.local_rank = -1;
    CHECK_OK(placement_of(&p, "RANK=x SLURM_PROCID=3 PMIX_RANK=-5", &wish));
    assert_int_equal(p.size, 1);
}

/* Ids of jobs that run at once are near one another: their ports are not, and hardly ever the same. */
static void derives_ports(void **state)
{
    (void)state;
    enum { JOBS = 200 };
    int32_t port[JOBS];
    int same = 0, near = 0;
    for (int i = 0; i < JOBS; i++) {
        environment e = {0};
        placement p;
        environment_add(&e, srun_nodes);
        environment_number(&e, "SLURM_JOB_ID", 4711000 + i);
        CHECK_OK(placement_find(&p, &no_wish, environment_get, &e));
        port[i] = p.port;
        for (int j = 0; j < i; j++) {
            same += port[i] == port[j];
            near += abs(port[i] - port[j]) < 100;
        }
        environment_set(&e, "SLURM_STEP_ID", "1");
        CHECK_OK(placement_find(&p, &no_wish, environment_get, &e));
        assert_int_not_equal(p.port, port[i]);
        environment_set(&e, "MASTER_PORT", "1234");
        environment_set(&e, "MASTER_ADDR", "login");
        CHECK_OK(placement_find(&p, &no_wish, environment_get, &e));
        assert_int_equal(p.port, 1234);
        assert_false(p.derived);
        assert_string_equal(p.address, "login");
    }
    /* Of 19,900 pairs 0.5 are expected to be the same among 40,000 ports, and 99 to be nearer than 100. */
    if (same > 5 || near > 200) fail_msg("%d of the same port, %d near", same, near);
    /* All ranks derive the same, whatever rank they are. */
    placement a, b;
    environment e = {0};
    environment_add(&e, srun_nodes);
    CHECK_OK(placement_find(&a, &no_wish, environment_get, &e));
    environment_set(&e, "SLURM_PROCID", "0");
    environment_set(&e, "SLURM_NODEID", "0");
    environment_set(&e, "SLURM_GTIDS", "0,1");
    CHECK_OK(placement_find(&b, &no_wish, environment_get, &e));
    assert_int_equal(a.port, b.port);
    assert_string_equal(a.address, b.address);
    assert_string_equal(a.run_id, b.run_id);
    /* A restart of the job is another attempt. */
    environment_set(&e, "SLURM_RESTART_COUNT", "2");
    CHECK_OK(placement_find(&b, &no_wish, environment_get, &e));
    assert_int_equal(b.restarts, 2);
    assert_string_equal(b.run_id, "slurm-2.0-2");
    /* Rank 0 somewhere else than on the first host. */
    environment_set(&e, "SLURM_NODEID", "1");
    environment_set(&e, "SLURM_GTIDS", "0");
    CHECK_FAILS(placement_find(&b, &no_wish, environment_get, &e), CUDPO_ECONFIG, "MASTER_ADDR");
}

static void is_completed_by_pmix(void **state)
{
    (void)state;
    placement p, before;
    CHECK_OK(placement_of(&p, "PMIX_RANK=5 PMIX_NAMESPACE=n", &no_wish));
    before = p;
    CHECK_FAILS(placement_complete(&p, 5, 1, 2, 0), CUDPO_ECONFIG, "PMIX_RANK: is 5");
    CHECK_FAILS(placement_complete(&p, 70000, 1, 2, 0), CUDPO_ECONFIG, "PMIX_JOB_SIZE");
    CHECK_FAILS(placement_complete(&p, 8, 2, 2, 0), CUDPO_ECONFIG, "PMIX_LOCAL_RANK");
    CHECK_FAILS(placement_complete(&p, 8, -1, 2, 0), CUDPO_ECONFIG, "PMIX_LOCAL_RANK");
    assert_memory_equal(&p, &before, sizeof p);
    CHECK_OK(placement_complete(&p, 8, 1, 2, 2));
    assert_int_equal(p.rank, 5);
    assert_int_equal(p.size, 8);
    assert_int_equal(p.local_rank, 1);
    assert_int_equal(p.local_size, 2);
    assert_int_equal(p.node, 2);
    CHECK_FAILS(placement_complete(&p, 8, 1, 2, 2), CUDPO_EINVAL, "need");
    placement_wish wish = no_wish;
    wish.local_rank = 3;
    CHECK_OK(placement_of(&p, "PMIX_RANK=5 PMIX_NAMESPACE=n", &wish));
    CHECK_FAILS(placement_complete(&p, 8, 1, 2, 0), CUDPO_ECONFIG, "--local_rank: is 3");
    /* A foreign PMIx that says no size, within a step of several tasks: which one is within the other? */
    environment e = {0};
    environment_add(&e, srun_nodes);
    environment_add(&e, "PMIX_RANK=0 PMIX_NAMESPACE=prterun-1");
    CHECK_FAILS(placement_find(&p, &no_wish, environment_get, &e), CUDPO_ECONFIG,
                "which one is within the other");
}

static void says_it_in_a_sentence(void **state)
{
    (void)state;
    static const char *const all[][2] = {
        {srun_nodes, "rank 2 of 3 (slurm step 2.0), local rank 0 of 1, rank 0 at n0:"},
        {mpirun_node, "rank 1 of 2 (mpirun, PMIx 2042626049), local rank 1 of 2, rank 0 where "
                      "PMIx says"},
        {"PMIX_RANK=5 PMIX_NAMESPACE=n", "rank 5 of as many as PMIx says (PMIx n), rank 0 where"},
        {SET_BY_HAND, "rank 1 of 2 (RANK of the environment), local rank 1, rank 0 at h:5"},
        {"", "one process: none of torchrun, Slurm, PMIx, mpirun, Kubernetes is in the"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        placement p;
        char text[PLACEMENT_SENTENCE];
        CHECK_OK(placement_of(&p, all[i][0], &no_wish));
        placement_sentence(text, &p);
        if (strncmp(text, all[i][1], strlen(all[i][1])) != 0) fail_msg("%s", text);
    }
    const placement_wish wish = placement_wish_of(NULL);
    assert_int_equal(wish.rank, -1);
    assert_null(wish.launcher);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_what_the_command_line_says),
        cmocka_unit_test(obeys_the_launcher_option), cmocka_unit_test(derives_ports),
        cmocka_unit_test(is_completed_by_pmix), cmocka_unit_test(says_it_in_a_sentence)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
