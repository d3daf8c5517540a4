/* test_reduce.c - sums and maxima along one side of a matrix. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

/* A sum of n terms, each rounded with what was added before: at most n roundings of the sum of magnitudes. */
static void check(backend *be, dtype type, int64_t rows, int64_t cols, int64_t groups, int pad,
                  bool largest)
{
    const bool columns = groups == 0;
    const int64_t out_rows = columns ? rows : groups, out_cols = columns ? 1 : cols;
    const int64_t each = columns ? 1 : rows / groups, n = out_rows * out_cols;
    float *a = random_floats(3, rows * cols), *got = zeros(n, 4);
    round_to(type, a, rows * cols);
    ops o = ops_begin(be);
    const tensor x = ops_make(&o, type, rows, cols, cols + pad);
    const tensor out = ops_make(&o, DTYPE_F32, out_rows, out_cols, out_cols + pad);
    ops_put_floats(&o, x, a);
    CHECK_OK(be->reduce(be, out, x, largest));
    ops_get(&o, got, out);
    for (int64_t i = 0; i < n; i++) {
        double want = largest ? (double)-INFINITY : 0, all = 0;
        const int64_t terms = columns ? cols : each;
        for (int64_t j = 0; j < terms; j++) {
            const double term =
                columns ? a[i * cols + j] : a[(i / cols * each + j) * cols + i % cols];
            want = largest ? fmax(want, term) : want + term;
            all += fabs(term);
        }
        const double tolerance = largest ? 0 : (double)terms * EPS * all;
        if (!(fabs((double)got[i] - want) <= tolerance))
            fail_msg("[%lld,%lld] in %lld groups: %lld is %g, want %g within %g", (long long)rows,
                     (long long)cols, (long long)groups, (long long)i, (double)got[i], want,
                     tolerance);
    }
    ops_end(&o);
    free(a);
    free(got);
}

static void both_sides(backend *be)
{
    static const int64_t shapes[][3] = {{1, 1, 0},   {3, 31, 0},  {2, 32, 0},   {5, 33, 0},
                                        {1, 255, 0}, {2, 256, 0}, {3, 257, 0},  {2, 1000, 0},
                                        {1, 5, 1},   {6, 31, 1},  {6, 31, 2},   {6, 64, 6},
                                        {64, 3, 4},  {9, 257, 3}, {130, 7, 13}, {4, 600, 2}};
    for (int i = 0; i < 16; i++) {
        for (int largest = 0; largest < 2; largest++) {
            const int64_t *s = shapes[i];
            check(be, DTYPE_F32, s[0], s[1], s[2], 0, largest);
            check(be, DTYPE_F32, s[0], s[1], s[2], 3, largest);
            if (be->on_device) check(be, DTYPE_BF16, s[0], s[1], s[2], 5, largest);
        }
    }
}

/* A NaN spoils a sum and is passed over by a maximum; the maximum of negative numbers is one of them. */
static void no_numbers(backend *be)
{
    static const float x[] = {-3, NAN, -1, -5, -INFINITY, -7};
    float got[2];
    ops o = ops_begin(be);
    const tensor a = ops_floats(&o, x, 2, 3), out = ops_output(&o, 2, 1);
    CHECK_OK(be->reduce(be, out, a, true));
    ops_get(&o, got, out);
    assert_true(got[0] == -1.0f && got[1] == -5.0f);
    CHECK_OK(be->reduce(be, out, a, false));
    ops_get(&o, got, out);
    assert_true(isnan(got[0]) && got[1] == -INFINITY);
    ops_end(&o);
}

typedef struct call {
    tensor out, a;
} call;

static void refused(backend *be)
{
    ops o = ops_begin(be);
    const call good = {ops_output(&o, 4, 1), ops_output(&o, 4, 6)};
    const tensor by_column = ops_output(&o, 2, 6);
    call c = good;
#define REFUSED(change, text)                                               \
    do {                                                                    \
        c = good;                                                           \
        change;                                                             \
        CHECK_FAILS(be->reduce(be, c.out, c.a, false), CUDPO_EINVAL, text); \
    } while (0)
    REFUSED(c.out.data = NULL, "is_matrix(out)");
    REFUSED(c.out.type = DTYPE_BF16, "is_matrix(out)");
    REFUSED(c.out.type = DTYPE_I32, "is_matrix(out)");
    REFUSED(c.a.data = NULL, "is_matrix(a)");
    REFUSED(c.a.type = DTYPE_I32, "is_matrix(a)");
    REFUSED(c.out = tensor_cols(good.a, 0, 1), "tensor_disjoint(out, a)");
    REFUSED(c.out.rows = 3, "columns");
    REFUSED(c.out = tensor_rows(by_column, 0, 0), "columns");
    REFUSED(c.a.rows = 3, "columns");
    REFUSED((c.out = by_column, c.a.rows = 3), "columns");
    REFUSED((c.out = by_column, c.a.rows = 1), "columns");
    REFUSED((c.out = by_column, c.a.rows = 0), "columns");
    REFUSED((c.out = tensor_cols(by_column, 0, 5)), "columns");
    ops_check_untouched(&o, good.out);
    ops_check_untouched(&o, by_column);
    c = good;
    c.out.rows = c.a.rows = 0;
    CHECK_OK(be->reduce(be, c.out, c.a, false));
    ops_check_untouched(&o, good.out);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void too_many_for_a_grid(backend *be)
{
    const int64_t rows = (int64_t)INT32_MAX + 1;
    ops o = ops_begin(be);
    tensor out = ops_output(&o, 1, 1);
    out.rows = rows;
    tensor a = tensor_matrix((void *)((uintptr_t)1 << 50), DTYPE_F32, rows, 2);
    CHECK_FAILS(be->reduce(be, out, a, false), CUDPO_EINVAL, "fits_grid");
    out.cols = out.stride = 2;
    out.rows = rows * 128;
    a.rows = out.rows;
    CHECK_FAILS(be->reduce(be, out, a, false), CUDPO_EINVAL, "fits_grid");
    ops_end(&o);
}
#endif

static void run_large(ops *o, float *to)
{
    enum { R = 300, C = 301 };
    float *a = random_floats(1, R * C);
    const tensor x = ops_floats(o, a, R, C), rows = ops_output(o, R, 1), cols = ops_output(o, 3, C);
    CHECK_OK(o->be->reduce(o->be, rows, x, false));
    CHECK_OK(o->be->reduce(o->be, cols, x, false));
    ops_get(o, to, rows);
    ops_get(o, to + R, cols);
    free(a);
}

static void the_same_bits_again(backend *be)
{
    check_repeatable(be, run_large, 300 + 3 * 301);
}

static const op_case cases[] = {
    {"both_sides", both_sides},
    {"no_numbers", no_numbers},
    {"refused", refused},
#ifdef TEST_CUDA
    {"too_many_for_a_grid", too_many_for_a_grid},
#endif
    {"the_same_bits_again", the_same_bits_again},
};
OPS_MAIN(cases)
