/* test_nccl.h - ranks of a job that come together by NCCL: processes of their own, on the emulated GPU or a real one. */
#ifndef CUDPO_TESTS_TEST_NCCL_H
#define CUDPO_TESTS_TEST_NCCL_H

#include "plugin.h"
#include "program.h"
#include "test_control.h"
#include "dist/communicator.h"

enum { NCCL_GUARD = 8 };

/* What the ranks of a job do. */
typedef struct nccl_job {
    cudpo_status (*script)(communicator *m);
    int faulty; /* the rank whose environment that is; -1: all */
    const char *environment[3][2];
    bool record;
} nccl_job;

static nccl_job nccl_plan; /* of the job that is started */

static inline void nccl_environment(int rank)
{
    char id[32];
    snprintf(id, sizeof id, "cudpo-test-%d", rank);
    setenv("NCCL_HOSTID", id, 1); /* or it refuses two ranks on one GPU */
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    for (int i = 0; i < 3; i++) {
        if (nccl_plan.environment[i][0] == NULL ||
            (nccl_plan.faulty >= 0 && nccl_plan.faulty != rank))
            continue;
        setenv(nccl_plan.environment[i][0], nccl_plan.environment[i][1], 1);
    }
}

/* As a run's main thread: whoever fails says so first. */
static inline cudpo_status nccl_play(control *c, job *j, int rank)
{
    backend *be = NULL;
    communicator *m = NULL;
    flight *record = NULL;
    nccl_environment(rank);
    cudpo_status s = backend_open(&be, "cuda", &(backend_options){0});
    if (s == CUDPO_OK) s = communicator_nccl(&m, be, c);
    if (s == CUDPO_OK && nccl_plan.record)
        s = flight_open(&record, scratch_path("flight"), rank, j->size, "run");
    if (s == CUDPO_OK) {
        m->record = record;
        s = nccl_plan.script(m);
    }
    if (s != CUDPO_OK) control_abort(c, s, cudpo_error_message());
    communicator_close(m);
    if (be != NULL) be->close(be);
    flight_close(record);
    if (s == CUDPO_OK) s = control_status(c); /* or what was read may be anything */
    return s;
}

static inline float bf16_value(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Rank r's element i; sums of bf16 are exact, those of f32 depend on their order. */
static inline float nccl_given(dtype type, int r, int64_t i)
{
    if (type == DTYPE_BF16) return (float)((i * 7 + r * 13) % 61);
    return (float)((i * 7 + r * 13) % 101) * 0.37f;
}

static inline float nccl_summed(dtype type, int size, int64_t i)
{
    float sum = nccl_given(type, 0, i);
    for (int r = 1; r < size; r++)
        sum += nccl_given(type, r, i);
    return sum;
}

/* n elements of a rank in the backend's memory, with a guard behind. */
static inline cudpo_status nccl_make(tensor *out, communicator *m, dtype type, int64_t n, int rank)
{
    const size_t size = dtype_size(type), bytes = (size_t)(n + NCCL_GUARD) * size;
    unsigned char *host = malloc(bytes);
    void *memory = NULL;
    if (host == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "test");
    for (int64_t i = 0; i < n + NCCL_GUARD; i++) {
        const float x = i < n ? nccl_given(type, rank, i) : -1.0f;
        memcpy(host + (size_t)i * size, (const char *)&x + 4 - size, size);
    }
    cudpo_status s = m->be->alloc(m->be, &memory, bytes);
    if (s == CUDPO_OK) s = m->be->copy_in(m->be, memory, host, bytes);
    free(host);
    *out = tensor_vector(memory, type, n);
    return s;
}

/* Element i of what came back. */
static inline float nccl_element(dtype type, const void *host, int64_t i)
{
    return type == DTYPE_F32 ? ((const float *)host)[i] : bf16_value(((const uint16_t *)host)[i]);
}

typedef float (*wanted)(dtype type, int size, int64_t n, int64_t i);

static inline float want_sum(dtype type, int size, int64_t n, int64_t i)
{
    (void)n;
    return nccl_summed(type, size, i);
}

static inline float want_gathered(dtype type, int size, int64_t n, int64_t i)
{
    int owner = 0;
    while (communicator_share(n, size, owner).end <= i)
        owner++;
    return nccl_given(type, owner, i);
}

static inline float want_first(dtype type, int size, int64_t n, int64_t i)
{
    (void)size, (void)n;
    return nccl_given(type, 0, i);
}

/* Elements begin .. end-1 of x are as wanted, to the bit, and the guard is whole. */
static inline cudpo_status nccl_check(communicator *m, tensor x, rank_share part, wanted want,
                                      const char *what)
{
    const int64_t n = tensor_elements(x);
    const size_t bytes = (size_t)(n + NCCL_GUARD) * dtype_size(x.type);
    void *host = malloc(bytes);
    if (host == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "test");
    cudpo_status s = m->be->copy_out(m->be, host, x.data, bytes);
    for (int64_t i = part.begin; i < n + NCCL_GUARD && s == CUDPO_OK; i++) {
        if (i >= part.end && i < n) continue;
        const float w = i < n ? want(x.type, m->size, n, i) : -1.0f;
        const float got = nccl_element(x.type, host, i);
        if (got != w)
            s = cudpo_fail(CUDPO_ENUMERIC, what, "rank %d of %d: [%d] of %d %s is %.9g, not %.9g",
                           m->rank, m->size, (int)i, (int)n, dtype_name(x.type), (double)got,
                           (double)w);
    }
    free(host);
    return s;
}

/* Each kind of collective, of shares and something left over; what is waited for is the last of them. */
static inline cudpo_status nccl_each_once(communicator *m)
{
    tensor x;
    m->step = 3;
    CUDPO_TRY(nccl_make(&x, m, DTYPE_F32, 2 * SHARE_STEP + 1, m->rank));
    CUDPO_TRY(communicator_broadcast(m, x));
    CUDPO_TRY(communicator_reduce(m, x, 1));
    CUDPO_TRY(communicator_all_gather(m, x));
    CUDPO_TRY(communicator_all_reduce(m, x));
    CUDPO_TRY(communicator_join(m));
    return m->be->sync(m->be);
}

static inline job nccl_begin(int size, cudpo_status (*script)(communicator *m))
{
    nccl_plan = (nccl_job){.script = script, .faulty = -1};
    return job_make(size);
}

static inline void nccl_all_well(job *j)
{
    job_start_all(j, nccl_play);
    for (int r = 0; r < j->size; r++)
        job_expect(j, r, CUDPO_OK, "");
    job_free(j);
}

/* In a process of its own: CUDA does not survive a fork. */
static inline bool nccl_no_gpu(void)
{
    int status;
    fflush(stdout);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const bool missing = plugin_missing();
        fflush(stdout);
        _exit(missing ? TEST_SKIPPED : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIPPED;
}

#endif /* CUDPO_TESTS_TEST_NCCL_H */
