/* test_segment_sum.c - sums of runs of rows, and coefficients back to rows. */
/* rooms: backend base */
#include "test_ops.h"

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

/* 1e8 + 1 - 1e8: a float would lose the 1. */
static void sums_are_in_double(backend *be)
{
    static const float x[] = {1e8f, 1, -1e8f};
    static const int32_t begin[] = {0, 3};
    float got;
    ops o = ops_begin(be);
    const tensor out = ops_output(&o, 1, 1);
    CHECK_OK(be->segment_sum(be, out, ops_floats(&o, x, 3, 1), ops_indices(&o, begin, 2, 1)));
    ops_get(&o, &got, out);
    assert_true(got == 1.0f);
    ops_end(&o);
}

/* Segments of every length through strided views; a double sum rounds once, to float. */
static void tails(backend *be)
{
    static const int32_t length[] = {1, 31, 32, 33, 255, 256, 257};
    enum { R = 1 + 31 + 32 + 33 + 255 + 256 + 257, N = 5 };
    float *x = random_floats(1, R * N), got[7 * N];
    double want[7 * N] = {0};
    int32_t begin[8] = {0};
    for (int s = 0; s < 7; s++) {
        begin[s + 1] = begin[s] + length[s];
        for (int r = begin[s]; r < begin[s + 1]; r++) {
            for (int i = 0; i < N; i++) {
                want[s * N + i] += (double)x[r * N + i];
            }
        }
    }
    ops o = ops_begin(be);
    const tensor out = ops_strided(&o, NULL, 7, N, N + 2);
    CHECK_OK(
        be->segment_sum(be, out, ops_strided(&o, x, R, N, N + 1), ops_indices(&o, begin, 8, 1)));
    ops_get(&o, got, out);
    check_close("out", got, want, 7 * N, 64 * EPS);
    ops_end(&o);
    free(x);
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

static void broken_contracts(backend *be)
{
    static const int32_t bad[][3] = {{0, 3, 2}, {-1, 0, 1}, {0, 1, 5}, {1, 0, 1}, {0, 9, 4}};
    static const int32_t fine[] = {0, 2, 4};
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 4, 2), out = ops_output(&o, 2, 2), row = ops_output(&o, 3, 1);
    for (int i = 0; i < 5; i++) {
        CHECK_FAILS(be->segment_sum(be, out, x, ops_indices(&o, bad[i], 3, 1)), CUDPO_EINVAL,
                    "is_partition");
    }
    const tensor good = ops_indices(&o, fine, 3, 1);
    CHECK_FAILS(be->segment_sum(be, x, x, good), CUDPO_EINVAL, "is_partition");
    CHECK_FAILS(be->segment_sum(be, tensor_cols(out, 0, 1), x, good), CUDPO_EINVAL, "out");
    CHECK_FAILS(be->row_coefficients(be, row, tensor_rows(row, 0, 2), good, row), CUDPO_EINVAL,
                "is_index");
    CHECK_FAILS(be->row_coefficients(be, out, row, good, row), CUDPO_EINVAL, "row");
    CHECK_FAILS(be->row_coefficients(be, row, out, good, row), CUDPO_EINVAL, "coefficient");
    ops_check_untouched(&o, out);
    ops_check_untouched(&o, row);
    ops_end(&o);
}

static const op_case cases[] = {
    {"three_runs_by_hand", three_runs_by_hand},
    {"sums_are_in_double", sums_are_in_double},
    {"tails", tails},
    {"coefficients_by_hand", coefficients_by_hand},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
