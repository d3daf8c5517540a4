/* test_bench_files.c - what `cudpo bench` writes and reads: its table, rates for a plan, pictures. */
/* rooms: bench */
/* backends: cpu plugin */
#include "test.h"
#include "base/file.h"
#include "base/json.h"
#include "bench/bench.h"
#include "bench/machine.h"
#include "cudpo/bench.h"
#include "plan/rates.h"
#include "plugin.h"
#include "scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void bad_files_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"[]", "rows"},
        {"{\"rows\": 3}", "rows"},
        {"{\"rows\": [3]}", "row 0 has no \"op\""},
        {"{\"rows\": [{\"op\": \"add\", \"pass\": \"\", \"model\": \"m\", \"shape\": \"s\"}]}",
         "row 0 has no \"dtype\""},
        {"{\"rows\": [{\"op\": \"add\", \"pass\": \"\", \"model\": \"m\", \"shape\": \"s\", "
         "\"dtype\": \"float32\", \"median_us\": 0, \"spread_us\": 1}]}",
         "no time above 0"}};
    char *text = NULL;
    int64_t changed;
    for (int i = 0; i < 5; i++) {
        const char *path = scratch_text("bad.json", bad[i][0]);
        CHECK_FAILS(cudpo_bench_compare(&text, &changed, path, path), CUDPO_EDATA, bad[i][1]);
        assert_null(text);
    }
    const char *none = scratch_path("none.json");
    CHECK_FAILS(cudpo_bench_compare(&text, &changed, none, none), CUDPO_ENOINPUT, "none.json");
}

static void count_line(void *context, const char *text)
{
    assert_non_null(text);
    ++*(int *)context;
}

/* The whole table of a tiny model: every field of every row, and numbers that belong together.  On a device its ops are
 * compared with the CPU's. */
static void the_file_has_all_fields(void **state)
{
    (void)state;
    static const char *const numbers[] = {"median_us", "min_us", "bytes", "gbps",
                                          "percent_of_ceiling"};
    const char *path = scratch_path("bench.json");
    const char *shapes[] = {"tests/golden/models/llama3"};
    const cudpo_bench_options o = {.shapes = shapes,
                                   .shape_count = 1,
                                   .device = plugin_asked() ? "cuda" : "cpu",
                                   .json = path,
                                   .command = "cudpo bench 'a b'",
                                   .groups = 1,
                                   .length = plugin_asked() ? 4 : 16,
                                   .no_baseline = plugin_asked()};
    int lines = 0;
    json *tree;
    CHECK_OK(cudpo_bench(&o, count_line, &lines));
    assert_int_equal(lines, bench_op_count + 2);
    CHECK_OK(json_load(&tree, path, 1 << 20));
    const json *rows = json_get(tree, "rows"), *ceilings = json_get(tree, "ceilings");
    assert_true(json_number(json_get(ceilings, "copy_gbps")) > 0);
    assert_true(json_number(json_get(ceilings, "float32_tflops")) > 0);
    assert_non_null(json_string(json_get(tree, "device")));
    assert_string_equal(json_string(json_get(tree, "command")), o.command);
    assert_string_equal(json_string(json_get(tree, "version")), CUDPO_VERSION);
    assert_non_null(json_get(tree, "processor"));
    assert_true(json_number(json_get(tree, "threads")) >= 1);
    assert_int_equal(json_count(rows), bench_op_count);
    for (const json *row = json_first(rows); row != NULL; row = json_next(row)) {
        for (int i = 0; i < 5; i++)
            assert_true(json_number(json_get(row, numbers[i])) > 0);
        const double us = json_number(json_get(row, "median_us"));
        const double gbps = json_number(json_get(row, "bytes")) / us * 1e-3;
        assert_true(fabs(json_number(json_get(row, "gbps")) / gbps - 1) < 0.01 || us < 0.1);
        assert_true(json_number(json_get(row, "wrong")) == 0);
        assert_true(json_get(row, "flops") && json_get(row, "tflops") && json_get(row, "dtype") &&
                    json_get(row, "spread_us") && json_get(row, "baseline_ratio") &&
                    json_get(row, "cached") && json_get(row, "sets") && json_get(row, "calls"));
    }
    json_free(tree);
}

/* As Linux says it on x86, POWER and ARM; the first of several. */
static void processors_have_names(void **state)
{
    (void)state;
    static const char *const said[][2] = {
        {"processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\n"
         "model name\t: AMD EPYC 7B13\n\nmodel name\t: other\n",
         "AMD EPYC 7B13"},
        {"processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 2.1GHz\n",
         "POWER9, altivec supported"},
        {"processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f\n",
         "ARM part 0xd4f of implementer 0x41"},
        {"model name\n", ""}};
    char name[64];
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        bench_processor(name, sizeof name, scratch_text("cpuinfo", said[i][0]));
        assert_string_equal(name, said[i][1]);
    }
    bench_processor(name, sizeof name, scratch_path("nothing"));
    assert_string_equal(name, "");
}

/* Rates are those of the rows: what a plan reads is what was measured. */
static void a_plan_reads_the_rates(void **state)
{
    (void)state;
    const char *json_path = scratch_path("rows.json"), *path = scratch_path("rates.json");
    const char *ops[] = {"gemm", "adamw", "attention"}, *shapes[] = {"tests/golden/models/llama3"};
    const cudpo_bench_options o = {.ops = ops,
                                   .op_count = 3,
                                   .shapes = shapes,
                                   .shape_count = 1,
                                   .device = "cpu",
                                   .json = json_path,
                                   .calibration = path,
                                   .length = 32};
    int lines = 0, n;
    bool found = false;
    device_rates r = {.head = 5, .elementwise = 7};
    json *tree;
    CHECK_OK(cudpo_bench(&o, count_line, &lines));
    CHECK_OK(rates_load(&r, &found, path, gpu_table(&n)));
    assert_true(found && r.head == 5 && r.elementwise == 7); /* were not measured */
    CHECK_OK(json_load(&tree, json_path, 1 << 20));
    double flops = 0, us = 0, adamw = 0;
    for (const json *row = json_first(json_get(tree, "rows")); row != NULL; row = json_next(row)) {
        if (strcmp(json_string(json_get(row, "op")), "adamw") == 0)
            adamw =
                json_number(json_get(row, "bytes")) / json_number(json_get(row, "median_us")) * 1e6;
        if (strcmp(json_string(json_get(row, "op")), "gemm") != 0) continue;
        flops += json_number(json_get(row, "flops"));
        us += json_number(json_get(row, "median_us"));
    }
    assert_true(fabs(r.gemm_f32 / (flops / us * 1e6) - 1) < 1e-3);
    assert_true(fabs(r.adamw / adamw - 1) < 1e-3);
    assert_true(r.attention[0] > 0 && r.attention_backward[0] > 0 && r.gemm_bf16 == 0);
    json_free(tree);
}

/* Where only an op that takes long was measured, the least time of an op is not its time. */
static void an_op_with_nothing_to_do(void **state)
{
    (void)state;
    const char *path = scratch_path("rates.json"), *rows = scratch_path("rows.json");
    const char *ops[] = {"swiglu"}, *shapes[] = {"Qwen2.5-0.5B"};
    const cudpo_bench_options o = {.ops = ops,
                                   .op_count = 1,
                                   .shapes = shapes,
                                   .shape_count = 1,
                                   .device = "cpu",
                                   .json = rows,
                                   .calibration = path,
                                   .length = 32,
                                   .no_check = true,
                                   .no_baseline = true};
    int lines = 0, n;
    bool found = false;
    device_rates r = {0};
    json *tree;
    CHECK_OK(cudpo_bench(&o, count_line, &lines));
    CHECK_OK(rates_load(&r, &found, path, gpu_table(&n)));
    CHECK_OK(json_load(&tree, rows, 1 << 20));
    const double swiglu = json_number(json_get(json_first(json_get(tree, "rows")), "min_us"));
    assert_true(found && r.launch > 0 && r.launch < 0.1 * swiglu * 1e-6);
    json_free(tree);
}

static int64_t count_of(const char *text, const char *word)
{
    int64_t n = 0;
    for (; (text = strstr(text, word)) != NULL; text += strlen(word))
        n++;
    return n;
}

/* A bar for each row, a mark for each that counts operations, on a roof of two lines; names are escaped. */
static void pictures(void **state)
{
    (void)state;
    static const char *const row =
        "{\"op\": \"%s\", \"pass\": \"a<b\", \"model\": \"m\", \"shape\": \"1x2\", \"dtype\": "
        "\"float32\", \"median_us\": 2, \"percent_of_ceiling\": 50, \"bytes\": 4, \"flops\": %d, "
        "\"tflops\": 0.5, \"cached\": false}";
    char rows[2][400], text[1200], *svg = NULL;
    size_t n;
    const char *path = scratch_path("picture.svg");
    snprintf(rows[0], sizeof rows[0], row, "gemm", 8);
    snprintf(rows[1], sizeof rows[1], row, "add", 0);
    snprintf(
        text, sizeof text,
        "{\"version\": \"1\", \"device\": \"d\", \"date\": \"now\", \"ceilings\": {\"copy_gbps\": "
        "10, \"float32_tflops\": 1, \"bfloat16_tflops\": 0}, \"rows\": [%s, %s]}",
        rows[0], rows[1]);
    CHECK_OK(cudpo_bench_plot(path, scratch_text("rows.json", text)));
    CHECK_OK(file_read(&svg, &n, path, 1 << 20));
    assert_int_equal(count_of(svg, "<rect"), 1 + 2);   /* and what is behind all */
    assert_int_equal(count_of(svg, "<circle"), 1 + 4); /* and a key */
    assert_int_equal(count_of(svg, "stroke-width=\"1.5\""), 2);
    assert_true(strstr(svg, "a&lt;b") != NULL && strstr(svg, "a<b") == NULL);
    assert_true(strstr(svg, "nan") == NULL && strstr(svg, "inf") == NULL);
    free(svg);
    static const char point[] = "[{\"gpus\": 1, \"examples_per_second\": 10, \"efficiency\": 1, "
                                "\"fits\": true}, {\"gpus\": 2, \"examples_per_second\": 19, "
                                "\"efficiency\": 0.95, \"fits\": false}]";
    snprintf(text, sizeof text, "{\"gpu\": \"h200\", \"same_batch\": %s, \"growing_batch\": %s}",
             point, point);
    CHECK_OK(cudpo_bench_plot(path, scratch_text("plan.json", text)));
    CHECK_OK(file_read(&svg, &n, path, 1 << 20));
    assert_int_equal(count_of(svg, "<circle"),
                     2 * 2 * 2 + 3); /* points of two curves twice; a key */
    assert_true(strstr(svg, "does not fit") != NULL && strstr(svg, "nan") == NULL);
    free(svg);
}

/* Names of any length: a character of two bytes is there, or is not. */
static void long_names(void **state)
{
    (void)state;
    char name[400], text[1000], *svg = NULL;
    size_t n;
    const char *path = scratch_path("picture.svg");
    for (size_t odd = 0; odd < 2; odd++) {
        memset(name, 'a', sizeof name);
        for (size_t i = odd; i + 2 < sizeof name; i += 2)
            memcpy(name + i, "\xc3\xa9", 2);
        name[odd + 2 * 190] = '\0';
        snprintf(
            text, sizeof text,
            "{\"version\": \"1\", \"device\": \"%s\", \"ceilings\": {\"copy_gbps\": 10}, \"rows\": "
            "[{\"op\": \"add\", \"shape\": \"%s\", \"median_us\": 2, \"percent_of_ceiling\": 50, "
            "\"bytes\": 4, \"flops\": 0}]}",
            name + odd, name);
        CHECK_OK(cudpo_bench_plot(path, scratch_text("rows.json", text)));
        CHECK_OK(file_read(&svg, &n, path, 1 << 20));
        for (const char *c = svg; (c = strchr(c, '\xc3')) != NULL; c++)
            assert_int_equal((unsigned char)c[1], 0xa9);
        free(svg);
    }
}

#define BENCH_ROW "{\"op\": \"gemm\", \"median_us\": 2, \"bytes\": 4, \"flops\": 8, \"tflops\": 1}"
#define BENCH_FILE(ceilings) "{\"rows\": [" BENCH_ROW "], \"ceilings\": " ceilings "}"
#define PLAN_FILE(same, growing) "{\"same_batch\": [" same "], \"growing_batch\": [" growing "]}"
#define POINT(gpus, rate, efficiency) \
    "{\"gpus\": " gpus ", \"examples_per_second\": " rate ", \"efficiency\": " efficiency "}"

static void files_that_are_no_picture(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"rows\": []}", "is neither"},
        {"[1]", "is neither"},
        {"{\"rows\": [3], \"ceilings\": {}}", "row 0 has no \"op\""},
        {"{\"rows\": [{\"op\": \"add\"}], \"ceilings\": {}}", "row 0 has no time"},
        {"{\"rows\": [" BENCH_ROW "]}", "\"ceilings\" is no object"},
        {BENCH_FILE("7"), "\"ceilings\" is no object"},
        {BENCH_FILE("{\"copy_gbps\": 1e-300, \"float32_tflops\": 1}"), "copy_gbps is 1e-300"},
        {BENCH_FILE("{\"copy_gbps\": 1, \"float32_tflops\": -1}"), "float32_tflops is -1"},
        {PLAN_FILE("3", "4"), "same_batch has a point that is no object"},
        {PLAN_FILE("{}", "{}"), "have no point"},
        {PLAN_FILE(POINT("1", "1e300", "1"), "{}"), "same_batch: examples_per_second is 1e+300"},
        {PLAN_FILE("{}", POINT("0.5", "1", "1")), "growing_batch: gpus is 0.5"},
        {PLAN_FILE(POINT("1", "1", "-1"), "{}"), "efficiency is -1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = scratch_path("no.svg"), *file = scratch_text("no.json", bad[i][0]);
        CHECK_FAILS(cudpo_bench_plot(path, file), CUDPO_EDATA, bad[i][1]);
        CHECK_FAILS(cudpo_bench_plot(path, file), CUDPO_EDATA, "no.json");
        assert_false(file_is_regular(path));
    }
}

/* More GPUs than one may be more efficient, where each holds less: no mark lies above the frame. */
static void efficiencies_stay_within_the_frame(void **state)
{
    (void)state;
    char *svg = NULL;
    size_t n;
    double highest = INFINITY;
    const char *path = scratch_path("picture.svg");
    static const char text[] =
        PLAN_FILE(POINT("1", "1", "1") ", " POINT("8", "9", "1.7"),
                  POINT("2", "2", "1") ", {\"gpus\": 4, \"examples_per_second\": 5}");
    CHECK_OK(cudpo_bench_plot(path, scratch_text("plan.json", text)));
    CHECK_OK(file_read(&svg, &n, path, 1 << 20));
    for (const char *at = svg; (at = strstr(at, " cy=\"")) != NULL; at += 5)
        highest = fmin(highest, strtod(at + 5, NULL));
    assert_true(highest >= 60); /* where the frame ends and its title stands */
    assert_non_null(strstr(svg, ">does not fit into memory</text>"));
    assert_null(strstr(svg, "nan"));
    free(svg);
}

static void what_can_not_be_measured_is_refused(void **state)
{
    (void)state;
    int lines = 0;
    const char *ops[] = {"swigloo"}, *known[] = {"add"};
    const char *shapes[] = {"tests/golden/models/llama3", "Qwen2.5-0.5"};
    cudpo_bench_options o = {.ops = ops, .op_count = 1, .device = "cpu", .length = 16};
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EUSAGE, "did you mean swiglu?");
    o.ops = known;
    o.length = 1;
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EUSAGE, "lengths of 2");
    o.length = 16;
    o.groups = -1;
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EUSAGE, "groups of 1");
    o.groups = 0;
    o.seconds = (double)NAN;
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EUSAGE, "seconds");
    o.seconds = 0;
    o.shapes = shapes, o.shape_count = 2;
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EUSAGE, "Qwen2.5-0.5B");
    o.shape_count = 1;
    o.json = scratch_path("nowhere/a.json");
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EWRITE, "nowhere/a.json");
    o.json = NULL, o.calibration = scratch_path("nowhere/b.json");
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EWRITE, "nowhere/b.json");
    o.calibration = scratch_folder();
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EWRITE, "is a folder");
    assert_int_equal(lines, 0); /* before anything was measured */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(the_file_has_all_fields),
        cmocka_unit_test(processors_have_names),
        cmocka_unit_test(a_plan_reads_the_rates),
        cmocka_unit_test(an_op_with_nothing_to_do),
        cmocka_unit_test(pictures),
        cmocka_unit_test(long_names),
        cmocka_unit_test(files_that_are_no_picture),
        cmocka_unit_test(efficiencies_stay_within_the_frame),
        cmocka_unit_test(what_can_not_be_measured_is_refused),
    };
    const struct CMUnitTest part[] = {cmocka_unit_test(bad_files_are_refused),
                                      cmocka_unit_test(pictures),
                                      cmocka_unit_test(long_names),
                                      cmocka_unit_test(files_that_are_no_picture),
                                      cmocka_unit_test(efficiencies_stay_within_the_frame),
                                      cmocka_unit_test(what_can_not_be_measured_is_refused)};
    if (getenv("CUDPO_TEST_PART") != NULL) /* where a build is slow, no table is measured */
        return cmocka_run_group_tests(part, NULL, scratch_remove);
    const struct CMUnitTest on_device[] = {cmocka_unit_test(the_file_has_all_fields)};
    if (!plugin_asked()) return cmocka_run_group_tests(tests, NULL, scratch_remove);
    return plugin_missing() ? 77 : cmocka_run_group_tests(on_device, NULL, scratch_remove);
}
