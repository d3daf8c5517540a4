/* test_mpi.c - sums over MPI: the ranks are this program again, which mpirun starts. */
/* rooms: base tensor backend dist */
#include "program.h"
#include "mpi_rank.h"

#include <unistd.h>

enum { MOST_RANKS = 4 };

static char self[4096];

/* Run a command, which NULL ends, as `size` ranks.  A rank that dies does not make mpirun end the others: they are to notice by
 * themselves.  Returns: mpirun's exit status. */
static int mpirun(int size, const char *const *command)
{
    enum { ARGUMENTS = 64 };
    char number[16];
    snprintf(number, sizeof number, "%d", size);
    const char *arguments[ARGUMENTS] = {"mpirun",
                                        "--allow-run-as-root",
                                        "--oversubscribe",
                                        "--enable-recovery",
                                        "--mca",
                                        "orte_abort_on_non_zero_status",
                                        "0",
                                        "--mca",
                                        "btl_vader_single_copy_mechanism",
                                        "none",
                                        "-n",
                                        number};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    for (int i = 0; command[i] != NULL; i++) {
        assert_true(n < ARGUMENTS - 1);
        arguments[n++] = command[i];
    }
    fflush(stdout);
    fflush(stderr);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("OMP_NUM_THREADS", "1", 1);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* MPI's are many */
        execvp(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    const double limit = job_clock() + MPI_LIMIT;
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (job_clock() > limit) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("mpirun %s does not end", command[1]);
        }
        job_sleep(0.005);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The ranks of a job play a part. */
static int play_part(job *j, const char *part, const char *record, int shift)
{
    char size[16], port[16], page[640], turn[16];
    snprintf(size, sizeof size, "%d", j->size);
    snprintf(port, sizeof port, "%d", j->port);
    snprintf(page, sizeof page, "%s", scratch_path("page"));
    snprintf(turn, sizeof turn, "%d", shift);
    const char *const command[] = {self, part, size, port, page, record, turn, NULL};
    return mpirun(j->size, command);
}

static void all_fine(job *j)
{
    for (int r = 0; r < j->size; r++)
        if (atomic_load(&j->page->rank[r].status) != CUDPO_OK)
            fail_msg("rank %d of %d: %d, %s", r, j->size, atomic_load(&j->page->rank[r].status),
                     j->page->rank[r].message);
}

static void run(const char *part, int size)
{
    job j = job_make(size);
    const int status = play_part(&j, part, "", 0);
    all_fine(&j);
    assert_int_equal(status, 0);
    job_free(&j);
}

static void sums_by_hand(void **state)
{
    (void)state;
    run("by_hand", 2);
    run("by_hand", 3);
}

/* Every rank compares with sums in the order of ranks, which says the same of all ranks and runs; the hashes say it again. */
static void the_same_bits_on_every_rank_in_every_run(void **state)
{
    (void)state;
    for (int size = 2; size <= MOST_RANKS; size++) {
        char first[HASH_TEXT] = "";
        for (int again = 0; again < 2; again++) {
            job j = job_make(size);
            assert_int_equal(play_part(&j, "sums", "", 0), 0);
            all_fine(&j);
            for (int r = 0; r < size; r++) {
                if (*first == '\0') snprintf(first, sizeof first, "%s", j.page->rank[r].extra);
                assert_int_equal(strlen(first), HASH_TEXT - 1);
                assert_string_equal(j.page->rank[r].extra, first);
            }
            job_free(&j);
        }
    }
}

static void more_than_the_queue_holds(void **state)
{
    (void)state;
    run("many", 3);
}

static void a_killed_rank_is_noticed(void **state)
{
    (void)state;
    job j = job_make(3);
    const char *record = scratch_path("record");
    play_part(&j, "dies", record, 0);
    const double when = j.page->rank[1].noticed;
    assert_true(when > 0);
    for (int r = 0; r < 3; r += 2) {
        const char *message = j.page->rank[r].message;
        if (atomic_load(&j.page->rank[r].status) != CUDPO_EPEER ||
            strstr(message, "rank 1") == NULL)
            fail_msg("rank %d: %d, %s", r, atomic_load(&j.page->rank[r].status), message);
        if (!(j.page->rank[r].noticed - when < 2.0))
            fail_msg("rank %d after %g s", r, j.page->rank[r].noticed - when);
    }
    buffer out = {0};
    CHECK_OK(flight_analyse(&out, record));
    if (strstr(out.data, "suspect: rank 1 ") == NULL) fail_msg("%s", out.data);
    buffer_free(&out);
    job_free(&j);
}

static void a_rank_that_never_comes_is_named(void **state)
{
    (void)state;
    job j = job_make(2);
    play_part(&j, "never_comes", "", 0);
    const char *message = j.page->rank[0].message;
    if (atomic_load(&j.page->rank[0].status) != CUDPO_EPEER || strstr(message, "rank 1") == NULL)
        fail_msg("%d, %s", atomic_load(&j.page->rank[0].status), message);
    job_free(&j);
}

static void sizes_that_differ_are_a_failure(void **state)
{
    (void)state;
    job j = job_make(2);
    play_part(&j, "sizes_differ", "", 0);
    bool named = false;
    for (int r = 0; r < 2; r++) {
        const char *message = j.page->rank[r].message;
        assert_int_not_equal(atomic_load(&j.page->rank[r].status), CUDPO_OK);
        named = named || strstr(message, "MPI_ERR_TRUNCATE") != NULL;
    }
    if (!named) fail_msg("%s; %s", j.page->rank[0].message, j.page->rank[1].message);
    job_free(&j);
}

static void other_ranks_than_those_of_mpi_are_refused(void **state)
{
    (void)state;
    job j = job_make(2);
    play_part(&j, "by_hand", "", 1);
    for (int r = 0; r < 2; r++)
        if (atomic_load(&j.page->rank[r].status) != CUDPO_ECONFIG ||
            strstr(j.page->rank[r].message, "for MPI") == NULL)
            fail_msg("rank %d: %d, %s", r, atomic_load(&j.page->rank[r].status),
                     j.page->rank[r].message);
    job_free(&j);
}

/* Placed by PMIx, as users do it; of two ranks, sums are the same in any order, and so are those of TCP. */
static void the_program_trains_over_mpi(void **state)
{
    (void)state;
    static const char *const backends[] = {"mpi", "tcp"};
    const char *cudpo = getenv("CUDPO_PROGRAM");
    if (cudpo == NULL || *cudpo == '\0') cudpo = "build/cudpo";
    for (int i = 0; i < 2; i++) {
        const char *const command[] = {cudpo,
                                       "train",
                                       "--model_name_or_path",
                                       "tests/golden/models/llama",
                                       "--train_dataset",
                                       "tests/golden/data/train.jsonl",
                                       "--output_dir",
                                       scratch_path(backends[i]),
                                       "--device",
                                       "cpu",
                                       "--max_length",
                                       "64",
                                       "--max_steps",
                                       "4",
                                       "--zero_stage",
                                       "1",
                                       "--per_device_train_batch_size",
                                       "6",
                                       "--ddp_backend",
                                       backends[i],
                                       NULL};
        assert_int_equal(mpirun(2, command), 0);
    }
    assert_true(program_equal_weights("mpi", "tcp"));
    char record[700];
    buffer out = {0};
    snprintf(record, sizeof record, "%s/flight", scratch_path("mpi"));
    CHECK_OK(flight_analyse(&out, record));
    if (strstr(out.data, ", and all ended by themselves") == NULL) fail_msg("%s", out.data);
    buffer_free(&out);
}

static void without_the_plugin_it_says_so(void **state)
{
    (void)state;
    char plugin[4096];
    const char *named = getenv("CUDPO_MPI_PLUGIN");
    communicator *c;
    snprintf(plugin, sizeof plugin, "%s", named == NULL ? "" : named);
    unsetenv("CUDPO_MPI_PLUGIN");
    CHECK_FAILS(communicator_mpi(&c, backend_cpu(), NULL), CUDPO_EDEVICE, "built without MPI");
    assert_null(c);
    setenv("CUDPO_MPI_PLUGIN", scratch_text("library.so", "no library"), 1);
    CHECK_FAILS(communicator_mpi(&c, backend_cpu(), NULL), CUDPO_EDEVICE, "can't be loaded");
    setenv("CUDPO_MPI_PLUGIN", plugin, 1);
}

static bool missing(void)
{
    const char *plugin = getenv("CUDPO_MPI_PLUGIN");
    if (plugin == NULL || !file_is_regular(plugin)) {
        printf("skipped: built without MPI\n");
        return true;
    }
    if (system("mpirun --version >/dev/null 2>&1") != 0) {
        printf("skipped: no mpirun\n");
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    if (argc == 7) return rank_main(argv);
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return 1;
    if (missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_plugin_it_says_so),
        cmocka_unit_test(sums_by_hand),
        cmocka_unit_test(the_same_bits_on_every_rank_in_every_run),
        cmocka_unit_test(more_than_the_queue_holds),
        cmocka_unit_test(a_killed_rank_is_noticed),
        cmocka_unit_test(a_rank_that_never_comes_is_named),
        cmocka_unit_test(the_program_trains_over_mpi),
        cmocka_unit_test(sizes_that_differ_are_a_failure),
        cmocka_unit_test(other_ranks_than_those_of_mpi_are_refused),
    };
    return cmocka_run_group_tests_name("mpi", tests, NULL, scratch_remove);
}
