/* test_mpi.c - sums over MPI: the ranks are this program again, which mpirun starts. */
/* rooms: base tensor backend dist */
#include "test_control.h"
#include "base/hash.h"
#include "base/rng.h"
#include "dist/communicator.h"

#include <errno.h>
#include <unistd.h>

enum { LIMIT = 120, MOST_RANKS = 4 };

/* ---- a rank ---- */

/* Numbers of different sizes, whose sum depends on the order of additions: from a table, because there are many. */
static float value(int rank, int64_t i)
{
    enum { TABLE = 8192 };
    static float table[TABLE];
    if (table[0] == 0.0f)
        for (uint64_t k = 0; k < TABLE; k++)
            table[k] = (float)ldexp(rng_uniform(7, 0, k) - 0.5, (int)(k % 24));
    return table[(i * 5 + i / TABLE * 3 + rank * 1031) % TABLE];
}

static float sum(int size, int64_t i)
{
    float s = value(0, i);
    for (int r = 1; r < size; r++)
        s += value(r, i);
    return s;
}

typedef struct vector {
    float *x; /* [n] and a guard */
    int64_t n;
} vector;

static const float guard = -77.0f;

static vector make(int rank, int64_t n)
{
    vector v = {.x = malloc((size_t)(n + 1) * sizeof *v.x), .n = n};
    if (v.x == NULL) abort();
    for (int64_t i = 0; i < n; i++)
        v.x[i] = value(rank, i);
    v.x[n] = guard;
    return v;
}

static tensor tensor_of(vector v)
{
    return tensor_vector(v.x, DTYPE_F32, v.n);
}

/* Compare bits, so that a NaN or a 0 of the other sign is seen. */
static cudpo_status check(vector v, const char *what, float (*want)(int, int64_t), int argument,
                          int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        const float w = want(argument, i);
        if (memcmp(&w, &v.x[i], sizeof w) != 0)
            return cudpo_fail(CUDPO_EDATA, what, "element %lld of %lld is %.9g, not %.9g",
                              (long long)i, (long long)v.n, (double)v.x[i], (double)w);
    }
    return v.x[v.n] == guard ? CUDPO_OK : cudpo_fail(CUDPO_EDATA, what, "guard");
}

/* All collectives of tensors of n, begun before the first is waited for. */
static cudpo_status all_of(communicator *c, int64_t n, hash_state *h)
{
    vector reduced = make(c->rank, n), sent = make(c->rank, n), shared = make(c->rank, n), to[4];
    const rank_share own = communicator_share(n, c->size, c->rank);
    for (int64_t i = 0; i < n; i++)
        if (i < own.begin || i >= own.end) shared.x[i] = NAN;
    c->step = n;
    CUDPO_TRY(communicator_all_reduce(c, tensor_of(reduced)));
    for (int root = 0; root < c->size; root++) {
        to[root] = make(c->rank, n);
        CUDPO_TRY(communicator_reduce(c, tensor_of(to[root]), root));
    }
    CUDPO_TRY(communicator_all_gather(c, tensor_of(shared)));
    CUDPO_TRY(communicator_broadcast(c, tensor_of(sent)));
    CUDPO_TRY(communicator_join(c));
    CUDPO_TRY(check(reduced, "all_reduce", sum, c->size, 0, n));
    CUDPO_TRY(check(to[c->rank], "reduce", sum, c->size, 0, n));
    CUDPO_TRY(check(sent, "broadcast", value, 0, 0, n));
    for (int r = 0; r < c->size; r++) {
        const rank_share s = communicator_share(n, c->size, r);
        CUDPO_TRY(check(shared, "all_gather", value, r, s.begin, s.end));
        free(to[r].x);
    }
    hash_add(h, reduced.x, (size_t)n * sizeof *reduced.x);
    free(reduced.x);
    free(sent.x);
    free(shared.x);
    return CUDPO_OK;
}

static cudpo_status sums(communicator *c, job *j)
{
    /* The last are more than one piece, with a rest. */
    static const int64_t sizes[] = {1, 2, 7, 63, 64, 65, 1000, 1000000, 5000003};
    hash_state *h;
    CUDPO_TRY(hash_begin(&h));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        CUDPO_TRY(all_of(c, sizes[i], h));
    hash_text(j->page->rank[c->rank].extra, hash_end(h));
    return CUDPO_OK;
}

/* By hand: rank r holds r + 1 everywhere. */
static cudpo_status by_hand(communicator *c, job *j)
{
    (void)j;
    float x[3] = {(float)c->rank + 1, (float)c->rank + 1, (float)c->rank + 1};
    CUDPO_TRY(communicator_all_reduce(c, tensor_vector(x, DTYPE_F32, 3)));
    CUDPO_TRY(communicator_join(c));
    const float want = (float)(c->size * (c->size + 1)) / 2;
    for (int i = 0; i < 3; i++)
        if (x[i] != want)
            return cudpo_fail(CUDPO_EDATA, "sum", "%g, not %g", (double)x[i], (double)want);
    CUDPO_TRY(communicator_join(c)); /* of nothing */
    return CUDPO_OK;
}

/* As many small ones as a step of many weights has, more than the queue holds. */
static cudpo_status many(communicator *c, job *j)
{
    enum { TENSORS = 3000 };
    static float x[TENSORS];
    (void)j;
    for (int i = 0; i < TENSORS; i++) {
        x[i] = (float)(i * (c->rank + 1));
        CUDPO_TRY(communicator_all_reduce(c, tensor_vector(&x[i], DTYPE_F32, 1)));
    }
    CUDPO_TRY(communicator_join(c));
    for (int i = 0; i < TENSORS; i++)
        if (x[i] != (float)(i * c->size * (c->size + 1) / 2))
            return cudpo_fail(CUDPO_EDATA, "sum", "%d is %g", i, (double)x[i]);
    return CUDPO_OK;
}

/* Sums that go on until the company fails. */
static cudpo_status endless(communicator *c)
{
    vector v = make(c->rank, 300000);
    const double limit = job_clock() + JOB_LIMIT;
    cudpo_status s = CUDPO_OK;
    while (s == CUDPO_OK && job_clock() < limit) {
        s = communicator_all_reduce(c, tensor_of(v));
        if (s == CUDPO_OK) s = communicator_join(c);
    }
    return s; /* v may still be MPI's */
}

static cudpo_status dies(communicator *c, job *j)
{
    if (c->rank != 1) return endless(c);
    vector v = make(c->rank, 300000);
    for (int i = 0; i < 10; i++) {
        CUDPO_TRY(communicator_all_reduce(c, tensor_of(v)));
        CUDPO_TRY(communicator_join(c));
    }
    CUDPO_TRY(communicator_all_reduce(c, tensor_of(v)));
    j->page->rank[1].noticed = job_clock();
    kill(getpid(), SIGKILL);
    return CUDPO_OK;
}

static cudpo_status never_comes(communicator *c, job *j)
{
    if (c->rank != 1) return endless(c);
    vector v = make(c->rank, 300000);
    CUDPO_TRY(communicator_all_reduce(c, tensor_of(v)));
    CUDPO_TRY(communicator_join(c));
    free(v.x);
    return job_wait_for_failure(c->company, j);
}

/* A bug of cudpo's, which must show as a failure and not as a hang. */
static cudpo_status sizes_differ(communicator *c, job *j)
{
    vector v = make(c->rank, c->rank == 1 ? 999 : 1000);
    (void)j;
    CUDPO_TRY(communicator_all_reduce(c, tensor_of(v)));
    return communicator_join(c);
}

static const struct {
    const char *name;
    cudpo_status (*play)(communicator *c, job *j);
} parts[] = {
    {"by_hand", by_hand},
    {"sums", sums},
    {"many", many},
    {"dies", dies},
    {"never_comes", never_comes},
    {"sizes_differ", sizes_differ},
};
enum { PARTS = sizeof parts / sizeof parts[0] };

static cudpo_status play(control *c, job *j, const char *part, const char *record)
{
    communicator *m;
    flight *f = NULL;
    if (*record != '\0')
        CUDPO_TRY(flight_open(&f, record, control_rank(c), control_size(c), "run"));
    cudpo_status s = communicator_mpi(&m, backend_cpu(), c);
    if (s == CUDPO_OK) {
        m->record = f;
        s = CUDPO_EINVAL;
        for (int i = 0; i < PARTS; i++)
            if (strcmp(parts[i].name, part) == 0) s = parts[i].play(m, j);
        if (s != CUDPO_OK) flight_note(f, cudpo_error_message());
        communicator_close(m);
    }
    flight_close(f);
    return s;
}

/* test_mpi PART SIZE PORT PAGE RECORD SHIFT, under mpirun. */
static int rank_main(char **argv)
{
    job j = {.size = atoi(argv[2])};
    const char *world = getenv("OMPI_COMM_WORLD_RANK");
    const int rank = (atoi(world == NULL ? "0" : world) + atoi(argv[6])) % j.size;
    const int fd = open(argv[4], O_RDWR);
    j.page = mmap(NULL, sizeof *j.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || j.page == MAP_FAILED) return 1;
    alarm(LIMIT);
    placement place = {.launcher = LAUNCHER_FLAGS,
                       .rank = rank,
                       .size = j.size,
                       .port = atoi(argv[3]),
                       .node = -1,
                       .address = "127.0.0.1",
                       .run_id = "run"};
    const control_options options = {
        .place = &place, .build = "test", .join_timeout = 60, .peer_timeout = 3, .grace = 20};
    control *c;
    cudpo_status s = control_open(&c, &options);
    if (s == CUDPO_OK) s = play(c, &j, argv[1], argv[5]);
    job_note(&j, rank, s);
    if (s != CUDPO_OK) control_abort(c, s, cudpo_error_message());
    control_close(c);
    return cudpo_exit_code(s);
}

/* ---- the test ---- */

static char program[4096];

/* mpirun's exit status.  A rank that dies does not make it end the others: they are to notice by themselves. */
static int mpirun(job *j, const char *part, const char *record, int shift)
{
    char size[16], port[16], page[640], turn[16];
    snprintf(size, sizeof size, "%d", j->size);
    snprintf(port, sizeof port, "%d", j->port);
    snprintf(page, sizeof page, "%s", scratch_path("page"));
    snprintf(turn, sizeof turn, "%d", shift);
    const char *const arguments[] = {"mpirun",
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
                                     size,
                                     program,
                                     part,
                                     size,
                                     port,
                                     page,
                                     record,
                                     turn,
                                     NULL};
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
    const double limit = job_clock() + LIMIT;
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (job_clock() > limit) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("mpirun %s does not end", part);
        }
        job_sleep(0.005);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
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
    const int status = mpirun(&j, part, "", 0);
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
            assert_int_equal(mpirun(&j, "sums", "", 0), 0);
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
    mpirun(&j, "dies", record, 0);
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
    mpirun(&j, "never_comes", "", 0);
    const char *message = j.page->rank[0].message;
    if (atomic_load(&j.page->rank[0].status) != CUDPO_EPEER || strstr(message, "rank 1") == NULL)
        fail_msg("%d, %s", atomic_load(&j.page->rank[0].status), message);
    job_free(&j);
}

static void sizes_that_differ_are_a_failure(void **state)
{
    (void)state;
    job j = job_make(2);
    mpirun(&j, "sizes_differ", "", 0);
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
    mpirun(&j, "by_hand", "", 1);
    for (int r = 0; r < 2; r++)
        if (atomic_load(&j.page->rank[r].status) != CUDPO_ECONFIG ||
            strstr(j.page->rank[r].message, "for MPI") == NULL)
            fail_msg("rank %d: %d, %s", r, atomic_load(&j.page->rank[r].status),
                     j.page->rank[r].message);
    job_free(&j);
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
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return 1;
    if (missing()) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_plugin_it_says_so),
        cmocka_unit_test(sums_by_hand),
        cmocka_unit_test(the_same_bits_on_every_rank_in_every_run),
        cmocka_unit_test(more_than_the_queue_holds),
        cmocka_unit_test(a_killed_rank_is_noticed),
        cmocka_unit_test(a_rank_that_never_comes_is_named),
        cmocka_unit_test(sizes_that_differ_are_a_failure),
        cmocka_unit_test(other_ranks_than_those_of_mpi_are_refused),
    };
    return cmocka_run_group_tests_name("mpi", tests, NULL, scratch_remove);
}
