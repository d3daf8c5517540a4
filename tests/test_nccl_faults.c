/* test_nccl_faults.c - a run ends where NCCL fails, hangs or is in progress for ever, where a call of CUDA fails, and where a peer
 * is gone or at something else: in time, on both ranks, with a message that says what and where.
 *
 * Jobs mostly wait, so some run at a time.  With $CUDPO_EVERY_CALL every call of NCCL has each of its results, else one. */
/* rooms: dist */
/* backends: plugin */
#include "test_nccl.h"

/* s: ddp_timeout, control's grace, and what a job may take: both, the time that NCCL has to end, and that of a slow machine. */
static const double TIMEOUT = 1.5, GRACE = 1.5, BOUND = 20.0;

enum { AT_ONCE = 4 };

/* A job with a fault, and what came of it. */
typedef struct trial {
    nccl_job what;
    double timeout, grace; /* 0: TIMEOUT, GRACE */
    job j;
    double begun;
    int status[2]; /* exit status */
    double seconds;
    bool reached; /* the fault was */
    char err[2][4096];
} trial;

static int trial_started; /* among those of its batch */

static const char *err_path(int number, int rank)
{
    char name[32];
    snprintf(name, sizeof name, "ERR-%d-%d", number, rank);
    return scratch_path(name);
}

static cudpo_status play_apart(control *c, job *j, int rank)
{
    const int fd = open(err_path(trial_started, rank), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || dup2(fd, 2) < 0) _exit(126);
    close(fd);
    const cudpo_status s = nccl_play(c, j, rank);
    if (s != CUDPO_OK) fprintf(stderr, "cudpo: %s\n", cudpo_error_message());
    return s;
}

static void start(trial *t, int number)
{
    trial_started = number;
    nccl_plan = t->what;
    t->j = job_make(2);
    t->j.options.peer_timeout = t->timeout > 0 ? t->timeout : TIMEOUT;
    t->j.options.grace = t->grace > 0 ? t->grace : GRACE;
    t->begun = program_clock();
    job_start_all(&t->j, play_apart);
}

static void finish(trial *t, int number)
{
    for (int r = 0; r < 2; r++)
        t->status[r] = job_end(&t->j, r);
    t->seconds = program_clock() - t->begun;
    for (int r = 0; r < 2; r++) {
        char *text = NULL;
        size_t n = 0;
        CHECK_OK(file_read(&text, &n, err_path(number, r), 1 << 20));
        snprintf(t->err[r], sizeof t->err[r], "%s", text);
        free(text);
    }
    t->reached = t->what.faulty >= 0 && strstr(t->err[t->what.faulty], "asks\n") != NULL;
    job_free(&t->j);
}

static void run(trial *t, int n)
{
    for (int i = 0; i < n; i++)
        start(&t[i], i);
    for (int i = 0; i < n; i++)
        finish(&t[i], i);
}

/* One variable of the faulty rank's environment, and SIMT_LAZY. */
static trial trial_of(int faulty, const char *name, const char *value, const char *lazy)
{
    return (trial){
        .what = {.script = nccl_each_once,
                 .faulty = faulty,
                 .environment = {{name, value}, {lazy != NULL ? "SIMT_LAZY" : NULL, lazy}}}};
}

static void ended(const trial *t, const char *what, int status)
{
    if (t->seconds > BOUND || t->status[0] != status || t->status[1] != status)
        fail_msg("%s: %.1f s, status %d and %d: %s%s", what, t->seconds, t->status[0], t->status[1],
                 t->err[0], t->err[1]);
}

/* Both ranks ended as for a device or a peer, in time, with messages that hold `text`. */
static void failed(const trial *t, const char *what, const char *text)
{
    ended(t, what, 69);
    for (int r = 0; r < 2; r++) {
        const char *const message = strstr(t->err[r], "cudpo: ");
        if (message == NULL || strstr(message, text) == NULL)
            fail_msg("%s: no \"%s\" in %s", what, text, t->err[r]);
    }
}

/* The name of the function in "SIMT: NCCL call 7, ncclAllReduce, gives .." */
static const char *asked(const trial *t)
{
    static char name[64];
    name[0] = '\0';
    const char *line = strstr(t->err[t->what.faulty], "SIMT: NCCL call ");
    if (line != NULL) (void)sscanf(line, "SIMT: NCCL call %*d, %63[^,]", name);
    return name;
}

/* What fails at the very end harms nobody; who aborts does not ask. */
static bool harmless(const char *function)
{
    return strcmp(function, "ncclCommFinalize") == 0 || strcmp(function, "ncclCommDestroy") == 0 ||
           strcmp(function, "ncclCommAbort") == 0;
}

/* The message names the rank, the call, its collective where there is one, and NCCL's code. */
static void named(const trial *t, const char *value, int code)
{
    char text[64];
    const char *const function = asked(t);
    const bool start =
        strcmp(function, "ncclGetUniqueId") == 0 || strcmp(function, "ncclCommInitRankConfig") == 0;
    snprintf(text, sizeof text, "(%d)", code);
    failed(t, value, text);
    snprintf(text, sizeof text, "NCCL on rank %d: ", t->what.faulty);
    failed(t, value, text);
    failed(t, value, start ? function : " of step 3: nccl");
}

static void check_call(const trial *t, const char *value, int code)
{
    if (harmless(asked(t)))
        ended(t, value, 0);
    else if (strcmp(asked(t), "ncclGetVersion") == 0)
        failed(t, value, "libcudpo_nccl_emulated.so does not say its version");
    else
        named(t, value, code);
}

/* Every call of either rank, every result that NCCL has. */
static void every_call_fails(void **state)
{
    (void)state;
    const bool every = getenv("CUDPO_EVERY_CALL") != NULL;
    int runs = 0, sites = 0;
    for (int faulty = 0; faulty < 2; faulty++) {
        bool reached = true;
        for (int at = 0; reached; at += AT_ONCE) {
            static trial t[AT_ONCE];
            char value[AT_ONCE][32];
            int code[AT_ONCE];
            for (int i = 0; i < AT_ONCE; i++) {
                const int call = every ? 1 + (at + i) / 7 : 1 + at + i;
                code[i] = 1 + (every ? (at + i) % 7 : (call + 3 * faulty) % 7);
                snprintf(value[i], sizeof value[i], "%d:%d", call, code[i]);
                t[i] = trial_of(faulty, "SIMT_NCCL_FAIL", value[i], NULL);
            }
            run(t, AT_ONCE);
            for (int i = 0; i < AT_ONCE; i++) {
                reached = reached && t[i].reached;
                if (!t[i].reached) ended(&t[i], value[i], 0);
                if (!t[i].reached) continue;
                check_call(&t[i], value[i], code[i]);
                runs++;
                sites += !every || code[i] == 1;
            }
            assert_true(at < 1000);
        }
    }
    printf("%d calls of NCCL, %d runs\n", sites, runs);
    assert_true(sites >= 35 && runs >= (every ? 7 : 1) * sites);
}

/* An operation of NCCL's hangs on the GPU, where the host waits for it, and NCCL knows of an error, or (0) of none.  Where the main
 * thread is in a call of NCCL meanwhile (not lazy), nobody else may ask NCCL, and rank 0's clock decides, too. */
static void fails_on_the_gpu(void **state)
{
    (void)state;
    for (int code = 0; code <= 6; code++) {
        trial t[2];
        char value[32], text[64];
        snprintf(value, sizeof value, "%d:%d", 2 + code % 3, code);
        t[0] = trial_of(code % 2, "SIMT_NCCL_ASYNC", value, NULL);
        t[1] = trial_of(code % 2, "SIMT_NCCL_ASYNC", value, "1");
        run(t, 2);
        assert_true(t[0].reached && t[1].reached);
        failed(&t[0], value, "all ranks: stand still at step 3 in ");
        snprintf(text, sizeof text, "NCCL on rank %d: ", code % 2);
        failed(&t[1], value, code == 0 ? "all ranks: stand still at step 3 in " : text);
        failed(&t[1], value, code == 0 ? "" : " of step 3: ncclCommGetAsyncError: ");
        snprintf(text, sizeof text, "(%d)", code);
        failed(&t[1], value, code == 0 ? "" : text);
    }
}

/* The question what became of a call fails itself. */
static void polls_fail(void **state)
{
    (void)state;
    static const char *const values[] = {"1:3", "2:1", "5:4", "8:6"};
    trial t[4];
    for (int i = 0; i < 4; i++)
        t[i] = trial_of(1, "SIMT_NCCL_POLL", values[i], NULL);
    run(t, 4);
    for (int i = 0; i < 4; i++) {
        const char text[] = {'(', values[i][2], ')', '\0'};
        failed(&t[i], values[i], text);
    }
}

/* A call of NCCL that never returns, on one rank: the clock of whoever waits for it ends all. */
static void calls_hang(void **state)
{
    (void)state;
    static const struct {
        const char *function, *text;
        int rank;
    } hung[] = {
        {"ncclGetVersion", "", 1},
        {"ncclGetUniqueId", "rank 0 did not come: others wait at 'NCCL's id'", 0},
        {"ncclCommInitRankConfig", "NCCL on rank 0: ncclCommInitRankConfig: ", 1},
        {"ncclGroupStart", "rank 1 did not come: rank 0 waits at step 3 in broadcast 1", 1},
        {"ncclReduce", "rank 1 did not come: rank 0 waits at step 3 in reduce 2", 1},
        {"ncclAllGather", "rank 0 did not come: rank 1 waits at step 3 in all_gather 3", 0},
        {"ncclAllReduce", "rank 0 did not come: rank 1 waits at step 3 in all_reduce 4", 0},
        {"ncclGroupEnd", "rank 1 did not come: rank 0 waits at step 3 in broadcast 1", 1},
    };
    for (int at = 0; at < 8; at += AT_ONCE) {
        trial t[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++)
            t[i] = trial_of(hung[at + i].rank, "SIMT_NCCL_HANG", hung[at + i].function, NULL);
        run(t, AT_ONCE);
        for (int i = 0; i < AT_ONCE; i++) {
            assert_true(t[i].reached);
            failed(&t[i], hung[at + i].function, hung[at + i].text);
        }
    }
}

/* Calls that end NCCL hang: after a failure control ends the process with its reason; else it is left behind. */
static void ends_hang(void **state)
{
    (void)state;
    trial t[4];
    t[0] = trial_of(1, "SIMT_NCCL_HANG", "ncclCommAbort", NULL);
    t[1] = trial_of(1, "SIMT_NCCL_HANG", "ncclCommAbort", "1");
    for (int i = 0; i < 2; i++) {
        t[i].what.environment[2][0] = "SIMT_NCCL_ASYNC";
        t[i].what.environment[2][1] = "2:1";
    }
    t[2] = trial_of(1, "SIMT_NCCL_HANG", "ncclCommFinalize", NULL);
    t[3] = trial_of(1, "SIMT_NCCL_HANG", "ncclCommDestroy", NULL);
    run(t, 4);
    for (int i = 0; i < 2; i++) {
        has(t[i].err[1], "ncclCommAbort hangs");
        failed(&t[i], "ncclCommAbort", "step 3");
    }
    for (int i = 2; i < 4; i++) {
        assert_true(t[i].reached);
        ended(&t[i], "ncclCommFinalize or -Destroy", 0);
        has(t[i].err[1], "NCCL on rank 1 does not end");
    }
}

/* Peers that are killed, stand still, call something else, or leave.  Control would end the process late: it is NCCL's abort that
 * lets the main thread go on. */

static cudpo_status killed(communicator *m)
{
    CUDPO_TRY(nccl_each_once(m));
    if (m->rank == 1) raise(SIGKILL);
    return nccl_each_once(m);
}

static cudpo_status late(communicator *m)
{
    CUDPO_TRY(nccl_each_once(m));
    if (m->rank == 0) return nccl_each_once(m);
    const double until = program_clock() + BOUND;
    while (program_clock() < until && control_status(m->company) == CUDPO_OK)
        program_sleep(0.01);
    return control_status(m->company);
}

static cudpo_status leaves_first(communicator *m)
{
    CUDPO_TRY(nccl_each_once(m));
    return m->rank == 0 ? CUDPO_OK : nccl_each_once(m);
}

static cudpo_status leaves_second(communicator *m)
{
    CUDPO_TRY(nccl_each_once(m));
    return m->rank == 1 ? CUDPO_OK : nccl_each_once(m);
}

static cudpo_status at_odds(communicator *m)
{
    tensor x;
    m->step = 3;
    CUDPO_TRY(nccl_make(&x, m, DTYPE_F32, 1000, m->rank));
    CUDPO_TRY(m->rank == 0 ? communicator_all_reduce(m, x) : communicator_broadcast(m, x));
    CUDPO_TRY(communicator_join(m));
    return m->be->sync(m->be);
}

static void peers(void **state)
{
    (void)state;
    static cudpo_status (*const scripts[])(communicator *) = {killed, late, at_odds, leaves_first,
                                                              leaves_second};
    for (int lazy = 0; lazy < 2; lazy++) {
        trial t[5];
        for (int i = 0; i < 5; i++)
            t[i] = (trial){.what = {.script = scripts[i],
                                    .faulty = -1,
                                    .environment = {{lazy ? "SIMT_LAZY" : NULL, "1"}}},
                           .grace = 2 * BOUND};
        run(t, 5);
        assert_true(t[0].status[0] == 69 && t[0].status[1] == 128 + SIGKILL);
        has(t[0].err[0], "cudpo: rank 1 was lost: it closed its connection");
        assert_true(t[0].seconds < 5);
        failed(&t[1], "late", "rank 1 did not come: rank 0 waits at step 3 in broadcast 5");
        failed(&t[2], "at odds", "all ranks: stand still at step 3 in ");
        failed(&t[3], "leaves", "rank 0 did not come: rank 1 waits at step 3 in broadcast 5");
        failed(&t[4], "leaves", "rank 1 did not come: rank 0 waits at step 3 in broadcast 5");
    }
}

static cudpo_status killed_later(communicator *m)
{
    CUDPO_TRY(nccl_each_once(m));
    if (m->rank == 1) {
        program_sleep(0.3);
        raise(SIGKILL);
    }
    return nccl_each_once(m);
}

/* NCCL notices a lost peer before control does, in a call and on the GPU: the message is control's. */
static void the_peer_is_named(void **state)
{
    (void)state;
    trial t[2] = {trial_of(0, "SIMT_NCCL_FAIL", "17:6", NULL),
                  trial_of(0, "SIMT_NCCL_ASYNC", "6:6", "1")};
    for (int i = 0; i < 2; i++) {
        t[i].what.script = killed_later;
        t[i].timeout = 4; /* NCCL's word waits for a second of it */
    }
    run(t, 2);
    for (int i = 0; i < 2; i++) {
        assert_true(t[i].reached && t[i].status[0] == 69 && t[i].status[1] == 128 + SIGKILL);
        has(t[i].err[0], "cudpo: rank 1 was lost: it closed its connection");
        assert_null(strstr(t[i].err[0], "NCCL on rank"));
    }
}

/* Rank 0 leaves at once, since NCCL's goodbye fails: nobody is left who looks at the clock for all. */
static void alone_in_a_collective(void **state)
{
    (void)state;
    trial t = trial_of(0, "SIMT_NCCL_FAIL", "17:5", NULL);
    t.what.script = leaves_first;
    run(&t, 1);
    assert_string_equal(asked(&t), "ncclCommFinalize");
    if (t.status[0] != 0 || t.status[1] != 69 || t.seconds > BOUND)
        fail_msg("%.1f s, status %d and %d", t.seconds, t.status[0], t.status[1]);
    has(t.err[1], "NCCL on rank 1: broadcast 5 of step 3: on the GPU: NCCL operation in progress "
                  "(7) after 1.5 s, ddp_timeout");
}

/* The N-th call of the CUDA runtime fails, as in test_cuda_faults: the communicator's come behind the backend's. */
static void cuda_fails(void **state)
{
    (void)state;
    int runs = 0, unharmed = 0;
    long n = 1;
    for (bool reached = true; reached;) {
        static trial t[AT_ONCE];
        char value[AT_ONCE][32];
        for (int i = 0; i < AT_ONCE; i++, n += 1 + n / 6) {
            snprintf(value[i], sizeof value[i], "%ld", n);
            t[i] = trial_of(1, "SIMT_FAIL", value[i], NULL);
        }
        run(t, AT_ONCE);
        for (int i = 0; i < AT_ONCE; i++, runs++) {
            reached = reached && t[i].reached;
            const int status = t[i].status[1];
            if (status != 0 && status != 71)
                failed(&t[i], value[i], "");
            else
                ended(&t[i], value[i], status);
            unharmed += t[i].reached && status == 0;
        }
        assert_true(runs < 1000);
    }
    printf("%d runs, %d of them unharmed\n", runs, unharmed);
    assert_true(runs > 20);
}

int main(void)
{
    if (!plugin_emulated()) {
        printf("skipped: these faults are the emulator's\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_fails),  cmocka_unit_test(fails_on_the_gpu),
        cmocka_unit_test(polls_fail),        cmocka_unit_test(calls_hang),
        cmocka_unit_test(ends_hang),         cmocka_unit_test(peers),
        cmocka_unit_test(the_peer_is_named), cmocka_unit_test(alone_in_a_collective),
        cmocka_unit_test(cuda_fails),
    };
    setenv("TMPDIR", scratch_folder(), 1); /* of what the emulated NCCL leaves where it fails */
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
