/* test_gather_rows.c - rows by index, the way back, and scaled rows. */
/* rooms: backend base */
#include "test_ops.h"

/* Two score rows share hidden row 1: out repeats it, and its gradient is the scaled sum. */
static void by_hand(backend *be)
{
    static const float x[] = {1, 2, 3, 4, 5, 6}, drow[] = {1, 10, 2, 20, 3, 30},
                       scale[] = {2, 1, -1};
    static const int32_t index[] = {1, 0, 1};
    static const double out[] = {3, 4, 1, 2, 3, 4}, dx[] = {2, 20, -1, -10, 0, 0},
                        scaled[] = {2, 20, 2, 20, -3, -30};
    float got[6];
    ops o = ops_begin(be);
    const tensor to = ops_output(&o, 3, 2), td = ops_output(&o, 3, 2);
    const tensor ti = ops_indices(&o, index, 3, 1), ts = ops_floats(&o, scale, 3, 1);
    const tensor tr = ops_floats(&o, drow, 3, 2);
    CHECK_OK(be->gather_rows(be, to, ops_floats(&o, x, 3, 2), ti));
    ops_get(&o, got, to);
    check_close("out", got, out, 6, 0);
    CHECK_OK(be->scatter_rows(be, td, tr, ti, ts));
    ops_get(&o, got, td);
    check_close("dx", got, dx, 6, 0);
    CHECK_OK(be->scale_rows(be, tr, ts));
    ops_get(&o, got, tr);
    check_close("scaled", got, scaled, 6, 0);
    ops_end(&o);
}

enum { T = 90, R = 400 };

/* The scatter is the transpose of the gather: sum(drow * scale * gather(x)) = sum(scatter(drow) * x) for any x; here
 * element by element.  About 4 terms of size below 16 reach a row, at most 20. */
static void check_width(backend *be, int64_t C)
{
    float *x = random_floats(1, T * C), *drow = random_floats(2, R * C),
          *scale = random_floats(3, R);
    float *out = zeros(R * C, 4), *dx = zeros(T * C, 4), *scaled = zeros(R * C, 4);
    double *want = zeros(T * C, 8);
    int32_t index[R];
    for (int64_t r = 0; r < R; r++) {
        index[r] = (int32_t)rng_below(4, 0, (uint64_t)r, T);
        for (int64_t i = 0; i < C; i++) {
            want[index[r] * C + i] += (double)scale[r] * (double)drow[r * C + i];
        }
    }
    ops o = ops_begin(be);
    const tensor ti = ops_indices(&o, index, R, 1), ts = ops_floats(&o, scale, R, 1);
    const tensor to = ops_strided(&o, NULL, R, C, C + 1), td = ops_strided(&o, NULL, T, C, C + 2);
    const tensor tr = ops_strided(&o, drow, R, C, C + 4);
    CHECK_OK(be->gather_rows(be, to, ops_strided(&o, x, T, C, C + 3), ti));
    CHECK_OK(be->scatter_rows(be, td, tr, ti, ts));
    CHECK_OK(be->scale_rows(be, tr, ts));
    ops_get(&o, out, to);
    ops_get(&o, dx, td);
    ops_get(&o, scaled, tr);
    check_close("dx", dx, want, T * C, 20 * 16 * EPS);
    for (int64_t i = 0; i < R * C; i++) {
        assert_true(out[i] == x[index[i / C] * C + i % C]);
        assert_true(scaled[i] == drow[i] * scale[i / C]);
    }
    ops_end(&o);
    free(x);
    free(drow);
    free(scale);
    free(out);
    free(dx);
    free(scaled);
    free(want);
}

static void tails(backend *be)
{
    static const int64_t widths[] = {1, 31, 32, 33, 63, 64, 65, 255, 256, 257};
    for (int i = 0; i < 10; i++) {
        check_width(be, widths[i]);
    }
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 3}, {-1, 0}};
    static const int32_t fine[] = {0, 2};
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 4), r = ops_output(&o, 2, 4), s = ops_output(&o, 2, 1);
    const tensor good = ops_indices(&o, fine, 2, 1);
    for (int i = 0; i < 2; i++) {
        const tensor index = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->gather_rows(be, r, x, index), CUDPO_EINVAL, "is_index");
        CHECK_FAILS(be->scatter_rows(be, x, r, index, s), CUDPO_EINVAL, "is_index");
    }
    CHECK_FAILS(be->gather_rows(be, tensor_cols(r, 0, 3), x, good), CUDPO_EINVAL, "is_f32");
    CHECK_FAILS(be->gather_rows(be, tensor_rows(r, 0, 1), x, good), CUDPO_EINVAL, "is_index");
    CHECK_FAILS(be->scatter_rows(be, x, r, good, x), CUDPO_EINVAL, "scale");
    CHECK_FAILS(be->scale_rows(be, x, s), CUDPO_EINVAL, "scale");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, r);
    ops_end(&o);
}

static void run_large(ops *o, float *result)
{
    enum { C = 256, LARGE_T = 300 };
    float *drow = random_floats(2, R * C), *scale = random_floats(3, R);
    int32_t index[R];
    for (int r = 0; r < R; r++) {
        index[r] = (int32_t)rng_below(4, 0, (uint64_t)r, LARGE_T);
    }
    const tensor dx = ops_output(o, LARGE_T, C);
    CHECK_OK(o->be->scatter_rows(o->be, dx, ops_floats(o, drow, R, C), ops_indices(o, index, R, 1),
                                 ops_floats(o, scale, R, 1)));
    ops_get(o, result, dx);
    free(drow);
    free(scale);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 300 * 256);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"tails", tails},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
