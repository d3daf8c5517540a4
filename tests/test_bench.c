/* test_bench.c - what `cudpo bench` says of an op: bytes and operations, time, wrong elements, what changed. */
/* rooms: bench */
#include "test.h"
#include "base/file.h"
#include "base/rng.h"
#include "bench/measure.h"
#include "bench/report.h"
#include "cudpo/bench.h"
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
    be.cache = 0; /* in which nothing stays */
    buffer b = {0};
    CHECK_OK(bench_json_begin(&b, &be, &ceilings, &timed, NULL));
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
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
