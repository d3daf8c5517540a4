/* mpi_rank.h - what a rank of test_mpi does, in a process of its own that mpirun started. */
#ifndef CUDPO_TESTS_MPI_RANK_H
#define CUDPO_TESTS_MPI_RANK_H

#include "test_control.h"
#include "base/hash.h"
#include "base/rng.h"
#include "dist/communicator.h"

enum { MPI_LIMIT = 120 };

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
static inline int rank_main(char **argv)
{
    job j = {.size = atoi(argv[2])};
    const char *world = getenv("OMPI_COMM_WORLD_RANK");
    const int rank = (atoi(world == NULL ? "0" : world) + atoi(argv[6])) % j.size;
    const int fd = open(argv[4], O_RDWR);
    j.page = mmap(NULL, sizeof *j.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || j.page == MAP_FAILED) return 1;
    alarm(MPI_LIMIT);
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

#endif /* CUDPO_TESTS_MPI_RANK_H */
