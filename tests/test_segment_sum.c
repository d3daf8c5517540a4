/* test_segment_sum.c - sums of runs of rows. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

static void three_runs_by_hand(backend *be)
{
    static const float x[] = {1, 10, 2, 20, 3, 30, 4, 40};
    static const int32_t begin[] = {0, 2, 2, 3}; /* the second is empty, the last row in none */
    static const double want[] = {3, 30, 0, 0, 3, 30};
    float got[6];
    ops o = ops_begin(be);
    const tensor out = ops_output(&o, 3, 2);
    CHECK_OK(be->segment_sum(be, out, ops_floats(&o, x, 4, 2), ops_indices(&o, begin, 4, 1)));
    ops_get(&o, got, out);
    check_close("out", got, want, 6, 0);
    ops_end(&o);
}

/* 1e8 + 1 - 1e8: a float would lose the 1.  Next to one another, and far apart in a segment. */
static void sums_are_in_double(backend *be)
{
    static const int apart[] = {1, 31, 32, 128, 129, 500};
    for (int i = 0; i < 6; i++) {
        const int n = 2 * apart[i] + 1;
        float x[1001] = {1e8f}, got;
        const int32_t begin[] = {0, n};
        x[apart[i]] = 1;
        x[2 * apart[i]] = -1e8f;
        ops o = ops_begin(be);
        const tensor out = ops_output(&o, 1, 1);
        CHECK_OK(be->segment_sum(be, out, ops_floats(&o, x, n, 1), ops_indices(&o, begin, 2, 1)));
        ops_get(&o, &got, out);
        assert_true(got == 1.0f);
        ops_end(&o);
    }
}

/* Segments of every length, the last row in none, of one column and of several, through strided views and views that
 * start anywhere.  A double sum rounds once, to float. */
static void check_tails(backend *be, int n, int gap, int shift)
{
    static const int32_t length[] = {1, 31, 32, 33, 127, 0, 128, 129, 255, 256, 257, 1000};
    enum { S = sizeof length / sizeof length[0], MOST = 5 };
    int32_t begin[S + 1] = {3};
    for (int s = 0; s < S; s++) {
        begin[s + 1] = begin[s] + length[s];
    }
    const int R = begin[S] + 1;
    float *x = random_floats(1, R * n), got[S * MOST];
    double want[S * MOST] = {0};
    for (int s = 0; s < S; s++) {
        for (int r = begin[s]; r < begin[s + 1]; r++) {
            for (int i = 0; i < n; i++) {
                want[s * n + i] += (double)x[r * n + i];
            }
        }
    }
    ops o = ops_begin(be);
    const tensor out = ops_make_at(&o, DTYPE_F32, S, n, n + gap, shift);
    const tensor from = ops_make_at(&o, DTYPE_F32, R, n, n + 2 * gap, shift);
    ops_put(&o, from, x);
    CHECK_OK(be->segment_sum(be, out, from, ops_indices(&o, begin, S + 1, 1)));
    ops_get(&o, got, out);
    for (int i = 0; i < S * n; i++) {
        CHECK_NEAR(got[i], want[i], fabs(want[i]) * EPS * 1.000001 + 1e-12);
    }
    ops_end(&o);
    free(x);
}

static void tails(backend *be)
{
    check_tails(be, 1, 0, 0);
    check_tails(be, 4, 0, 0);
    check_tails(be, 4, 3, 1);
    check_tails(be, 5, 1, 3);
}

/* Edges that are a column of a matrix; scores that are. */
static void strided_edges(backend *be)
{
    static const int32_t edge[] = {0, -1, 2, -1, 2, -1, 5, -1};
    static const float x[] = {1, 10, 2, 20, 3, 30, 4, 40, 5, 50};
    static const double want[] = {30, 0, 120};
    float got[3];
    ops o = ops_begin(be);
    const tensor out = tensor_cols(ops_output(&o, 3, 3), 1, 1);
    CHECK_OK(be->segment_sum(be, out, tensor_cols(ops_floats(&o, x, 5, 2), 1, 1),
                             tensor_cols(ops_indices(&o, edge, 4, 2), 0, 1)));
    ops_get(&o, got, out);
    check_close("out", got, want, 3, 0);
    ops_check_untouched(&o, tensor_cols(o.made[0].t, 0, 1));
    ops_check_untouched(&o, tensor_cols(o.made[0].t, 2, 1));
    ops_end(&o);
}

typedef struct call {
    tensor out, x, begin, fault;
} call;

static cudpo_status sum(backend *be, const void *arguments)
{
    const call *c = arguments;
#ifdef TEST_CUDA
    return cuda_segment_sum(c->out, c->x, c->begin, c->fault, ((cuda_backend *)be)->stream);
#else
    return be->segment_sum(be, c->out, c->x, c->begin);
#endif
}

/* Two segments of four rows. */
static call good_call(ops *o)
{
    static const int32_t edge[] = {0, 2, 4};
    return (call){ops_output(o, 2, 2), ops_output(o, 4, 2), ops_indices(o, edge, 3, 1),
                  ops_output_as(o, DTYPE_I32, 1, 1)};
}

static void refusals_of_operands(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const char *const begin = be->on_device ? "is_i32(begin, " : "is_partition(begin, ";
    const operand operands[] = {{"out", &c.out, "is_f32(out, ", OUTPUT | ANY_ROWS},
                                {"x", &c.x, "is_matrix(x)", ANY_ROWS | ANY_COLS},
                                {"begin", &c.begin, begin, 0},
                                {"fault", &c.fault, "is_fault(fault)", OUTPUT | OPTIONAL}};
    const refusals r = {&o, sum, &c, operands, be->on_device ? 4 : 3};
    check_refusals(&r);
    ops_check_untouched(&o, c.fault);
    ops_end(&o);
}

/* No segments; segments of no rows, whose sums are 0. */
static void nothing(backend *be)
{
    static const int32_t edge[] = {0, 0};
    static const double zero[2] = {0, 0};
    float got[2];
    ops o = ops_begin(be);
    const call good = good_call(&o);
    call c = good;
    c.out = tensor_rows(good.out, 0, 0), c.begin = tensor_rows(good.begin, 0, 1);
    CHECK_OK(sum(be, &c));
    ops_check_untouched(&o, good.out);
    c = good;
    c.x = tensor_rows(good.x, 0, 0), c.out = tensor_rows(good.out, 0, 1);
    c.begin = ops_indices(&o, edge, 2, 1);
    CHECK_OK(sum(be, &c));
    ops_get(&o, got, c.out);
    check_close("out", got, zero, 2, 0);
    ops_end(&o);
}

#ifndef TEST_CUDA
/* Edges that go back, or lie outside of the rows: first, last and in between. */
static void edges_are_refused(backend *be)
{
    static const int32_t bad[][3] = {{0, 3, 2}, {-1, 0, 1}, {0, 1, 5}, {1, 0, 1}, {0, 9, 4}};
    ops o = ops_begin(be);
    call c = good_call(&o);
    for (int i = 0; i < 5; i++) {
        c.begin = ops_indices(&o, bad[i], 3, 1);
        CHECK_FAILS(sum(be, &c), CUDPO_EINVAL, "is_partition(begin");
    }
    ops_check_untouched(&o, c.out);
    ops_end(&o);
}
#endif

#ifdef TEST_CUDA
/* A segment that is no range of rows: NaN and a fault, and the others are summed. */
static void edges_out_of_range(backend *be)
{
    static const struct {
        int32_t begin[4];
        bool sound[3];
    } c[] = {{{0, 2, 4, 4}, {true, true, true}},
             {{0, 3, 2, 4}, {true, false, true}},
             {{-1, 0, 1, 2}, {false, true, true}},
             {{0, 1, 2, 5}, {true, true, false}},
             {{0, 9, 4, 4}, {false, false, true}},
             {{5, 5, 5, 5}, {false, false, false}},
             {{INT32_MIN, INT32_MAX, 0, 4}, {false, false, true}}};
    static const float x[] = {1, 10, 2, 20, 4, 40, 8, 80};
    (void)faults_of(be);
    for (size_t n = 0; n < sizeof c / sizeof c[0]; n++) {
        float got[6];
        ops o = ops_begin(be);
        const tensor out = ops_output(&o, 3, 2);
        CHECK_OK(
            be->segment_sum(be, out, ops_floats(&o, x, 4, 2), ops_indices(&o, c[n].begin, 4, 1)));
        ops_get(&o, got, out);
        assert_int_equal(faults_of(be), n == 0 ? 0 : FAULT_INDEX);
        for (int s = 0; s < 3; s++) {
            float want = 0;
            for (int r = c[n].begin[s]; c[n].sound[s] && r < c[n].begin[s + 1]; r++) {
                want += x[2 * r];
            }
            for (int i = 0; i < 2; i++) {
                if (c[n].sound[s])
                    assert_true(got[2 * s + i] == want * (i == 0 ? 1 : 10));
                else
                    assert_true(isnan(got[2 * s + i]));
            }
        }
        ops_end(&o);
    }
    ops o = ops_begin(be);
    call silent = good_call(&o); /* without a fault word, in silence */
    float got[4];
    silent.begin = ops_indices(&o, (int32_t[]){3, 1, 1}, 3, 1), silent.fault = (tensor){0};
    CHECK_OK(sum(be, &silent));
    ops_get(&o, got, silent.out);
    assert_true(isnan(got[0]) && isnan(got[1]) && got[2] == 0.0f && got[3] == 0.0f);
    assert_int_equal(faults_of(be), 0);
    ops_end(&o);
}

/* More sums than a grid has blocks: the contract comes before any is looked at. */
static void too_many_sums(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const tensor out = c.out;
    c.out.rows = ((int64_t)1 << 30); /* of two columns */
    CHECK_FAILS(sum(be, &c), CUDPO_EINVAL, "out.rows <= INT32_MAX / out.cols");
    c.out.rows--;
    CHECK_FAILS(sum(be, &c), CUDPO_EINVAL, "is_i32(begin, ");
    ops_check_untouched(&o, out);
    ops_end(&o);
}
#endif

enum { MANY = 40, LONG = 3000 };

static void run_large(ops *o, float *to)
{
    float *x = random_floats(1, LONG * ROW_STATS);
    int32_t begin[MANY + 1];
    for (int s = 0; s <= MANY; s++) {
        begin[s] = s * s * LONG / (MANY * MANY);
    }
    const tensor out = ops_output(o, MANY, ROW_STATS);
    CHECK_OK(o->be->segment_sum(o->be, out, ops_floats(o, x, LONG, ROW_STATS),
                                ops_indices(o, begin, MANY + 1, 1)));
    ops_get(o, to, out);
    free(x);
}

static void the_same_bits_again(backend *be)
{
    check_repeatable(be, run_large, MANY * ROW_STATS);
}

static const op_case cases[] = {
    {"three_runs_by_hand", three_runs_by_hand},
    {"sums_are_in_double", sums_are_in_double},
    {"tails", tails},
    {"strided_edges", strided_edges},
    {"refusals_of_operands", refusals_of_operands},
    {"nothing", nothing},
#ifdef TEST_CUDA
    {"edges_out_of_range", edges_out_of_range},
    {"too_many_sums", too_many_sums},
#else
    {"edges_are_refused", edges_are_refused},
#endif
    {"the_same_bits_again", the_same_bits_again},
};
OPS_MAIN(cases)
