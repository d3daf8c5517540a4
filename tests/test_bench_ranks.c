/* test_bench_ranks.c - rows of `cudpo bench` that several ranks make together: bytes, shares, wrong elements; on the device that
 * $CUDPO_DEVICE names.  Where errors are planted this program itself is the ranks. */
/* rooms: bench */
/* backends: cpu plugin */
#include "plugin.h"
#include "ranks.h"
#include "base/json.h"
#include "bench/collective.h"
#include "cudpo/bench.h"
#include "plan/rates.h"
#include "train/ranks.h"

#include <math.h>

#define MODEL "tests/golden/models/llama3"
#define COLLECTIVES "all_reduce", "reduce_to_one", "all_gather", "broadcast"

enum { PARAMETERS = 34464 }; /* of MODEL */

static double number_of(const json *object, const char *key)
{
    const json *v = json_get(object, key);
    if (v == NULL || json_type(v) != JSON_NUMBER) fail_msg("no number %s", key);
    return json_number(v);
}

static bool is_null(const json *object, const char *key)
{
    const json *v = json_get(object, key);
    if (v == NULL) fail_msg("no %s", key);
    return json_type(v) == JSON_NULL;
}

/* ---- rows ---- */

/* What nccl-tests multiplies the bytes of the tensor with. */
static double factor_of(const char *op, double n)
{
    return strcmp(op, "all_reduce") == 0   ? 2 * (n - 1) / n
           : strcmp(op, "all_gather") == 0 ? (n - 1) / n
                                           : 1;
}

static bool near_to(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fabs(b);
}

/* The numbers of a row belong together.  Returns the share of the ceiling in percent; 0: null. */
static double check_row(const json *row, int ranks, int64_t elements, const char *type, double link)
{
    char shape[64];
    const char *op = json_string(json_get(row, "op"));
    const double us = number_of(row, "median_us"), bytes = number_of(row, "bytes");
    const double size = strcmp(type, "bfloat16") == 0 ? 2 : 4;
    snprintf(shape, sizeof shape, "%lld %s, %d ranks, %s", (long long)elements, type, ranks,
             plugin_asked() ? "nccl" : "tcp");
    assert_string_equal(json_string(json_get(row, "shape")), shape);
    assert_string_equal(json_string(json_get(row, "dtype")), type);
    assert_string_equal(json_string(json_get(row, "model")), MODEL);
    assert_true(number_of(row, "ranks") == ranks && number_of(row, "wrong") == 0);
    assert_true(number_of(row, "calls") >= 5 && number_of(row, "flops") == 0);
    assert_true(number_of(row, "min_us") > 0 && number_of(row, "min_us") <= us);
    assert_true(near_to(bytes, factor_of(op, ranks) * (double)elements * size));
    assert_true(near_to(number_of(row, "gbps"), bytes / us * 1e-3));
    if (link == 0) {
        assert_true(is_null(row, "percent_of_ceiling"));
        return 0;
    }
    assert_true(near_to(number_of(row, "percent_of_ceiling"), 100 * bytes / us * 1e-3 / link));
    return number_of(row, "percent_of_ceiling");
}

/* All rows: each collective, each type, each size.  Returns whether shares are those of what can't be outrun. */
static bool check_rows(const char *path, int ranks, double *bus)
{
    static const char *const ops[] = {COLLECTIVES};
    static const int64_t sizes[] = {1024, PARAMETERS};
    json *tree;
    bool sense = true;
    CHECK_OK(json_load(&tree, path, 1 << 20));
    const json *rows = json_get(tree, "rows"), *ceilings = json_get(tree, "ceilings");
    const int types = plugin_asked() ? 2 : 1;
    const double link = plugin_asked() ? 0 : number_of(ceilings, "link_gbps");
    assert_true(number_of(tree, "ranks") == ranks);
    assert_string_equal(json_string(json_get(tree, "communicator")),
                        plugin_asked() ? "nccl" : "tcp");
    assert_true(plugin_asked() ? is_null(ceilings, "link_gbps") : link > 0);
    assert_int_equal(json_count(rows), 4 * types * 2);
    const json *row = json_first(rows);
    for (int i = 0; i < 4 * types * 2; i++, row = json_next(row)) {
        const char *op = ops[i / (2 * types)], *type = i / 2 % types ? "bfloat16" : "float32";
        assert_string_equal(json_string(json_get(row, "op")), op);
        const double percent = check_row(row, ranks, sizes[i % 2], type, link);
        /* What 1,024 elements take is the others' turn on a busy machine. */
        const double least = sizes[i % 2] == PARAMETERS ? 0.01 : 0;
        if (link > 0) sense = sense && percent > least && percent < 110;
        if (i == 1) *bus = number_of(row, "gbps");
    }
    json_free(tree);
    return sense;
}

static void measure(int ranks, const char *path, const char *calibration)
{
    char *text;
    size_t n;
    rank_group g = ranks_start(
        ranks, (const char *const[]){"bench", COLLECTIVES, "--device",
                                     plugin_asked() ? "cuda" : "cpu", "--shape", MODEL, "--seconds",
                                     "0.01", "--json", path, "--calibrate", calibration, NULL});
    ranks_expect(&g, 0);
    for (int r = 0; r < ranks; r++) {
        char out[16];
        snprintf(out, sizeof out, "OUT.%d", r);
        CHECK_OK(file_read(&text, &n, scratch_path(out), 1 << 20));
        assert_true((strstr(text, "all_gather") != NULL) == (r == 0));
        if (r > 0) assert_string_equal(text, "");
        free(text);
    }
}

/* A stream that others disturb is no ceiling: some of them. */
static void rows_of_ranks(void **state)
{
    (void)state;
    char path[640], rates[640], *text = NULL;
    double bus = 0;
    bool sense = false, found = false;
    int n;
    int64_t changed = -1;
    size_t size;
    snprintf(path, sizeof path, "%s", scratch_path("rows.json"));
    snprintf(rates, sizeof rates, "%s", scratch_path("rates.json"));
    for (int i = 0; i < 6 && !sense; i++) {
        measure(2, path, rates);
        sense = check_rows(path, 2, &bus);
    }
    assert_true(sense);
    CHECK_OK(cudpo_bench_compare(&text, &changed, path, path));
    has(text, plugin_asked() ? "0 of 16 rows changed; 0 are" : "0 of 8 rows changed; 0 are");
    free(text);
    CHECK_OK(
        cudpo_bench_plot(scratch_path("rows.svg"), path)); /* without a roof: nothing computes */
    CHECK_OK(file_read(&text, &size, scratch_path("rows.svg"), 1 << 20));
    assert_true(strstr(text, "nan") == NULL && strstr(text, "inf") == NULL);
    has(text, "all_gather");
    free(text);
    if (plugin_asked()) return;
    /* A plan reckons with the largest all-reduce; and not with its latency as that of an op. */
    device_rates r = {.launch = 7};
    CHECK_OK(rates_load(&r, &found, rates, gpu_table(&n)));
    assert_true(found && near_to(r.bus * 1e-9, bus) && r.launch == 7);
}

/* ---- planted errors ---- */

static cudpo_status (*real_all_reduce)(communicator *c, tensor x, int64_t sequence);
static cudpo_status (*real_join)(communicator *c);
static tensor last;

static cudpo_status remember(communicator *c, tensor x, int64_t sequence)
{
    last = x;
    return real_all_reduce(c, x, sequence);
}

/* One more than right, in one element of one rank. */
static cudpo_status spoil(communicator *c)
{
    CUDPO_TRY(real_join(c));
    if (c->rank == 1 && tensor_present(last)) tensor_f32(last)[tensor_elements(last) - 1] += 1;
    last = (tensor){0};
    return CUDPO_OK;
}

static cudpo_status nothing(communicator *c, tensor x, int64_t sequence)
{
    (void)c, (void)x, (void)sequence;
    return CUDPO_OK;
}

static void plant(communicator *c, const char *error)
{
    real_all_reduce = c->all_reduce;
    real_join = c->join;
    if (strcmp(error, "spoiled") == 0) c->all_reduce = remember, c->join = spoil;
    if (strcmp(error, "silent") == 0)
        c->all_reduce = c->all_gather = c->broadcast = nothing, c->reduce = NULL;
}

static void *left; /* of a collective that failed */

/* Print how many elements of each collective are wrong, and of how many sets. */
static cudpo_status print_wrong(communicator *c)
{
    const bench_settings settings = {.check = true};
    for (int i = 0; i < bench_collective_count; i++) {
        const bench_case what =
            bench_collective_case(&bench_collectives[i], NULL, c, DTYPE_F32, 40000);
        bench_result r;
        bool fits;
        if (strcmp(what.op->op, "reduce_to_one") == 0 && c->reduce == NULL) continue;
        CUDPO_TRY(bench_collective_measure(&r, &fits, &left, c, &what, &settings));
        printf("%s %lld %lld\n", what.op->op, (long long)(fits ? r.wrong : -2), (long long)r.sets);
    }
    const bench_case large = bench_collective_case(&bench_collectives[0], NULL, c, DTYPE_F32, 1000);
    bench_result r;
    bool fits = true;
    CUDPO_TRY(
        bench_collective_measure(&r, &fits, &left, c, &large, &(bench_settings){.memory = 4e3}));
    printf("fits %d\n", fits);
    return CUDPO_OK;
}

/* What a rank does: this program, started again. */
static int rank_main(const char *error)
{
    cudpo_config config;
    run_ranks r;
    communicator *c = NULL;
    backend be = *backend_cpu();
    be.cache = 1 << 18; /* a few sets */
    CUDPO_TRY(cudpo_config_create(&config));
    cudpo_status status = ranks_open(&r, &config, NULL);
    if (status == CUDPO_OK) {
        status = ranks_connect(&c, &r, &be);
        if (status == CUDPO_OK) plant(c, error);
        if (status == CUDPO_OK) status = print_wrong(c);
        communicator_close(c);
        be.free(&be, left);
        status = ranks_close(&r, status);
    }
    cudpo_config_free(&config);
    if (status != CUDPO_OK) fprintf(stderr, "%s\n", cudpo_error_message());
    return status;
}

/* Of what rank 0 printed: the wrong elements of a collective, and its sets. */
static int64_t wrong_of(const char *op, int64_t *sets)
{
    char *text;
    size_t size;
    long long wrong = -3, n = 0;
    CHECK_OK(file_read(&text, &size, scratch_path("OUT.0"), 1 << 20));
    const char *line = strstr(text, op);
    if (line == NULL || sscanf(line + strlen(op), "%lld %lld", &wrong, &n) != 2)
        fail_msg("no %s in %s", op, text);
    has(text, "fits 0");
    free(text);
    *sets = n;
    assert_true(n > 2);
    return wrong;
}

/* The program is this one for as long as ranks are started. */
static void plant_in(int ranks, const char *error)
{
    const char *program = getenv("CUDPO_PROGRAM");
    char *before = program != NULL ? strdup(program) : NULL;
    assert_int_equal(setenv("CUDPO_PROGRAM", "/proc/self/exe", 1), 0);
    rank_group g = ranks_start(ranks, (const char *const[]){"rank", error, NULL});
    assert_int_equal(
        before != NULL ? setenv("CUDPO_PROGRAM", before, 1) : unsetenv("CUDPO_PROGRAM"), 0);
    free(before);
    ranks_expect(&g, 0);
}

/* Nothing is wrong where nothing was planted, with shares of different sizes, too; what was is counted in every set, on every
 * rank.  Operands are whole numbers of -127 .. 127, so that one in some 255 is right by chance where nothing is sent. */
static void planted_errors_are_counted(void **state)
{
    (void)state;
    static const char *const ops[] = {COLLECTIVES};
    int64_t sets;
    plant_in(3, "none");
    for (int i = 0; i < 4; i++)
        assert_int_equal(wrong_of(ops[i], &sets), 0);
    plant_in(2, "spoiled");
    assert_int_equal(wrong_of("all_reduce", &sets), sets);
    plant_in(2, "silent");
    const double all = 40000, chance = 1 - 1.0 / 255;
    static const double ranks[] = {2, 0, 1, 1}; /* what of both ranks is wrong: all, halves, one */
    for (int i = 0; i < 4; i++) {
        if (i == 1) continue;
        const double wrong = (double)wrong_of(ops[i], &sets), want = ranks[i] * all * chance;
        if (!(fabs(wrong / (double)sets - want) < 0.003 * want))
            fail_msg("%s: %g wrong elements of %lld sets, not %g", ops[i], wrong, (long long)sets,
                     want);
    }
}

/* ---- what can't be measured ---- */

static void one_rank_has_no_collectives(void **state)
{
    (void)state;
    SAYS(64, "all_gather: takes several ranks: cudpo launch --nproc 2 -- bench all_gather", "bench",
         "all_gather", "--device", "cpu");
    SAYS(78, "ddp_backend", "bench", "add", "--device", "cpu", "--ddp_backend", "pigeons");
    program_result r = RUN(0, "bench", "--list");
    has(r.out, "swiglu\n");
    has(r.out, "all_reduce\nreduce_to_one\nall_gather\nbroadcast\n");
    program_free(&r);
}

/* Ranks that were told different things end, instead of waiting for one another; so they do where rank 0 can't write. */
static void ranks_end_together(void **state)
{
    (void)state;
    static const char *const shapes[] = {MODEL, "Qwen2.5-0.5B"};
    rank_group g = {.size = 2};
    const int port = ranks_port();
    for (int i = 0; i < 2; i++)
        g.pid[i] =
            ranks_start_one(i, 2, port,
                            (const char *const[]){"bench", "all_reduce", "--device", "cpu",
                                                  "--shape", shapes[i], "--seconds", "0", NULL});
    ranks_expect(&g, 78);
    ranks_says(0, "rank 1 measures something else than rank 0");
    ranks_says(1, "rank 1 measures something else than rank 0");
    g = ranks_start(2,
                    (const char *const[]){"bench", "broadcast", "--device", "cpu", "--shape", MODEL,
                                          "--seconds", "0", "--json", "none/rows.json", NULL});
    ranks_wait(&g, 120);
    assert_true(g.status[0] != 0 && g.status[1] == g.status[0]);
    ranks_says(1, "none/rows.json");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_ranks),
        cmocka_unit_test(planted_errors_are_counted),
        cmocka_unit_test(one_rank_has_no_collectives),
        cmocka_unit_test(ranks_end_together),
    };
    const struct CMUnitTest on_device[] = {cmocka_unit_test(rows_of_ranks)};
    if (argc > 1) /* a rank runs no tests, whatever it was told: they would start ranks */
        return argc > 2 && strcmp(argv[1], "rank") == 0 ? rank_main(argv[2]) : CUDPO_EUSAGE;
    if (!plugin_asked()) return cmocka_run_group_tests(tests, NULL, scratch_remove);
    return plugin_missing() ? 77 : cmocka_run_group_tests(on_device, NULL, scratch_remove);
}
