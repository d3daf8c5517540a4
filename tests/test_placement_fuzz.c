/* test_placement_fuzz.c - never a wrong rank: consistent environments are made for a rank that is known, and then broken in a way
 * that is known to contradict them, or to mean nothing.  What must come of it follows from how it was made. */
/* rooms: dist base */
#include "test_placement.h"
#include "base/rng.h"

enum { CASES = 1000, MOST_NODES = 4, MOST_LOCAL = 4 };

static uint64_t seed_of_trial, drawn;

static int below(int n)
{
    return (int)rng_below(seed_of_trial, 0, drawn++, n);
}

/* A rank of a run, as it was made. */
typedef struct truth {
    int rank, size, local_rank, local_size, node, nodes;
    int each[MOST_NODES];
} truth;

static truth make_truth(bool one_each)
{
    truth t = {.nodes = 1 + below(MOST_NODES)};
    for (int i = 0; i < t.nodes; i++)
        t.size += t.each[i] = one_each ? 1 : 1 + below(MOST_LOCAL);
    t.rank = below(t.size);
    t.local_rank = t.rank;
    while (t.local_rank >= t.each[t.node])
        t.local_rank -= t.each[t.node++];
    t.local_size = t.each[t.node];
    return t;
}

static void add_torch(environment *e, const truth *t)
{
    environment_number(e, "RANK", t->rank);
    environment_number(e, "WORLD_SIZE", t->size);
    environment_number(e, "LOCAL_RANK", t->local_rank);
    environment_add(e, "MASTER_ADDR=h MASTER_PORT=1234");
}

static void add_torchrun(environment *e, const truth *t)
{
    add_torch(e, t);
    environment_number(e, "LOCAL_WORLD_SIZE", t->local_size);
    environment_number(e, "GROUP_RANK", t->node);
    environment_number(e, "GROUP_WORLD_SIZE", t->nodes);
    environment_number(e, "ROLE_RANK", t->rank);
    environment_number(e, "ROLE_WORLD_SIZE", t->size);
    environment_add(e, "TORCHELASTIC_RUN_ID=job TORCHELASTIC_RESTART_COUNT=0 "
                       "TORCHELASTIC_USE_AGENT_STORE=True");
}

static void add_slurm(environment *e, const truth *t)
{
    char layout[64] = "", ranks[64] = "";
    for (int i = 0; i < t->nodes; i++)
        sprintf(layout + strlen(layout), "%s%d", i > 0 ? "," : "", t->each[i]);
    for (int i = 0; i < t->local_size; i++)
        sprintf(ranks + strlen(ranks), "%s%d", i > 0 ? "," : "", t->rank - t->local_rank + i);
    environment_number(e, "SLURM_PROCID", t->rank);
    environment_number(e, "SLURM_NTASKS", t->size);
    environment_number(e, "SLURM_STEP_NUM_TASKS", t->size);
    environment_number(e, "SLURM_LOCALID", t->local_rank);
    environment_number(e, "SLURM_NODEID", t->node);
    environment_set(e, "SLURM_STEP_TASKS_PER_NODE", layout);
    environment_set(e, "SLURM_GTIDS", ranks);
    environment_add(e, "SLURM_JOB_ID=12 SLURM_STEP_ID=3 SLURM_STEPID=3 SLURM_JOB_NODELIST=n[1-9] "
                       "SLURM_STEP_NODELIST=n[1-4]");
}

static void add_pmix(environment *e, const truth *t, const char *name)
{
    environment_number(e, "PMIX_RANK", t->rank);
    environment_set(e, "PMIX_NAMESPACE", name);
}

static void add_mpirun(environment *e, const truth *t)
{
    environment_number(e, "OMPI_COMM_WORLD_RANK", t->rank);
    environment_number(e, "OMPI_COMM_WORLD_SIZE", t->size);
    environment_number(e, "OMPI_COMM_WORLD_LOCAL_RANK", t->local_rank);
    environment_number(e, "OMPI_COMM_WORLD_LOCAL_SIZE", t->local_size);
    environment_number(e, "OMPI_COMM_WORLD_NODE_RANK", t->local_rank);
    add_pmix(e, t, "81234");
}

/* One task per node: torchrun's agents, or mpirun's daemons. */
static void add_step_of_nodes(environment *e, const truth *t, int node)
{
    truth agents = {.rank = node, .size = t->nodes, .local_size = 1, .node = node};
    agents.nodes = t->nodes;
    for (int i = 0; i < t->nodes; i++)
        agents.each[i] = 1;
    add_slurm(e, &agents);
}

typedef enum scenario {
    TORCHRUN,
    TORCHRUN_IN_STEP,
    STEP,
    STEP_PMIX,
    STEP_PMI2,
    MPIRUN,
    MPIRUN_IN_STEP,
    HYDRA,
    KUBEFLOW,
    INDEXED,
    BY_HAND,
    OPTIONS,
    SCENARIOS
} scenario;

static bool is_step(scenario s)
{
    return s == STEP || s == STEP_PMIX || s == STEP_PMI2;
}

/* What a case is: to be found as `t`, before it is broken. */
typedef struct trial {
    scenario s;
    truth t;
    environment e;
    placement_wish wish;
} trial;

static void make_trial(trial *x, scenario s)
{
    static const char *const names[] = {"slurm.pmix.12.3", "12.3"};
    const truth t = make_truth(s == KUBEFLOW || s == INDEXED);
    environment *e = &x->e;
    *x = (trial){.s = s, .t = t, .wish = no_wish};
    if (s == TORCHRUN || s == TORCHRUN_IN_STEP) add_torchrun(e, &t);
    if (s == TORCHRUN_IN_STEP) add_step_of_nodes(e, &t, below(t.nodes)); /* in any order */
    if (is_step(s)) add_slurm(e, &t);
    if (s == STEP_PMIX) add_pmix(e, &t, names[0]);
    if (s == STEP_PMI2) {
        environment_number(e, "PMI_RANK", t.rank);
        environment_number(e, "PMI_SIZE", t.size);
        environment_set(e, "PMI_JOBID", names[1]);
    }
    if (s == MPIRUN || s == MPIRUN_IN_STEP) add_mpirun(e, &t);
    if (s == MPIRUN_IN_STEP) add_step_of_nodes(e, &t, t.node);
    if (s == HYDRA) {
        environment_number(e, "PMI_RANK", t.rank);
        environment_number(e, "PMI_SIZE", t.size);
        environment_number(e, "MPI_LOCALRANKID", t.local_rank);
        environment_number(e, "MPI_LOCALNRANKS", t.local_size);
        environment_add(e, "MASTER_ADDR=h MASTER_PORT=1234");
    }
    if (s == KUBEFLOW) {
        environment_number(e, "PET_NODE_RANK", t.rank);
        environment_number(e, "PET_NNODES", t.size);
        environment_number(e, "JOB_COMPLETION_INDEX", t.rank);
        environment_add(e, "PET_NPROC_PER_NODE=1 PET_MASTER_ADDR=h PET_MASTER_PORT=1234");
    }
    if (s == INDEXED) {
        environment_number(e, "JOB_COMPLETION_INDEX", t.rank);
        environment_number(e, "WORLD_SIZE", t.size);
        environment_add(e, "MASTER_ADDR=h MASTER_PORT=1234");
    }
    if (s == BY_HAND) add_torch(e, &t);
    if (s == OPTIONS) {
        x->wish.rank = t.rank;
        x->wish.world_size = t.size;
        x->wish.local_rank = t.local_rank;
        x->wish.rdzv_endpoint = "h:1234";
    }
}

/* The variables that say rank and size, of which each is needed; then others that are.  Those in capitals of `told` are told by
 * another one, too, so that another number in them is seen. */
static const char *const needed[SCENARIOS][9] = {
    [TORCHRUN] = {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
    [TORCHRUN_IN_STEP] = {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
    [STEP] = {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID",
              "SLURM_STEP_TASKS_PER_NODE"},
    [STEP_PMIX] = {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID",
                   "SLURM_STEP_TASKS_PER_NODE", "PMIX_RANK", "PMIX_NAMESPACE"},
    [STEP_PMI2] = {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID",
                   "SLURM_STEP_TASKS_PER_NODE", "PMI_RANK", "PMI_SIZE"},
    [MPIRUN] = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMIX_NAMESPACE"},
    [MPIRUN_IN_STEP] = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK",
                        "PMIX_NAMESPACE"},
    [HYDRA] = {"PMI_RANK", "PMI_SIZE"},
    [KUBEFLOW] = {"PET_NODE_RANK", "PET_NNODES"},
    [INDEXED] = {"JOB_COMPLETION_INDEX", "WORLD_SIZE"},
    [BY_HAND] = {"RANK", "WORLD_SIZE"}};

static const char *const ranks_told_twice[SCENARIOS][2] = {
    [TORCHRUN] = {"RANK", "ROLE_RANK"},
    [TORCHRUN_IN_STEP] = {"RANK", "ROLE_RANK"},
    [STEP] = {"SLURM_PROCID", "SLURM_PROCID"},
    [STEP_PMIX] = {"SLURM_PROCID", "PMIX_RANK"},
    [STEP_PMI2] = {"SLURM_PROCID", "PMI_RANK"},
    [MPIRUN] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"},
    [MPIRUN_IN_STEP] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"}};

static const char *const sizes_told_twice[SCENARIOS][2] = {
    [TORCHRUN] = {"WORLD_SIZE", "ROLE_WORLD_SIZE"},
    [TORCHRUN_IN_STEP] = {"WORLD_SIZE", "ROLE_WORLD_SIZE"},
    [STEP] = {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"},
    [STEP_PMIX] = {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"},
    [STEP_PMI2] = {"SLURM_STEP_NUM_TASKS", "PMI_SIZE"}};

static const char *const own_launcher[SCENARIOS] = {
    "torchrun", "torchrun", "slurm",      "slurm",      "slurm",    "pmix",
    "pmix",     "mpi",      "kubernetes", "kubernetes", "torchrun", "flags"};

/* What must come of a trial that was broken. */
typedef enum verdict { SKIPPED, MUST_FAIL, MUST_BE_TRUE } verdict;

static int other_rank(const truth *t)
{
    return (t->rank + 1 + below(t->size - 1)) % t->size;
}

static const char *one_of(const char *const *names, int most)
{
    int n = 0;
    while (n < most && names[n] != NULL)
        n++;
    return n == 0 ? NULL : names[below(n)];
}

static verdict garble(trial *x)
{
    static const char *const garbage[] = {"",
                                          "x",
                                          "-1",
                                          "1.5",
                                          "0x1",
                                          " 1",
                                          "1 ",
                                          "1e1",
                                          "+1",
                                          "1,2",
                                          "99999999999999999999",
                                          "nan",
                                          "\x1b[2J",
                                          "\xef\xbc\x91"};
    const char *name = one_of(needed[x->s], 9);
    if (name == NULL || strcmp(name, "PMIX_NAMESPACE") == 0) return SKIPPED;
    const char *value = garbage[below(sizeof garbage / sizeof *garbage)];
    if (strcmp(name, "SLURM_STEP_TASKS_PER_NODE") == 0 && strcmp(value, "1,2") == 0) return SKIPPED;
    environment_set(&x->e, name, value);
    return MUST_FAIL;
}

static verdict lose(trial *x)
{
    const char *name = one_of(needed[x->s], 9);
    if (name == NULL) return SKIPPED;
    environment_unset(&x->e, name);
    return MUST_FAIL;
}

static verdict exceed(trial *x)
{
    const int how = below(3);
    const bool rank = how == 0;
    const long long value = rank ? x->t.size + below(3) : how == 1 ? 0 : 65537 + below(9);
    if (x->s == OPTIONS) {
        if (rank) x->wish.rank = value;
        if (!rank) x->wish.world_size = value;
        return MUST_FAIL;
    }
    const int at = is_step(x->s) ? 0 : 1;
    environment_number(&x->e, rank || at == 0 ? needed[x->s][0] : needed[x->s][1], value);
    return rank || at == 1 || value > x->t.size ? MUST_FAIL : SKIPPED;
}

static verdict shift_rank(trial *x)
{
    const char *name = ranks_told_twice[x->s][below(2)];
    if (name == NULL || x->t.size == 1) return SKIPPED;
    environment_number(&x->e, name, other_rank(&x->t));
    return MUST_FAIL;
}

static verdict shift_size(trial *x)
{
    const char *name = sizes_told_twice[x->s][below(2)];
    if (name == NULL) return SKIPPED;
    environment_number(&x->e, name, x->t.size + 1 + below(5));
    return MUST_FAIL;
}

/* RANK and the like that a script exported, of another rank or of fewer. */
static verdict export_ranks(trial *x)
{
    truth t = x->t;
    if (x->s < STEP || x->s == INDEXED || x->s == BY_HAND || t.size == 1) return SKIPPED;
    const int how = below(4);
    if (how == 0) t.rank = other_rank(&t);
    if (how == 1) t.size -= 1 + below(t.size - 1), t.rank = below(t.size);
    if (how < 2) {
        add_torch(&x->e, &t);
        return MUST_FAIL;
    }
    if (x->s == OPTIONS) return SKIPPED; /* half of a set goes behind a whole one */
    environment_number(&x->e, how == 2 ? "RANK" : "WORLD_SIZE",
                       how == 2 ? other_rank(&t) : t.size + 1);
    return MUST_FAIL;
}

/* The same numbers once more. */
static verdict agree(trial *x)
{
    if (x->s < STEP || x->s == INDEXED || x->s == BY_HAND) return SKIPPED;
    const int how = below(3);
    if (how == 0) add_torch(&x->e, &x->t);
    if (how == 1) environment_number(&x->e, "RANK", x->t.rank);
    if (how == 2) environment_number(&x->e, "WORLD_SIZE", x->t.size);
    return MUST_BE_TRUE;
}

/* A launcher within that knows of one process alone. */
static verdict nest_alone(trial *x)
{
    truth one = {.size = 1, .local_size = 1, .nodes = 1, .each = {1}};
    if (x->t.size == 1) return SKIPPED;
    if (x->s >= STEP && x->s <= KUBEFLOW && below(2) == 0) {
        add_torchrun(&x->e, &one);
        return MUST_FAIL;
    }
    if (x->s != STEP && x->s != STEP_PMI2) return SKIPPED;
    add_mpirun(&x->e, &one);
    return MUST_FAIL;
}

/* What is left over from launchers further out. */
static verdict leave_over(trial *x)
{
    environment *e = &x->e;
    switch (below(6)) {
    case 0:
        if (x->s != STEP && x->s != STEP_PMI2) return SKIPPED;
        environment_set(e, "PMIX_NAMESPACE", "slurm.pmix.12.2");
        environment_number(e, "PMIX_RANK", below(9));
        return MUST_BE_TRUE;
    case 1: /* mpirun further out than srun --mpi=pmix */
        if (x->s != STEP_PMIX) return SKIPPED;
        environment_number(e, "OMPI_COMM_WORLD_RANK", 0);
        environment_number(e, "OMPI_COMM_WORLD_SIZE", 1 + below(9));
        return MUST_BE_TRUE;
    case 2: /* srun --mpi=pmi2 further out */
        if (x->s != STEP && x->s != STEP_PMIX) return SKIPPED;
        environment_set(e, "PMI_JOBID", "12.2");
        environment_number(e, "PMI_RANK", below(9));
        environment_number(e, "PMI_SIZE", 9);
        return MUST_BE_TRUE;
    case 3: /* the shell of a job */
        if (environment_find(e, "SLURM_STEP_ID") != NULL) return SKIPPED;
        environment_add(e, "SLURM_JOB_ID=5 SLURM_PROCID=0 SLURM_NTASKS=9 SLURM_LOCALID=0");
        return MUST_BE_TRUE;
    case 4: /* a pod of an Indexed Job whose pods know nothing of one another */
        if (x->s == KUBEFLOW || x->s == INDEXED) return SKIPPED;
        environment_number(e, "JOB_COMPLETION_INDEX", below(9));
        /* With a WORLD_SIZE or MASTER_ADDR of others it would claim to be more. */
        return environment_find(e, "MASTER_ADDR") != NULL && x->s != TORCHRUN && x->s != BY_HAND &&
                       x->s != TORCHRUN_IN_STEP
                   ? SKIPPED
                   : MUST_BE_TRUE;
    default: /* an interactive step, in which others are started by hand */
        if (environment_find(e, "SLURM_STEP_ID") != NULL) return SKIPPED;
        environment_add(e, "SLURM_STEP_ID=4294967290 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1");
        return MUST_BE_TRUE;
    }
}

static verdict force(trial *x)
{
    const int other = below(LAUNCHERS);
    if (x->s == OPTIONS && strcmp(launcher_names[other], "flags") != 0) {
        x->wish.launcher = launcher_names[other]; /* beside --rank */
        return MUST_FAIL;
    }
    if (below(2) == 0) {
        x->wish.launcher = own_launcher[x->s];
        return MUST_BE_TRUE;
    }
    if (x->s == TORCHRUN && other > LAUNCHER_TORCHRUN) {
        x->wish.launcher = launcher_names[other];
        return MUST_FAIL;
    }
    return SKIPPED;
}

static verdict gainsay(trial *x) /* on the command line */
{
    if (x->t.size == 1 || x->s == INDEXED || x->s == TORCHRUN_IN_STEP || x->s == OPTIONS)
        return SKIPPED;
    if (below(2) == 0) {
        x->wish.local_rank = x->t.local_rank + 1;
        return x->s == BY_HAND || x->t.local_size > 0 ? MUST_FAIL : SKIPPED;
    }
    x->wish.rank = other_rank(&x->t);
    x->wish.world_size = x->t.size;
    x->wish.rdzv_endpoint = "h:1";
    return MUST_FAIL;
}

static const struct {
    const char *name;
    verdict (*apply)(trial *x);
} breaks[] = {{"garbled", garble},          {"lost", lose},
              {"out of range", exceed},     {"another rank", shift_rank},
              {"another size", shift_size}, {"exported ranks", export_ranks},
              {"agreeing", agree},          {"a world of one within", nest_alone},
              {"left over", leave_over},    {"forced", force},
              {"gainsaid", gainsay}};
enum { BREAKS = sizeof breaks / sizeof *breaks };

static void dump(const trial *x, const char *what)
{
    printf("%s; truth: rank %d of %d, local %d\n", what, x->t.rank, x->t.size, x->t.local_rank);
    for (int i = 0; i < x->e.n; i++)
        printf("  %s\n", x->e.text[i]);
}

static void check(trial *x, verdict want, const char *what)
{
    placement p;
    cudpo_error_clear();
    const cudpo_status status = placement_find(&p, &x->wish, environment_get, &x->e);
    const bool right =
        want == MUST_BE_TRUE
            ? status == CUDPO_OK && p.rank == x->t.rank && p.size == x->t.size &&
                  p.local_rank == x->t.local_rank
            : status == CUDPO_ECONFIG && p.size == 0 && cudpo_error_message()[0] != '\0';
    if (!right) {
        dump(x, what);
        fail_msg("%s: status %d, rank %d of %d, local %d: %s", what, (int)status, (int)p.rank,
                 (int)p.size, (int)p.local_rank, cudpo_error_message());
    }
    for (const char *c = cudpo_error_message(); *c != '\0'; c++)
        assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
    cudpo_error_clear();
}

static void is_never_a_wrong_rank(void **state)
{
    (void)state;
    static trial x;
    int failed[BREAKS] = {0}, true_ones[BREAKS] = {0}, done = 0;
    for (uint64_t seed = 1; done < CASES; seed++) {
        char what[96];
        seed_of_trial = seed;
        drawn = 0;
        const scenario s = (scenario)below(SCENARIOS);
        const int b = below(BREAKS);
        make_trial(&x, s);
        snprintf(what, sizeof what, "seed %llu, scenario %d, whole", (unsigned long long)seed, s);
        check(&x, MUST_BE_TRUE, what);
        const verdict want = breaks[b].apply(&x);
        if (want == SKIPPED) continue;
        snprintf(what, sizeof what, "seed %llu, scenario %d, %s", (unsigned long long)seed, s,
                 breaks[b].name);
        check(&x, want, what);
        *(want == MUST_FAIL ? &failed[b] : &true_ones[b]) += 1;
        done++;
    }
    for (int b = 0; b < BREAKS; b++) {
        printf("%4d refused, %3d found: %s\n", failed[b], true_ones[b], breaks[b].name);
        assert_true(failed[b] + true_ones[b] >= CASES / 50);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_never_a_wrong_rank)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
