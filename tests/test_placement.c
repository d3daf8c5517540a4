/* test_placement.c - which rank a process is, by what launchers leave in its environment. */
/* rooms: dist base */
#include "test_placement.h"

/* What is found in an environment; a port of -1 is one that is derived. */
typedef struct found {
    const char *environment;
    launcher launcher;
    int rank, size, local_rank, local_size, node;
    const char *address;
    int port;
    bool pmix;
    const char *run_id, *source;
} found;

static void check_found(const found *want, const placement_wish *wish)
{
    placement p;
    cudpo_error_clear();
    if (placement_of(&p, want->environment, wish) != CUDPO_OK)
        fail_msg("%s: %s", want->environment, cudpo_error_message());
    if (p.launcher != want->launcher || p.rank != want->rank || p.size != want->size ||
        p.local_rank != want->local_rank || p.local_size != want->local_size ||
        p.node != want->node || strcmp(p.address, want->address) != 0 || p.pmix != want->pmix ||
        strcmp(p.run_id, want->run_id) != 0 || strcmp(p.source, want->source) != 0 ||
        p.derived != (want->port == -1) || (!p.derived && p.port != want->port))
        fail_msg("%s\nfound %s %d of %d, local %d of %d, node %d, \"%s\":%d%s%s, run %s, source %s",
                 want->environment, launcher_names[p.launcher], (int)p.rank, (int)p.size,
                 (int)p.local_rank, (int)p.local_size, (int)p.node, p.address, (int)p.port,
                 p.derived ? " derived" : "", p.pmix ? " pmix" : "", p.run_id, p.source);
    if (p.derived) assert_in_range(p.port, 20000, 59999);
}

static void finds_what_launchers_left(void **state)
{
    (void)state;
    static const found all[] = {
        {torchrun_standalone, LAUNCHER_TORCHRUN, 1, 2, 1, 2, 0, "localhost", -1, false,
         "torchrun-766ab63f-9627-4c8a-9181-749c53838455-0",
         "torchrun 766ab63f-9627-4c8a-9181-749c53838455"},
        {torchrun_nodes, LAUNCHER_TORCHRUN, 2, 4, 0, 2, 1, "127.0.0.1", -1, false, "torchrun-none",
         "torchrun none"},
        {srun_torchrun, LAUNCHER_TORCHRUN, 2, 4, 0, 2, 1, "localhost", -1, false, "torchrun-job7",
         "torchrun job7"},
        {srun_node, LAUNCHER_SLURM, 1, 2, 1, 2, 0, "127.0.0.1", -1, false, "slurm-1.0-0",
         "slurm step 1.0"},
        {srun_nodes, LAUNCHER_SLURM, 2, 3, 0, 1, 1, "n0", -1, false, "slurm-2.0-0",
         "slurm step 2.0"},
        {srun_pmix, LAUNCHER_SLURM, 1, 2, 0, 1, 1, "n0", -1, true, "slurm-3.0-0", "slurm step 3.0"},
        {srun_pmi2, LAUNCHER_SLURM, 1, 2, 0, 1, 1, "n0", -1, false, "slurm-4.0-0",
         "slurm step 4.0"},
        {sbatch_shell, LAUNCHER_NONE, 0, 1, 0, 1, 0, "", 0, false, "",
         "Slurm job 6, and no step of it: srun starts ranks"},
        {salloc_shell, LAUNCHER_NONE, 0, 1, 0, 1, 0, "", 0, false, "",
         "Slurm job 5, and no step of it: srun starts ranks"},
        {interactive_shell, LAUNCHER_NONE, 0, 1, 0, 1, 0, "", 0, false, "",
         "Slurm job 1, and no step of it: srun starts ranks"},
        {interactive_srun, LAUNCHER_SLURM, 1, 2, 1, 2, 0, "127.0.0.1", -1, false, "slurm-1.0-0",
         "slurm step 1.0"},
        {srun_of_sbatch, LAUNCHER_SLURM, 1, 2, 0, 1, 1, "n0", -1, false, "slurm-6.0-0",
         "slurm step 6.0"},
        {array_shell, LAUNCHER_NONE, 0, 1, 0, 1, 0, "", 0, false, "",
         "Slurm job 7, and no step of it: srun starts ranks"},
        {array_srun, LAUNCHER_SLURM, 0, 1, 0, 1, 0, "", 0, false, "slurm-8.0-0", "slurm step 8.0"},
        {heterogeneous, LAUNCHER_SLURM, 1, 2, 0, 1, 1, "n0", -1, false, "slurm-9.0-0",
         "slurm step 9.0"},
        {sbatch_of_srun, LAUNCHER_SLURM, 0, 1, 0, 1, 0, "", 0, false, "slurm-2.0-0",
         "slurm step 2.0"},
        {mpirun_node, LAUNCHER_PMIX, 1, 2, 1, 2, -1, "", 0, true, "pmix-2042626049",
         "mpirun, PMIx 2042626049"},
        {sbatch_mpirun, LAUNCHER_PMIX, 2, 4, 0, 2, -1, "", 0, true, "pmix-932577281",
         "mpirun, PMIx 932577281"},
        {sbatch_mpirun_alike, LAUNCHER_PMIX, 1, 2, 1, 2, -1, "", 0, true, "pmix-936771585",
         "mpirun, PMIx 936771585"},
        {srun_mpirun, LAUNCHER_PMIX, 1, 2, 1, 2, -1, "", 0, true, "pmix-1811873793",
         "mpirun, PMIx 1811873793"},
        {srun_in_srun, LAUNCHER_SLURM, 1, 2, 1, 2, 0, "127.0.0.1", -1, false, "slurm-2.2-0",
         "slurm step 2.2"},
        {"", LAUNCHER_NONE, 0, 1, 0, 1, 0, "", 0, false, "",
         "none of torchrun, Slurm, PMIx, mpirun, Kubernetes is in the environment"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check_found(&all[i], &no_wish);
    assert_true(sizeof all / sizeof *all > 20);
}

/* As their documentation and sources have it. */
static void finds_what_others_set(void **state)
{
    (void)state;
    static const found all[] = {
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 GROUP_RANK=0 MASTER_ADDR=h "
         "MASTER_PORT=1234 TORCHELASTIC_RESTART_COUNT=3 TORCHELASTIC_RUN_ID=j "
         "TORCHELASTIC_USE_AGENT_STORE=False", /* torch 1.13 */
         LAUNCHER_TORCHRUN, 1, 2, 1, 2, 0, "h", 1234, false, "torchrun-j-3", "torchrun j"},
        {SET_BY_HAND, LAUNCHER_TORCHRUN, 1, 2, 1, 0, -1, "h", 5, false, "",
         "RANK of the environment"},
        {"RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=5 JOB_COMPLETION_INDEX=1", /* PyTorchJob */
         LAUNCHER_KUBERNETES, 1, 2, 0, 1, 1, "h", 5, false, "", "pod 1 of the Indexed Job"},
        {"RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=5", LAUNCHER_TORCHRUN, 1, 2, 0, 0, -1, "h",
         5, false, "", "RANK of the environment"},
        {"RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=5 CUDA_VISIBLE_DEVICES=0,-1,1",
         LAUNCHER_TORCHRUN, 1, 2, 0, 0, -1, "h", 5, false, "", "RANK of the environment"},
        {KUBEFLOW_PODS "PET_NPROC_PER_NODE=1", LAUNCHER_KUBERNETES, 1, 2, 0, 1, 1,
         "job-node-0-0.job", 29500, false, "", "pod 1 of Kubeflow"},
        {KUBEFLOW_PODS "PET_NPROC_PER_NODE=auto CUDA_VISIBLE_DEVICES=0", LAUNCHER_KUBERNETES, 1, 2,
         0, 1, 1, "job-node-0-0.job", 29500, false, "", "pod 1 of Kubeflow"},
        {INDEXED_PODS, LAUNCHER_KUBERNETES, 3, 4, 0, 1, 3, "job-0.job", 29500, false, "",
         "pod 3 of the Indexed Job"},
        {"JOB_COMPLETION_INDEX=3", LAUNCHER_NONE, 0, 1, 0, 1, 0, "", 0, false, "",
         "none of torchrun, Slurm, PMIx, mpirun, Kubernetes is in the environment"},
        {"MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_LOCAL_RANK=0 "
         "MV2_COMM_WORLD_LOCAL_SIZE=1 PMI_RANK=1 PMI_SIZE=2 MASTER_ADDR=h MASTER_PORT=5",
         LAUNCHER_MPI, 1, 2, 0, 1, -1, "h", 5, false, "", "mpirun of MVAPICH"},
        {"PMIX_RANK=5 PMIX_NAMESPACE=prterun-h-1@1", LAUNCHER_PMIX, 5, 0, -1, 0, -1, "", 0, true,
         "pmix-prterun-h-1@1", "PMIx prterun-h-1@1"},
        {"PMIX_RANK=5 PMIX_NAMESPACE=slurm.pmix.7.0", /* a container that hides SLURM_* */
         LAUNCHER_PMIX, 5, 0, -1, 0, -1, "", 0, true, "pmix-slurm.pmix.7.0",
         "PMIx slurm.pmix.7.0"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check_found(&all[i], &no_wish);
}

static void takes_the_inner_launcher(void **state)
{
    (void)state;
    placement p;
    char text[4096];
    /* Ranks of hydra within a step; it tells no address. */
    CHECK_FAILS(placement_of(&p, sbatch_hydra, &no_wish), CUDPO_ECONFIG, "MASTER_ADDR: is missing");
    snprintf(text, sizeof text, "%s MASTER_ADDR=n0 MASTER_PORT=7", sbatch_hydra);
    CHECK_OK(placement_of(&p, text, &no_wish));
    assert_int_equal(p.rank, 2);
    assert_int_equal(p.size, 3);
    assert_int_equal(p.launcher, LAUNCHER_MPI);
    snprintf(text, sizeof text, "%s MASTER_ADDR=n0 MASTER_PORT=7", hydra_node);
    CHECK_OK(placement_of(&p, text, &no_wish));
    assert_int_equal(p.local_rank, 1);
    assert_int_equal(p.local_size, 2);
    /* One rank of an outer mpirun, in each of which srun started two tasks: its OMPI_* are 0 of 1 in both. */
    CHECK_FAILS(placement_of(&p, mpirun_srun, &no_wish), CUDPO_ECONFIG,
                "take itself for the only one");
    placement_wish wish = no_wish;
    wish.launcher = "slurm";
    CHECK_OK(placement_of(&p, mpirun_srun, &wish));
    assert_int_equal(p.rank, 1);
    assert_int_equal(p.size, 2);
    wish.launcher = "pmix";
    CHECK_OK(placement_of(&p, mpirun_srun, &wish));
    assert_int_equal(p.size, 1);
    /* torchrun that was not told of the other tasks; by hand, with the step's numbers, and not. */
    snprintf(text, sizeof text, "%s RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 TORCHELASTIC_RUN_ID=x",
             srun_nodes);
    CHECK_FAILS(placement_of(&p, text, &no_wish), CUDPO_ECONFIG, "take itself for the only one");
    snprintf(text, sizeof text, "%s RANK=2 WORLD_SIZE=3 LOCAL_RANK=0 MASTER_ADDR=h MASTER_PORT=5",
             srun_nodes);
    CHECK_OK(placement_of(&p, text, &no_wish));
    assert_int_equal(p.launcher, LAUNCHER_TORCHRUN);
    snprintf(text, sizeof text, "%s RANK=0 WORLD_SIZE=3 LOCAL_RANK=0 MASTER_ADDR=h MASTER_PORT=5",
             srun_nodes);
    CHECK_FAILS(placement_of(&p, text, &no_wish), CUDPO_ECONFIG,
                "RANK: is 0 and WORLD_SIZE 3 by the environment");
    snprintf(text, sizeof text, "%s RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", srun_nodes);
    CHECK_FAILS(placement_of(&p, text, &no_wish), CUDPO_ECONFIG, "too few");
    snprintf(text, sizeof text, "%s RANK=2 WORLD_SIZE=3", srun_nodes);
    CHECK_OK(placement_of(&p, text, &no_wish));
    assert_int_equal(p.launcher, LAUNCHER_SLURM);
    snprintf(text, sizeof text, "%s WORLD_SIZE=4", srun_nodes);
    CHECK_FAILS(placement_of(&p, text, &no_wish), CUDPO_ECONFIG,
                "WORLD_SIZE: is 4, and by the Slurm step");
    /* torchrun in a pod, whose PET_* are its options. */
    CHECK_OK(placement_of(&p,
                          KUBEFLOW_PODS
                          "PET_NPROC_PER_NODE=8 TORCHELASTIC_RUN_ID=x RANK=9 WORLD_SIZE=16 "
                          "LOCAL_RANK=1 MASTER_ADDR=h MASTER_PORT=5",
                          &no_wish));
    assert_int_equal(p.rank, 9);
    /* torchrun in a step of one task in a pod, whose WORLD_SIZE is no longer the Indexed Job's. */
    CHECK_OK(placement_of(&p,
                          "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 TORCHELASTIC_RUN_ID=x MASTER_ADDR=h "
                          "MASTER_PORT=5 JOB_COMPLETION_INDEX=1 SLURM_JOB_ID=1 SLURM_STEP_ID=0 "
                          "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 SLURM_LOCALID=0 SLURM_NODEID=0 "
                          "SLURM_STEP_TASKS_PER_NODE=1",
                          &no_wish));
    assert_int_equal(p.launcher, LAUNCHER_TORCHRUN);
}

/* An environment, and what is said of it. */
typedef struct refusal {
    const char *environment, *message;
} refusal;

static void refuses(void **state)
{
    (void)state;
    static const refusal all[] = {
        {"RANK=2 WORLD_SIZE=2 LOCAL_RANK=0", "RANK: is 2 and WORLD_SIZE is 2: ranks count from 0"},
        {"RANK=0 WORLD_SIZE=0 LOCAL_RANK=0", "WORLD_SIZE: is 0"},
        {"RANK=0 WORLD_SIZE=65537 LOCAL_RANK=0", "65536 ranks are the most"},
        {"RANK=-1 WORLD_SIZE=2 LOCAL_RANK=0", "RANK: \"-1\" is no whole number"},
        {"RANK=1.0 WORLD_SIZE=2 LOCAL_RANK=0", "RANK: \"1.0\" is no whole number"},
        {"RANK=0x1 WORLD_SIZE=2 LOCAL_RANK=0", "RANK: \"0x1\" is no whole number"},
        {"RANK= WORLD_SIZE=2 LOCAL_RANK=0", "RANK: \"\" is no whole number"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=4", "LOCAL_WORLD_SIZE: is 4"},
        {"RANK=1 WORLD_SIZE=8 LOCAL_RANK=4 LOCAL_WORLD_SIZE=4", "LOCAL_RANK: is 4"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=0 ROLE_RANK=0", "RANK: 1 of 2"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 ROLE_WORLD_SIZE=3", "RANK: 1 of 2"},
        {"RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 GROUP_RANK=0 GROUP_WORLD_SIZE=2",
         "RANK: 5 of 8"},
        {"RANK=0 WORLD_SIZE=4 LOCAL_RANK=2", "RANK: 0 of 4, LOCAL_RANK 2"},
        {"RANK=3 WORLD_SIZE=4 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "RANK: 3 of 4, LOCAL_RANK 0 of 2"},
        {"RANK=1 WORLD_SIZE=2", "MASTER_ADDR: is missing"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=h", "MASTER_PORT: is missing"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=h MASTER_PORT=0", "MASTER_PORT: 0 is no"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=h MASTER_PORT=65536", "65536 is no port"},
        {"RANK=1", "WORLD_SIZE: is missing, and RANK is set"},
        {"WORLD_SIZE=1", "RANK: is missing, and WORLD_SIZE is set"},
        {"LOCAL_RANK=0", "RANK: is missing, and LOCAL_RANK is set"},
        {"TORCHELASTIC_RUN_ID=x RANK=1 LOCAL_RANK=0", "WORLD_SIZE: is missing"},
        /* PAI DLC: RANK and WORLD_SIZE count nodes. */
        {"RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=5 NPROC_PER_NODE=8",
         "RANK: is set without LOCAL_RANK, and NPROC_PER_NODE is 8"},
        {"RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=5 CUDA_VISIBLE_DEVICES=0,1,2,3",
         "RANK: is set without a local rank, and 4 GPUs are visible"},
        {INDEXED_PODS "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "JOB_COMPLETION_INDEX: is set without a"},
        {"JOB_COMPLETION_INDEX=4 WORLD_SIZE=4 MASTER_ADDR=h MASTER_PORT=5",
         "JOB_COMPLETION_INDEX: is 4 and WORLD_SIZE is 4"},
        {"JOB_COMPLETION_INDEX=1 MASTER_ADDR=h", "WORLD_SIZE: is missing"},
        {KUBEFLOW_PODS "PET_NPROC_PER_NODE=8", "`cudpo launch` in the pod"},
        {KUBEFLOW_PODS "PET_NPROC_PER_NODE=auto CUDA_VISIBLE_DEVICES=0,1", "more than one rank"},
        {KUBEFLOW_PODS "PET_NPROC_PER_NODE=cpu", "more than one rank"},
        {KUBEFLOW_PODS "PET_NPROC_PER_NODE=many", "PET_NPROC_PER_NODE: \"many\" is no whole"},
        {"PET_NODE_RANK=0 PET_NNODES=1:4", "PET_NNODES: \"1:4\" is a range"},
        {"PET_NNODES=4", "PET_NODE_RANK: is missing"},
        {"PMIX_RANK=1", "PMIX_NAMESPACE: is missing"},
        {"PMIX_NAMESPACE=x", "PMIX_RANK: is missing"},
        {"PMIX_RANK=4294967294 PMIX_NAMESPACE=x", "65536 ranks are the most"},
        {"OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE: is missing"},
        {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMIX_RANK=0 PMIX_NAMESPACE=x",
         "OMPI_COMM_WORLD_RANK: is 1 and PMIX_RANK is 0"},
        {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMI_RANK=0 PMI_SIZE=2",
         "PMI_RANK: is 0 of 2, and OMPI_COMM_WORLD_RANK is 1 of 2"},
        {"PMI_RANK=1 PMI_SIZE=2 MASTER_ADDR=h MASTER_PORT=5 CUDA_VISIBLE_DEVICES=0,1",
         "PMI_RANK: is set without a local rank"},
        {"SLURM_PROCID=3", "SLURM_STEP_ID: is missing"},
        {"SLURM_STEP_ID=0", "SLURM_PROCID: is missing"},
        {"MASTER_ADDR=h SLURM_STEP_NODELIST=n0", "SLURM_STEP_ID: is missing"}};
    placement p;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        CHECK_FAILS(placement_of(&p, all[i].environment, &no_wish), CUDPO_ECONFIG, all[i].message);
}

/* Each variable of a recorded step, changed to what can't be. */
static void refuses_steps(void **state)
{
    (void)state;
    static const char *const changes[][3] = {
        {"SLURM_PROCID", "3", "SLURM_PROCID: is 3 and SLURM_STEP_NUM_TASKS is 3"},
        {"SLURM_PROCID", "1", "SLURM_PROCID: is 1, and number SLURM_LOCALID 0"},
        {"SLURM_STEP_NUM_TASKS", "4", "SLURM_STEP_NUM_TASKS: is 4 and SLURM_NTASKS is 3"},
        {"SLURM_STEP_TASKS_PER_NODE", "2(x2)", "\"2(x2)\" is of 4 tasks and SLURM_STEP_NUM_TASKS"},
        {"SLURM_STEP_TASKS_PER_NODE", "2(x", "is no list of tasks per node"},
        {"SLURM_NODEID", "2", "SLURM_NODEID: is 2"},
        {"SLURM_LOCALID", "1", "SLURM_LOCALID: is 1"},
        {"SLURM_GTIDS", "1,2", "SLURM_PROCID: is 2, and number SLURM_LOCALID 0"},
        {"SLURM_JOB_ID", "1e3", "SLURM_JOB_ID: \"1e3\" is no whole number"},
        {"SLURM_STEP_ID", "x", "SLURM_STEP_ID: \"x\" is no whole number"},
        {"SLURM_STEP_NODELIST", "n[0-", "SLURM_STEP_NODELIST: \"n[0-\" is no list of hosts"},
        {"SLURM_RESTART_COUNT", "-1", "SLURM_RESTART_COUNT: \"-1\""},
        {"PMIX_RANK", "1", "PMIX_RANK: is 1, and SLURM_PROCID of the same"},
        {"PMI_SIZE", "4", "PMI_RANK: and PMI_SIZE are -1 and 4"}};
    placement p;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        environment e = {0};
        environment_add(&e, srun_nodes);
        if (strncmp(changes[i][0], "PMIX", 4) == 0)
            environment_set(&e, "PMIX_NAMESPACE", "slurm.pmix.2.0");
        if (strncmp(changes[i][0], "PMI_", 4) == 0) environment_set(&e, "PMI_JOBID", "2.0");
        environment_set(&e, changes[i][0], changes[i][1]);
        CHECK_FAILS(placement_find(&p, &no_wish, environment_get, &e), CUDPO_ECONFIG,
                    changes[i][2]);
    }
    static const char *const needed[] = {"SLURM_PROCID",
                                         "SLURM_STEP_ID",
                                         "SLURM_LOCALID",
                                         "SLURM_NODEID",
                                         "SLURM_STEP_TASKS_PER_NODE",
                                         "SLURM_JOB_ID",
                                         "SLURM_STEP_NODELIST"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        environment e = {0};
        environment_add(&e, srun_nodes);
        environment_unset(&e, needed[i]);
        CHECK_FAILS(placement_find(&p, &no_wish, environment_get, &e), CUDPO_ECONFIG, needed[i]);
    }
    /* sbatch called within a step of two tasks: the script sees SLURM_STEP_* of that, and SLURM_NTASKS of the job. */
    environment e = {0};
    environment_add(&e, sbatch_of_srun);
    environment_set(&e, "SLURM_STEP_NUM_TASKS", "2");
    environment_set(&e, "SLURM_STEP_TASKS_PER_NODE", "2");
    CHECK_FAILS(placement_find(&p, &no_wish, environment_get, &e), CUDPO_ECONFIG,
                "SLURM_STEP_NUM_TASKS: is 2 and SLURM_NTASKS is 1");
}

/* Nothing of the environment reaches a terminal as it stands. */
static void escapes(void **state)
{
    (void)state;
    static const char *const names[] = {"RANK", "TORCHELASTIC_RUN_ID", "MASTER_ADDR"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        environment e = {0};
        placement p;
        environment_add(&e, torchrun_nodes);
        environment_set(&e, names[i], "1\x1b[2J\nx");
        CHECK_FAILS(placement_find(&p, &no_wish, environment_get, &e), CUDPO_ECONFIG, names[i]);
        assert_int_equal(placement_find(&p, &no_wish, environment_get, &e), CUDPO_ECONFIG);
        for (const char *c = cudpo_error_message(); *c != '\0'; c++)
            assert_true((unsigned char)*c >= ' ');
        cudpo_error_clear();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_what_launchers_left),
                                       cmocka_unit_test(finds_what_others_set),
                                       cmocka_unit_test(takes_the_inner_launcher),
                                       cmocka_unit_test(refuses),
                                       cmocka_unit_test(refuses_steps),
                                       cmocka_unit_test(escapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
