/* Tests of src/dist/pmix.h and of a company that meets through it, under Open MPI's mpirun, which this program starts with itself
 * as the ranks.  Skipped where there is no mpirun, or it starts nothing here. */
/* rooms: base dist */
#include "test_control.h"
#include "dist/pmix.h"

static const char *self;

/* What mpirun itself says in variables, which hides that PMIx knows it. */
static const char *only_pmix(void *context, const char *name)
{
    return strncmp(name, "OMPI_", 5) == 0 ? NULL : placement_getenv(context, name);
}

/* One rank under mpirun: by what it says in variables, or by what PMIx says alone; `remote`: as if there were other nodes. */
static cudpo_status as_rank(const char *by, bool remote)
{
    placement p;
    placement_wish wish = {
        .launcher = by, .rank = -1, .world_size = -1, .local_rank = -1, .gpus = -1};
    control_options o = {
        .place = &p, .build = "test", .join_timeout = 20, .peer_timeout = 20, .grace = 20};
    control *c;
    int32_t all[8], mine;
    const bool alone = strcmp(by, "pmix") == 0;
    CUDPO_TRY(placement_find(&p, &wish, alone ? only_pmix : placement_getenv, NULL));
    CUDPO_TRY(pmix_complete(&p, &o.session));
    if (p.size != 3 || p.local_size != 3 || p.rank < 0 || p.rank > 2 || p.local_rank != p.rank ||
        (o.session != NULL) != alone)
        return cudpo_fail(CUDPO_EDATA, "placement", "%d of %d, %d of %d here", (int)p.rank,
                          (int)p.size, (int)p.local_rank, (int)p.local_size);
    if (remote) p.local_size = 0;
    CUDPO_TRY(control_open(&c, &o));
    mine = 10 + p.rank;
    cudpo_status s = control_exchange(c, all, &mine, sizeof mine, "numbers");
    for (int r = 0; r < 3 && s == CUDPO_OK; r++)
        if (all[r] != 10 + r) s = cudpo_fail(CUDPO_EDATA, "exchange", "rank %d gave %d", r, all[r]);
    if (s == CUDPO_OK && (strncmp(control_address(c), "127.", 4) == 0) == remote)
        s = cudpo_fail(CUDPO_EDATA, "address", "is %s", control_address(c));
    if (s == CUDPO_OK && p.rank == 1) printf("all met at %s\n", control_address(c));
    control_close(c);
    return s;
}

static int run(const char *what)
{
    char command[1400];
    snprintf(command, sizeof command,
             "timeout 50 mpirun --allow-run-as-root --oversubscribe -n 3 %s %s", self, what);
    fflush(stdout);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void ranks_meet(void **state)
{
    (void)state;
    assert_int_equal(run("auto here"), 0);
    assert_int_equal(run("pmix here"), 0);
}

static void ranks_meet_as_on_several_hosts(void **state)
{
    (void)state;
    assert_int_equal(run("auto remote"), 0);
    assert_int_equal(run("pmix remote"), 0);
}

/* Without a server: one clear error. */
static void no_server(void **state)
{
    placement p = {.launcher = LAUNCHER_PMIX, .rank = -1};
    pmix *session;
    (void)state;
    unsetenv("PMIX_NAMESPACE");
    CHECK_FAILS(pmix_complete(&p, &session), CUDPO_ERENDEZVOUS, "PMIx");
    assert_int_equal(p.size, 0);
    p.size = 4;
    CHECK_OK(pmix_complete(&p, &session)); /* nothing is missing, nothing is asked */
}

/* libpmix keeps a few bytes, which a check for leaks at the end of main() would report. */
static _Noreturn void leave(int status)
{
    fflush(NULL);
    _exit(status);
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc > 2) {
        const cudpo_status s = as_rank(argv[1], strcmp(argv[2], "remote") == 0);
        if (s != CUDPO_OK) fprintf(stderr, "%s\n", cudpo_error_message());
        leave(cudpo_exit_code(s));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_server),
        cmocka_unit_test(ranks_meet),
        cmocka_unit_test(ranks_meet_as_on_several_hosts),
    };
    if (system("timeout 50 mpirun --allow-run-as-root --oversubscribe -n 1 true >/dev/null 2>&1") !=
        0) {
        printf("skipped: no mpirun that works here\n");
        return TEST_SKIPPED;
    }
    leave(cmocka_run_group_tests(tests, NULL, NULL));
}
