/* test_nccl.c - NCCL's communicator: what it computes, and in which order with the ops.
 *
 * On the emulated GPU NCCL is tests/simt/nccl.  On a real one only what one GPU can do is run: one rank, and two that NCCL is
 * told are of two machines. */
/* rooms: dist */
/* backends: plugin */
#include "test_nccl.h"
#include "dist/flight_read.h"

static cudpo_status reduce_to_first(communicator *m, tensor x)
{
    return communicator_reduce(m, x, 0);
}

static cudpo_status reduce_to_last(communicator *m, tensor x)
{
    return communicator_reduce(m, x, m->size - 1);
}

typedef struct operation {
    const char *name;
    cudpo_status (*run)(communicator *m, tensor x);
    wanted want;
} operation;

static const operation operations[] = {
    {"all_reduce", communicator_all_reduce, want_sum},
    {"reduce to the first", reduce_to_first, want_sum},
    {"reduce to the last", reduce_to_last, want_sum},
    {"all_gather", communicator_all_gather, want_gathered},
    {"broadcast", communicator_broadcast, want_first},
};
enum { OPERATIONS = 5, SIZES = 9 };

/* What is defined of the result. */
static rank_share part_of(const operation *o, const communicator *m, int64_t n)
{
    const bool nothing = (o->run == reduce_to_first && m->rank != 0) ||
                         (o->run == reduce_to_last && m->rank != m->size - 1);
    return (rank_share){0, nothing ? 0 : n};
}

static cudpo_status one(communicator *m, const operation *o, dtype type, int64_t n)
{
    tensor x;
    CUDPO_TRY(nccl_make(&x, m, type, n, m->rank));
    CUDPO_TRY(o->run(m, x));
    CUDPO_TRY(communicator_join(m));
    CUDPO_TRY(nccl_check(m, x, part_of(o, m, n), o->want, o->name));
    m->be->free(m->be, x.data);
    return CUDPO_OK;
}

static cudpo_status every_operation(communicator *m)
{
    const int64_t step = (int64_t)SHARE_STEP * m->size;
    const int64_t sizes[SIZES] = {1,    m->size - 1, m->size, m->size + 1, step - 1,
                                  step, step + 1,    1000,    100000};
    for (int type = DTYPE_F32; type <= DTYPE_BF16; type++) {
        for (int o = 0; o < OPERATIONS; o++) {
            for (int i = 0; i < SIZES; i++) {
                m->step = i + 1;
                if (sizes[i] > 0) CUDPO_TRY(one(m, &operations[o], (dtype)type, sizes[i]));
            }
        }
    }
    return CUDPO_OK;
}

/* What the GPU does is ordered by the communicator alone: no host waits before the end.  x is written by an op, summed, and read
 * by an op; so is y, whose sum runs beside the ops on x. */
static cudpo_status beside_ops(communicator *m, bool join)
{
    enum { N = 5000 };
    tensor x, y, a, b, z;
    CUDPO_TRY(nccl_make(&x, m, DTYPE_F32, N, m->rank));
    CUDPO_TRY(nccl_make(&y, m, DTYPE_F32, N, m->rank));
    CUDPO_TRY(nccl_make(&a, m, DTYPE_F32, N, 0));
    CUDPO_TRY(nccl_make(&b, m, DTYPE_F32, N, 1));
    CUDPO_TRY(nccl_make(&z, m, DTYPE_F32, N, 2));
    CUDPO_TRY(m->be->zero(m->be, x));
    CUDPO_TRY(m->be->zero(m->be, z));
    CUDPO_TRY(m->be->add(m->be, x, m->rank == 0 ? a : b)); /* x = nccl_given(0), or nccl_given(1) */
    CUDPO_TRY(communicator_all_reduce(m, x));
    CUDPO_TRY(m->be->zero(m->be, y));
    CUDPO_TRY(m->be->add(m->be, y, a)); /* y = nccl_given(0) on both */
    CUDPO_TRY(communicator_broadcast(m, y));
    if (join) CUDPO_TRY(communicator_join(m));
    CUDPO_TRY(m->be->add(m->be, z, x)); /* z = their sum */
    CUDPO_TRY(nccl_check(m, z, (rank_share){0, N}, want_sum, "z"));
    CUDPO_TRY(nccl_check(m, x, (rank_share){0, N}, want_sum, "x"));
    return nccl_check(m, y, (rank_share){0, N}, want_first, "y");
}

static cudpo_status beside_ops_joined(communicator *m)
{
    return beside_ops(m, true);
}

static cudpo_status beside_ops_not_joined(communicator *m)
{
    return beside_ops(m, false);
}

/* More than are remembered at a time, and none waited for. */
static cudpo_status many_in_flight(communicator *m)
{
    tensor x;
    m->step = 3;
    CUDPO_TRY(nccl_make(&x, m, DTYPE_F32, 3, m->rank));
    CUDPO_TRY(communicator_all_reduce(m, x));
    for (int i = 0; i < 600; i++)
        CUDPO_TRY(communicator_broadcast(m, x));
    CUDPO_TRY(communicator_join(m));
    return nccl_check(m, x, (rank_share){0, 3}, want_sum, "x");
}

static const char *const modes[] = {NULL, "1", "ahead"}; /* of SIMT_LAZY */

static void collectives(void **state)
{
    (void)state;
    for (int size = 2; size <= 3; size++) {
        for (int mode = 0; mode < 3; mode++) {
            job j = nccl_begin(size, every_operation);
            if (modes[mode] != NULL) nccl_plan.environment[0][0] = "SIMT_LAZY";
            nccl_plan.environment[0][1] = modes[mode];
            nccl_all_well(&j);
        }
    }
}

static void order_with_ops(void **state)
{
    (void)state;
    for (int mode = 0; mode < 3; mode++) {
        job j = nccl_begin(2, beside_ops_joined);
        if (modes[mode] != NULL) nccl_plan.environment[0][0] = "SIMT_LAZY";
        nccl_plan.environment[0][1] = modes[mode];
        nccl_all_well(&j);
    }
}

/* This test would notice a join that does nothing. */
static void missing_join_shows(void **state)
{
    (void)state;
    job j = nccl_begin(2, beside_ops_not_joined);
    nccl_plan.environment[0][0] = "SIMT_LAZY";
    nccl_plan.environment[0][1] = "1";
    job_start_all(&j, nccl_play);
    job_expect(&j, 0, CUDPO_ENUMERIC, "z: rank ");
    job_expect(&j, 1, CUDPO_ENUMERIC, "z: rank "); /* its own failure, or what it heard first */
    job_free(&j);
}

/* The record of both ranks has so many collectives, all as completed, by the GPU's events. */
static void check_record(int collectives)
{
    flight_records f = {0};
    CHECK_OK(flight_read(&f, scratch_path("flight")));
    assert_int_equal(f.n, 2);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(f.ranks[r].newest, collectives);
        for (int i = 1; i <= collectives; i++) {
            const flight_event *e = flight_event_of(&f.ranks[r], i);
            if (e->state != FLIGHT_COMPLETED) fail_msg("rank %d, %d: state %d", r, i, e->state);
            assert_true(e->scheduled > 0 && e->started >= e->scheduled &&
                        e->completed >= e->started);
            assert_int_equal(e->step, 3);
        }
    }
    flight_records_free(&f);
}

static void in_the_record(void **state)
{
    (void)state;
    job j = nccl_begin(2, nccl_each_once);
    nccl_plan.record = true;
    nccl_all_well(&j);
    check_record(4);
}

static void more_than_are_remembered(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        job j = nccl_begin(2, many_in_flight);
        nccl_plan.record = true;
        if (modes[mode] != NULL) nccl_plan.environment[0][0] = "SIMT_LAZY";
        nccl_plan.environment[0][1] = modes[mode];
        nccl_all_well(&j);
        check_record(601);
    }
}

/* Hardware that adds in no fixed order is not used, unless somebody wants it. */
static cudpo_status no_switches(communicator *m)
{
    const char *value = getenv("NCCL_NVLS_ENABLE");
    if (value != NULL && strcmp(value, m->rank == 0 ? "0" : "2") == 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, "NCCL_NVLS_ENABLE", "%s", value != NULL ? value : "not set");
}

static void same_bits_are_asked_for(void **state)
{
    (void)state;
    job j = nccl_begin(2, no_switches);
    nccl_plan.faulty = 1;
    nccl_plan.environment[0][0] = "NCCL_NVLS_ENABLE";
    nccl_plan.environment[0][1] = "2";
    nccl_all_well(&j);
}

/* Without NCCL, with an old one, with something else; with the variable that makes its id known to all. */
static cudpo_status nothing(communicator *m)
{
    (void)m;
    return CUDPO_OK;
}

static void refuse(const char *name, const char *value, cudpo_status want, const char *text)
{
    job j = nccl_begin(1, nothing);
    nccl_plan.environment[0][0] = name;
    nccl_plan.environment[0][1] = value;
    job_start_all(&j, nccl_play);
    job_expect(&j, 0, want, text);
    job_free(&j);
}

static void no_nccl(void **state)
{
    (void)state;
    refuse("CUDPO_NCCL", "/nowhere/libnccl.so.2", CUDPO_EDEVICE, "cannot open shared object");
    refuse("CUDPO_NCCL", "/nowhere/libnccl.so.2", CUDPO_EDEVICE,
           "install NCCL (libnccl2, or nvidia-nccl");
    refuse("CUDPO_NCCL", "/nowhere/libnccl.so.2", CUDPO_EDEVICE, "or set ddp_backend");
    refuse("CUDPO_NCCL", getenv("CUDPO_PLUGIN"), CUDPO_EDEVICE, "it has no ncclGetVersion");
    refuse("NCCL_COMM_ID", "127.0.0.1:9999", CUDPO_ECONFIG, "NCCL_COMM_ID: unset it");
    if (plugin_emulated())
        refuse("SIMT_NCCL_VERSION", "21204", CUDPO_EDEVICE,
               "is of version 21204, and 21400 or later");
}

/* `cudpo doctor` names the library. */
static void doctor(void **state)
{
    (void)state;
    program_result r = RUN(0, "doctor");
    has(r.out, "NCCL");
    has(r.out, "2.28.9, ");
    program_free(&r);
    char before[1024];
    snprintf(before, sizeof before, "%s", getenv("CUDPO_NCCL"));
    setenv("CUDPO_NCCL", "/nowhere/libnccl.so.2", 1);
    r = RUN(0, "doctor");
    setenv("CUDPO_NCCL", before, 1);
    has(r.out, "NCCL: it can't be loaded");
    program_free(&r);
}

/* One rank has nothing to say to others, so NCCL is called behind communicator_*(). */
static cudpo_status alone(communicator *m)
{
    tensor x;
    CUDPO_TRY(nccl_make(&x, m, DTYPE_F32, 1000, 0));
    CUDPO_TRY(m->all_reduce(m, x, 1));
    CUDPO_TRY(m->reduce(m, x, 0, 2));
    CUDPO_TRY(m->all_gather(m, x, 3));
    CUDPO_TRY(m->broadcast(m, x, 4));
    CUDPO_TRY(m->join(m));
    return nccl_check(m, x, (rank_share){0, 1000}, want_first, "x");
}

static void one_rank(void **state)
{
    (void)state;
    job j = nccl_begin(1, alone);
    nccl_all_well(&j);
}

static void two_ranks_on_one_gpu(void **state)
{
    (void)state;
    job j = nccl_begin(2, every_operation);
    nccl_all_well(&j);
    j = nccl_begin(2, beside_ops_joined);
    nccl_all_well(&j);
}

int main(void)
{
    const struct CMUnitTest real[] = {
        cmocka_unit_test(one_rank),
        cmocka_unit_test(two_ranks_on_one_gpu),
        cmocka_unit_test(no_nccl),
    };
    const struct CMUnitTest emulated[] = {
        cmocka_unit_test(one_rank),
        cmocka_unit_test(collectives),
        cmocka_unit_test(order_with_ops),
        cmocka_unit_test(missing_join_shows),
        cmocka_unit_test(in_the_record),
        cmocka_unit_test(more_than_are_remembered),
        cmocka_unit_test(same_bits_are_asked_for),
        cmocka_unit_test(no_nccl),
        cmocka_unit_test(doctor),
    };
    if (nccl_no_gpu()) return TEST_SKIPPED;
    setenv("TMPDIR", scratch_folder(), 1); /* of what the emulated NCCL leaves where it fails */
    return plugin_emulated() ? cmocka_run_group_tests(emulated, NULL, scratch_remove)
                             : cmocka_run_group_tests(real, NULL, scratch_remove);
}
