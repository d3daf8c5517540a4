/* test_bench.c - what `cudpo bench` says of an op: its bytes and operations, its time, its wrong elements, what changed. */
/* rooms: bench */
/* backends: cpu plugin */
#include "test.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "bench/measure.h"
#include "bench/models.h"
#include "bench/report.h"
#include "cudpo/bench.h"
#include "plan/rates.h"
#include "plugin.h"
#include "scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const bench_op *find(const char *op, const char *pass)
{
    for (int i = 0; i < bench_op_count; i++) {
        if (strcmp(bench_ops[i]->op, op) == 0 && strcmp(bench_ops[i]->pass, pass) == 0)
            return bench_ops[i];
    }
    fail_msg("no op %s %s", op, pass);
    return NULL;
}

/* A model of a few heads, a pack of a few groups. */
static bench_shape small_shape(int64_t groups, int64_t length)
{
    bench_shape s = {.name = "small",
                     .groups = groups,
                     .length = length,
                     .tokens = 3 * groups * length,
                     .rows = 2 * length,
                     .type = DTYPE_F32};
    s.model.vocab_size = 300;
    s.model.hidden_size = 48;
    s.model.intermediate_size = 80;
    s.model.num_attention_heads = 4;
    s.model.num_key_value_heads = 2;
    s.model.head_dim = 16;
    return s;
}

/* --- bytes and operations ----------------------------------------------------------------------------------------- */

/* What a call moves at least: every operand that it reads, and every one that it writes, once; of a table only the rows
 * that are asked for, of the tables of rotations nothing, for they stay in the cache. */
static double moved(const bench_case *c)
{
    const char *op = c->op->op;
    double bytes = 0;
    for (int i = 0; i < c->count; i++) {
        const bench_operand *o = &c->operand[i];
        double rows = (double)o->rows;
        if (o->role == BENCH_WORK) continue;
        if (strcmp(op, "rope") == 0 && i > 0) continue;
        if (strcmp(op, "embed") == 0 && i == 1) rows = (double)c->operand[0].rows;
        if (strcmp(op, "gather_rows") == 0 && i == 1 && o->role == BENCH_IN)
            rows = (double)c->operand[0].rows;
        if (strcmp(op, "cache_store") == 0 && i < 2) rows = (double)c->operand[2].rows / 2;
        if (strcmp(op, "cache_store") == 0 && i == 2)
            bytes -= rows * (double)(c->attention.heads * c->attention.head_dim) * 4;
        if (strcmp(op, "attention_cached") == 0 && i == 1)
            bytes -= rows * 2 * (double)(c->attention.kv_heads * c->attention.head_dim) * 4;
        bytes += rows * (double)o->cols * bench_element(o->type) * (o->role == BENCH_INOUT ? 2 : 1);
    }
    return bytes;
}

/* What is beside the matrices (weights of a norm, labels, indices) is no more than a twentieth of them here. */
static void bytes_are_those_of_the_operands(void **state)
{
    (void)state;
    const bench_shape s = small_shape(4, 64);
    for (int i = 0; i < bench_op_count; i++) {
        bench_case c = {.op = bench_ops[i], .shape = &s};
        CHECK_OK(c.op->make(&c, &s));
        CHECK_OK(bench_case_check(&c));
        const double want = moved(&c), few = 0.05 * want + 64;
        if (!(c.bytes > 0 && fabs(c.bytes - want) <= few))
            fail_msg("%s %s %s: %g bytes by formula, operands have %g", c.op->op, c.op->pass,
                     c.text, c.bytes, want);
        bench_case_free(&c);
    }
}

/* Pairs of a query and a key that it sees, by looking at all of them. */
static double pairs_by_hand(const bench_shape *s)
{
    double pairs = 0;
    for (int64_t q = 0; q < s->tokens; q++) {
        for (int64_t k = 0; k < s->tokens; k++) {
            const int64_t own = q / s->length, other = k / s->length;
            const bool prompt = own % 3 > 0 && other == own - own % 3;
            pairs += prompt || (own == other && k <= q);
        }
    }
    return pairs;
}

/* A product's operations are counted by the loops that make it; attention's are two products forward, five backward. */
static void operations_are_those_of_loops(void **state)
{
    (void)state;
    const bench_shape s = small_shape(3, 7);
    const double Q = (double)(s.model.num_attention_heads * s.model.head_dim);
    for (int i = 0; i < bench_op_count; i++) {
        bench_case c = {.op = bench_ops[i], .shape = &s};
        CHECK_OK(c.op->make(&c, &s));
        double want = 0;
        if (strcmp(c.op->op, "gemm") == 0) {
            const bench_operand *out = &c.operand[0], *a = &c.operand[1];
            const int64_t inner =
                a->rows * a->cols / (strcmp(c.op->pass, "weight") == 0 ? out->rows : a->rows);
            for (int64_t r = 0; r < out->rows; r++)
                for (int64_t j = 0; j < out->cols; j++)
                    want += 2.0 * (double)inner;
        } else if (strcmp(c.op->op, "attention") == 0) {
            want = (strcmp(c.op->pass, "forward") == 0 ? 4 : 10) * pairs_by_hand(&s) * Q;
        }
        if (c.flops != want)
            fail_msg("%s %s %s: %g operations by formula, %g by counting", c.op->op, c.op->pass,
                     c.text, c.flops, want);
        bench_case_free(&c);
    }
}

/* --- wrong elements ----------------------------------------------------------------------------------------------- */

static const bench_settings quick = {.seconds = 0, .baseline = true, .check = true};

static bench_result measure(backend *be, const char *op, const char *pass, const bench_shape *s)
{
    bench_case c = {.op = find(op, pass), .shape = s};
    bench_result r;
    CHECK_OK(c.op->make(&c, s));
    CHECK_OK(bench_measure(&r, be, &c, &quick));
    bench_case_free(&c);
    return r;
}

static void every_op_is_right(void **state)
{
    (void)state;
    backend be = *backend_cpu();
    be.cache = 1 << 16;
    const bench_shape s = small_shape(2, 33);
    for (int i = 0; i < bench_op_count; i++) {
        const bench_result r = measure(&be, bench_ops[i]->op, bench_ops[i]->pass, &s);
        if (r.wrong != 0)
            fail_msg("%s %s: %lld wrong elements", bench_ops[i]->op, bench_ops[i]->pass,
                     (long long)r.wrong);
        assert_true(r.time.median > 0 && r.time.least > 0 && r.time.least <= r.time.median);
        assert_true((r.plain.calls > 0) == (bench_ops[i]->plain != NULL));
    }
}

static int spoiled_calls;

/* A thousandth more than right, in the last element: every set has it. */
static cudpo_status spoiled_swiglu(backend *be, tensor act, tensor gate_up)
{
    CUDPO_TRY(backend_cpu()->swiglu(be, act, gate_up));
    float *last = tensor_f32(act) + act.rows * act.cols - 1;
    *last += 1e-3f * (fabsf(*last) + 1);
    spoiled_calls++;
    return CUDPO_OK;
}
static cudpo_status silent_swiglu(backend *be, tensor act, tensor gate_up)
{
    return backend_cpu()->swiglu(be, tensor_rows(act, 0, act.rows - 1),
                                 tensor_rows(gate_up, 0, act.rows - 1));
}
static cudpo_status spoiled_gemm(backend *be, tensor c, tensor a, bool ta, tensor b, bool tb,
                                 float beta)
{
    CUDPO_TRY(backend_cpu()->gemm(be, c, a, ta, b, tb, beta));
    tensor_f32(c)[0] += 1e-2f;
    return CUDPO_OK;
}

static void planted_errors_are_counted(void **state)
{
    (void)state;
    backend be = *backend_cpu();
    be.cache = 1 << 18; /* several sets */
    const bench_shape s = small_shape(2, 33);
    be.swiglu = spoiled_swiglu;
    bench_result r = measure(&be, "swiglu", "forward", &s);
    assert_true(r.sets > 1 && spoiled_calls > 0);
    assert_int_equal(r.wrong, r.sets);
    be.swiglu = silent_swiglu; /* a row that is never written */
    r = measure(&be, "swiglu", "forward", &s);
    assert_int_equal(r.wrong, r.sets * s.model.intermediate_size);
    be = *backend_cpu();
    be.gemm = spoiled_gemm;
    r = measure(&be, "gemm", "forward", &s);
    assert_true(r.wrong >= r.sets);
}

/* --- caches ------------------------------------------------------------------------------------------------------- */

static void operands_leave_the_cache_or_are_flagged(void **state)
{
    (void)state;
    backend be = *backend_cpu();
    const bench_shape s = small_shape(2, 33);
    be.cache = 1 << 20;
    bench_result r = measure(&be, "swiglu", "forward", &s);
    const double bytes = 4.0 * (double)(s.tokens * 3 * s.model.intermediate_size);
    assert_true(!r.cached && (double)r.sets * bytes > 2.0 * (double)be.cache);
    assert_true((double)(r.sets - 1) * bytes <= 2.0 * (double)be.cache);
    r = measure(&be, "segment_sum", "", &s); /* a few numbers: no number of sets will do */
    assert_true(r.cached && r.sets == BENCH_SETS);
    be.cache = 0; /* nobody knows */
    r = measure(&be, "swiglu", "forward", &s);
    assert_true(!r.cached && r.sets == 1);
}

/* --- times, by a clock that is made ------------------------------------------------------------------------------- */

static double duration[2]; /* of an op whose first operand has an even or odd number of rows */
static double noise, now;
static double stamps[STAMPS];
static uint64_t drawn;

static cudpo_status made_stamp(backend *be, int slot)
{
    (void)be;
    stamps[slot] = now;
    return CUDPO_OK;
}
static cudpo_status made_elapsed(backend *be, double *seconds, int from, int to)
{
    (void)be;
    *seconds = stamps[to] - stamps[from];
    return CUDPO_OK;
}
static void pass_time(double seconds)
{
    now += seconds * (1 + noise * (rng_uniform(7, 7, drawn++) - 0.5));
}
static cudpo_status timed_add(backend *be, tensor x, tensor y)
{
    (void)be, (void)x, (void)y;
    pass_time(duration[0]);
    return CUDPO_OK;
}
static cudpo_status timed_swiglu(backend *be, tensor act, tensor gate_up)
{
    (void)be, (void)act, (void)gate_up;
    pass_time(duration[1]);
    return CUDPO_OK;
}

/* A file as cudpo_bench() writes it, of two ops that take as long as `duration` says. */
static void write_run(const char *path)
{
    static const char *const op[] = {"add", "swiglu"}, *const pass[] = {"", "forward"};
    const bench_settings timed = {.seconds = 0.01};
    const bench_ceilings ceilings = {.copy_gbps = 10, .f32_tflops = 1};
    const bench_shape s = small_shape(2, 33);
    backend be = *backend_cpu();
    be.stamp = made_stamp, be.elapsed = made_elapsed;
    be.add = timed_add, be.swiglu = timed_swiglu;
    buffer b = {0};
    CHECK_OK(bench_json_begin(&b, &be, &ceilings, &timed));
    for (int i = 0; i < 2; i++) {
        bench_case c = {.op = find(op[i], pass[i]), .shape = &s};
        bench_result r;
        CHECK_OK(c.op->make(&c, &s));
        CHECK_OK(bench_measure(&r, &be, &c, &timed));
        CHECK_OK(bench_json_row(&b, i == 0, &c, &r, &ceilings));
        bench_case_free(&c);
    }
    CHECK_OK(buffer_printf(&b, BENCH_JSON_END));
    CHECK_OK(file_write(path, b.data, b.size));
    buffer_free(&b);
}

/* Times of a run vary by 6 %: two runs of the same do not differ, a fifth more in one op is found, and in no other. */
static void a_planted_slow_down_is_found(void **state)
{
    (void)state;
    const char *before = scratch_path("before.json"), *after = scratch_path("after.json");
    char *text = NULL;
    int64_t changed = -1;
    noise = 0.06;
    duration[0] = 1e-4, duration[1] = 3e-3;
    write_run(before);
    write_run(after);
    CHECK_OK(cudpo_bench_compare(&text, &changed, before, after));
    assert_int_equal(changed, 0);
    assert_non_null(strstr(text, "0 of 2 rows changed"));
    free(text);
    duration[1] *= 1.2;
    write_run(after);
    CHECK_OK(cudpo_bench_compare(&text, &changed, before, after));
    assert_int_equal(changed, 1);
    assert_true(strstr(text, "swiglu") != NULL && strstr(text, "slower") != NULL);
    assert_null(strstr(text, "add"));
    free(text);
    CHECK_OK(cudpo_bench_compare(&text, &changed, after, before));
    assert_true(changed == 1 && strstr(text, "faster") != NULL);
    free(text);
    noise = 0.6; /* as much as nobody can tell a fifth from */
    write_run(after);
    CHECK_OK(cudpo_bench_compare(&text, &changed, before, after));
    assert_int_equal(changed, 0);
    free(text);
}

/* The median and the least of known times; the spread is half of the middle four fifths. */
static void times_are_those_of_the_clock(void **state)
{
    (void)state;
    const bench_shape s = small_shape(2, 33);
    backend be = *backend_cpu();
    be.stamp = made_stamp, be.elapsed = made_elapsed, be.add = timed_add;
    bench_case c = {.op = find("add", ""), .shape = &s};
    bench_result r;
    CHECK_OK(c.op->make(&c, &s));
    noise = 0, duration[0] = 0.25;
    CHECK_OK(bench_measure(&r, &be, &c, &(bench_settings){.seconds = 0.01}));
    assert_true(fabs(r.time.median - 0.25) < 1e-9 && fabs(r.time.least - 0.25) < 1e-9);
    assert_true(r.time.spread < 1e-9 && r.time.calls >= 5 && r.wrong == -1);
    noise = 0.2; /* uniform within a tenth to both sides: the middle four fifths are 0.16 wide */
    CHECK_OK(bench_measure(&r, &be, &c, &(bench_settings){.seconds = 0.05}));
    assert_true(r.time.calls > 400);
    assert_true(fabs(r.time.median / 0.25 - 1) < 0.02 && fabs(r.time.least / 0.25 - 0.9) < 0.01);
    assert_true(fabs(r.time.spread / 0.25 - 0.08) < 0.01);
    bench_case_free(&c);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

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
    double flops = 0, us = 0, least = 1e9, adamw = 0;
    for (const json *row = json_first(json_get(tree, "rows")); row != NULL; row = json_next(row)) {
        least = fmin(least, json_number(json_get(row, "min_us")));
        if (strcmp(json_string(json_get(row, "op")), "adamw") == 0)
            adamw =
                json_number(json_get(row, "bytes")) / json_number(json_get(row, "median_us")) * 1e6;
        if (strcmp(json_string(json_get(row, "op")), "gemm") != 0) continue;
        flops += json_number(json_get(row, "flops"));
        us += json_number(json_get(row, "median_us"));
    }
    assert_true(fabs(r.gemm_f32 / (flops / us * 1e6) - 1) < 1e-3);
    assert_true(fabs(r.adamw / adamw - 1) < 1e-3 && fabs(r.launch / (least * 1e-6) - 1) < 1e-2);
    assert_true(r.attention[0] > 0 && r.attention_backward[0] > 0 && r.gemm_bf16 == 0);
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
    assert_int_equal(count_of(svg, "<rect"), 1 + 2); /* and what is behind all */
    assert_int_equal(count_of(svg, "<circle"), 1);
    assert_int_equal(count_of(svg, "stroke-width=\"1.5\""), 2);
    assert_true(strstr(svg, "a&lt;b") != NULL && strstr(svg, "a<b") == NULL);
    assert_true(strstr(svg, "nan") == NULL && strstr(svg, "inf") == NULL);
    free(svg);
    CHECK_FAILS(cudpo_bench_plot(path, scratch_text("rows.json", "{\"rows\": []}")), CUDPO_EDATA,
                "rows.json");
    CHECK_FAILS(cudpo_bench_plot(path, scratch_text("rows.json", "[1]")), CUDPO_EDATA, "rows.json");
    static const char point[] = "[{\"gpus\": 1, \"examples_per_second\": 10, \"efficiency\": 1, "
                                "\"fits\": true}, {\"gpus\": 2, \"examples_per_second\": 19, "
                                "\"efficiency\": 0.95, \"fits\": false}]";
    snprintf(text, sizeof text, "{\"gpu\": \"h200\", \"same_batch\": %s, \"growing_batch\": %s}",
             point, point);
    CHECK_OK(cudpo_bench_plot(path, scratch_text("plan.json", text)));
    CHECK_OK(file_read(&svg, &n, path, 1 << 20));
    assert_int_equal(count_of(svg, "<circle"),
                     2 * 2 * 2 + 2); /* points of two curves twice; a key */
    assert_true(strstr(svg, "does not fit") != NULL && strstr(svg, "nan") == NULL);
    free(svg);
}

static void what_can_not_be_measured_is_refused(void **state)
{
    (void)state;
    int lines = 0;
    const char *ops[] = {"swigloo"}, *known[] = {"add"}, *shapes[] = {"Qwen2.5-0.5"};
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
    o.shapes = shapes, o.shape_count = 1;
    CHECK_FAILS(cudpo_bench(&o, count_line, &lines), CUDPO_EUSAGE, "Qwen2.5-0.5B");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_the_operands),
        cmocka_unit_test(operations_are_those_of_loops),
        cmocka_unit_test(every_op_is_right),
        cmocka_unit_test(planted_errors_are_counted),
        cmocka_unit_test(operands_leave_the_cache_or_are_flagged),
        cmocka_unit_test(a_planted_slow_down_is_found),
        cmocka_unit_test(times_are_those_of_the_clock),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(the_file_has_all_fields),
        cmocka_unit_test(a_plan_reads_the_rates),
        cmocka_unit_test(pictures),
        cmocka_unit_test(what_can_not_be_measured_is_refused),
    };
    const struct CMUnitTest on_device[] = {cmocka_unit_test(the_file_has_all_fields)};
    if (!plugin_asked()) return cmocka_run_group_tests(tests, NULL, scratch_remove);
    return plugin_missing() ? 77 : cmocka_run_group_tests(on_device, NULL, scratch_remove);
}
