/* test_segment_sum.c - sums of runs of rows, and coefficients back to rows. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"
#ifdef TEST_CUDA
#include "kernels/kernels.h"
#endif

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

static void coefficients_by_hand(backend *be)
{
    static const float coefficient[] = {0.5f, -2, 3};
    static const int32_t sequence[] = {0, 0, 2, 1};
    static const float scale[] = {1, 2, 1, 0.5f};
    static const double want[] = {-0.5, -1, -3, 1};
    float got[4];
    ops o = ops_begin(be);
    const tensor row = ops_output(&o, 4, 1);
    CHECK_OK(be->row_coefficients(be, row, ops_floats(&o, coefficient, 3, 1),
                                  ops_indices(&o, sequence, 4, 1), ops_floats(&o, scale, 4, 1)));
    ops_get(&o, got, row);
    check_close("row", got, want, 4, 0);
    ops_end(&o);
}

/* More rows than a block has threads; each by its own sequence and scale, in strided vectors. */
static void coefficients_of_many_rows(backend *be)
{
    static const int64_t rows[] = {1, 31, 32, 33, 255, 256, 257, 1000};
    enum { S = 7 };
    for (int n = 0; n < 8; n++) {
        const int64_t R = rows[n];
        float *scale = random_floats(1, R), *coefficient = random_floats(2, S), *got = zeros(R, 4);
        int32_t *sequence = zeros(2 * R, 4);
        for (int64_t r = 0; r < R; r++) {
            sequence[2 * r] = (int32_t)(r * r % S);
            sequence[2 * r + 1] = -1;
        }
        ops o = ops_begin(be);
        const tensor row = ops_make(&o, DTYPE_F32, R, 1, 3);
        CHECK_OK(be->row_coefficients(be, row, ops_strided(&o, coefficient, S, 1, 4),
                                      tensor_cols(ops_indices(&o, sequence, R, 2), 0, 1),
                                      ops_strided(&o, scale, R, 1, 2)));
        ops_get(&o, got, row);
        for (int64_t r = 0; r < R; r++) { /* one product, whatever rounds it */
            assert_true(got[r] == -coefficient[r * r % S] * scale[r]);
        }
        ops_end(&o);
        free(scale);
        free(coefficient);
        free(sequence);
        free(got);
    }
}

/* No rows, no segments: nothing to do, and nothing wrong with it. */
static void nothing(backend *be)
{
    static const int32_t begin[] = {0, 0};
    float got;
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 2, 1), out = ops_output(&o, 1, 1);
    const tensor edges = ops_indices(&o, begin, 2, 1), none = tensor_rows(x, 0, 0);
    CHECK_OK(be->segment_sum(be, tensor_rows(out, 0, 0), x, tensor_rows(edges, 0, 1)));
    CHECK_OK(be->row_coefficients(be, none, out, tensor_rows(edges, 0, 0), none));
    ops_check_untouched(&o, out);
    ops_check_untouched(&o, x);
    CHECK_OK(be->segment_sum(be, out, none, edges));
    ops_get(&o, &got, out);
    assert_true(got == 0.0f);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[][3] = {{0, 3, 2}, {-1, 0, 1}, {0, 1, 5}, {1, 0, 1}, {0, 9, 4}};
    static const int32_t far_away[] = {0, 9, 4};
    static const int32_t fine[] = {0, 2, 4};
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 4, 2), out = ops_output(&o, 2, 2), row = ops_output(&o, 3, 1);
    for (int i = 0; i < 5 && !be->on_device; i++) {
        CHECK_FAILS(be->segment_sum(be, out, x, ops_indices(&o, bad[i], 3, 1)), CUDPO_EINVAL,
                    "is_partition");
    }
    if (!be->on_device)
        CHECK_FAILS(be->row_coefficients(be, row, row, ops_indices(&o, far_away, 3, 1), row),
                    CUDPO_EINVAL, "is_index");
    const char *edges = be->on_device ? "begin" : "is_partition";
    const tensor good = ops_indices(&o, fine, 3, 1), slope = ops_output(&o, 2, 1);
    CHECK_FAILS(be->segment_sum(be, x, x, good), CUDPO_EINVAL, edges);
    CHECK_FAILS(be->segment_sum(be, out, x, tensor_rows(good, 0, 2)), CUDPO_EINVAL, edges);
    CHECK_FAILS(be->segment_sum(be, out, x, slope), CUDPO_EINVAL, edges);
    CHECK_FAILS(be->segment_sum(be, tensor_cols(out, 0, 1), x, good), CUDPO_EINVAL, "out");
    CHECK_FAILS(be->segment_sum(be, (tensor){0}, x, good), CUDPO_EINVAL, "out");
    CHECK_FAILS(be->segment_sum(be, out, good, good), CUDPO_EINVAL, "x");
    const char *index = be->on_device ? "sequence" : "is_index";
    CHECK_FAILS(be->row_coefficients(be, row, slope, tensor_rows(good, 0, 2), row), CUDPO_EINVAL,
                index);
    CHECK_FAILS(be->row_coefficients(be, row, slope, row, row), CUDPO_EINVAL, index);
    CHECK_FAILS(be->row_coefficients(be, out, row, good, row), CUDPO_EINVAL, "row");
    CHECK_FAILS(be->row_coefficients(be, good, row, good, row), CUDPO_EINVAL, "row");
    CHECK_FAILS(be->row_coefficients(be, row, out, good, row), CUDPO_EINVAL, "coefficient");
    CHECK_FAILS(be->row_coefficients(be, row, slope, tensor_rows(good, 0, 3), slope), CUDPO_EINVAL,
                be->on_device ? "scale" : "is_index");
    ops_check_untouched(&o, out);
    ops_check_untouched(&o, row);
    ops_end(&o);
}

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
}

static void sequences_out_of_range(backend *be)
{
    static const int32_t bad[] = {2, 3, -1, INT32_MAX, INT32_MIN};
    static const float coefficient[] = {3, 5}, scale[] = {1, 1, 2};
    float got[3];
    ops o = ops_begin(be);
    const tensor row = ops_output(&o, 3, 1), slope = ops_floats(&o, coefficient, 2, 1);
    const tensor factor = ops_floats(&o, scale, 3, 1);
    tensor index = {0};
    for (int n = 0; n < 5; n++) {
        index = ops_indices(&o, (int32_t[]){0, bad[n], 1}, 3, 1);
        CHECK_OK(be->row_coefficients(be, row, slope, index, factor));
        ops_get(&o, got, row);
        assert_int_equal(faults_of(be), FAULT_INDEX);
        assert_true(got[0] == -3 && isnan(got[1]) && got[2] == -10);
    }
    /* Without a fault word, in silence. */
    CHECK_OK(cuda_row_coefficients(row, slope, index, factor, (tensor){0}, NULL));
    const tensor sum = ops_output(&o, 1, 1);
    CHECK_OK(
        cuda_segment_sum(sum, row, ops_indices(&o, (int32_t[]){3, 1}, 2, 1), (tensor){0}, NULL));
    ops_get(&o, got, sum);
    assert_true(isnan(got[0]));
    assert_int_equal(faults_of(be), 0);
    ops_end(&o);
}

/* Addresses and overlaps, which only the device minds. */
static void broken_contracts_of_the_device(backend *be)
{
    static const int32_t fine[] = {0, 1, 1, 1};
    ops o = ops_begin(be);
    const tensor out = ops_output(&o, 2, 2), x = ops_output(&o, 4, 2), row = ops_output(&o, 3, 1);
    const tensor begin = ops_indices(&o, fine, 3, 1), sequence = ops_indices(&o, fine, 3, 1);
    const tensor factor = ops_output(&o, 3, 1), wide = ops_output(&o, 8, 2);
    tensor as_float = begin, fault = begin;
    as_float.type = DTYPE_F32;
    CHECK_FAILS(be->segment_sum(be, moved(out, 2), x, begin), CUDPO_EINVAL, "out");
    CHECK_FAILS(be->segment_sum(be, out, moved(x, 2), begin), CUDPO_EINVAL, "x");
    CHECK_FAILS(be->segment_sum(be, out, x, moved(begin, 2)), CUDPO_EINVAL, "begin");
    CHECK_FAILS(be->segment_sum(be, tensor_rows(wide, 0, 2), tensor_rows(wide, 1, 4), begin),
                CUDPO_EINVAL, "are_disjoint");
    CHECK_FAILS(be->segment_sum(be, tensor_rows(as_float, 0, 2), factor, begin), CUDPO_EINVAL,
                "are_disjoint");
    CHECK_FAILS(cuda_segment_sum(out, x, begin, fault, NULL), CUDPO_EINVAL, "is_fault");
    CHECK_FAILS(be->row_coefficients(be, moved(row, 2), factor, sequence, factor), CUDPO_EINVAL,
                "row");
    CHECK_FAILS(be->row_coefficients(be, row, moved(factor, 2), sequence, factor), CUDPO_EINVAL,
                "coefficient");
    CHECK_FAILS(be->row_coefficients(be, row, factor, moved(sequence, 2), factor), CUDPO_EINVAL,
                "sequence");
    CHECK_FAILS(be->row_coefficients(be, row, factor, sequence, moved(factor, 2)), CUDPO_EINVAL,
                "scale");
    CHECK_FAILS(be->row_coefficients(be, row, row, sequence, factor), CUDPO_EINVAL, "disjoint");
    CHECK_FAILS(be->row_coefficients(be, row, factor, sequence, row), CUDPO_EINVAL, "disjoint");
    CHECK_FAILS(be->row_coefficients(be, as_float, factor, begin, factor), CUDPO_EINVAL,
                "disjoint");
    CHECK_FAILS(cuda_row_coefficients(row, factor, sequence, factor, fault, NULL), CUDPO_EINVAL,
                "is_fault");
    ops_check_untouched(&o, out);
    ops_check_untouched(&o, row);
    ops_check_untouched(&o, wide);
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
    {"coefficients_by_hand", coefficients_by_hand},
    {"coefficients_of_many_rows", coefficients_of_many_rows},
    {"nothing", nothing},
    {"broken_contracts", broken_contracts},
#ifdef TEST_CUDA
    {"edges_out_of_range", edges_out_of_range},
    {"sequences_out_of_range", sequences_out_of_range},
    {"broken_contracts_of_the_device", broken_contracts_of_the_device},
#endif
    {"the_same_bits_again", the_same_bits_again},
};
OPS_MAIN(cases)
