/* test_gemm.c - matrix products, in all four orientations, through views, with tails. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"
#ifdef TEST_SIMT
#include "scratch.h"
#include "simt/products.h"
#endif

/* [1 2 3; 4 5 6] [1 0; 0 1; 1 1] = [4 5; 10 11] */
static void two_by_two_by_hand(backend *be)
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, 0, 1, 1, 1};
    static const double want[] = {4, 5, 10, 11};
    float got[4];
    ops o = ops_begin(be);
    const tensor c = ops_output(&o, 2, 2);
    CHECK_OK(be->gemm(be, c, ops_floats(&o, a, 2, 3), false, ops_floats(&o, b, 3, 2), false, 0));
    ops_get(&o, got, c);
    check_close("c", got, want, 4, 0);
    ops_end(&o);
}

static double at(const float *x, bool transposed, int64_t r, int64_t c, int64_t rows, int64_t cols)
{
    return (double)(transposed ? x[c * rows + r] : x[r * cols + c]);
}

/* Dense host floats as a view of that type and stride; NULL: an output. */
static tensor strided_as(ops *o, dtype type, const float *host, int64_t rows, int64_t cols,
                         int64_t stride)
{
    const tensor t = ops_make(o, type, rows, cols, stride);
    if (host != NULL) ops_put_floats(o, t, host);
    return t;
}

/* All orientations of one shape, as strided views, against sums in double.  A sum of K products of normal numbers
 * rounds to within about sqrt(K) * EPS of its terms' size; 16 of them bound all that are compared here.  In bf16 the
 * products are exact, and the result is rounded once more. */
static void check_shape_as(backend *be, dtype type, dtype c_type, int64_t M, int64_t N, int64_t K)
{
    float *a = random_floats(1, M * K), *b = random_floats(2, K * N), *c = random_floats(3, M * N);
    float *got = zeros(M * N, sizeof *got);
    round_to(type, a, M * K);
    round_to(type, b, K * N);
    round_to(c_type, c, M * N);
    const double once = c_type == DTYPE_BF16 ? EPS_BF16 : 0;
    for (int flags = 0; flags < 8; flags++) {
        const bool ta = flags & 1, tb = flags & 2;
        const float beta = flags & 4 ? 1.0f : 0.0f;
        ops o = ops_begin(be);
        const tensor ca =
            ta ? strided_as(&o, type, a, K, M, M + 3) : strided_as(&o, type, a, M, K, K + 5);
        const tensor cb =
            tb ? strided_as(&o, type, b, N, K, K + 1) : strided_as(&o, type, b, K, N, N + 7);
        const tensor cc = strided_as(&o, c_type, beta != 0.0f ? c : NULL, M, N, N + 2);
        CHECK_OK(be->gemm(be, cc, ca, ta, cb, tb, beta));
        ops_get_floats(&o, got, cc);
        for (int64_t m = 0; m < M; m++) {
            for (int64_t n = 0; n < N; n++) {
                double want = beta != 0.0f ? (double)c[m * N + n] : 0.0, size = fabs(want);
                for (int64_t k = 0; k < K; k++) {
                    const double term = at(a, ta, m, k, M, K) * at(b, tb, k, n, K, N);
                    want += term;
                    size += fabs(term);
                }
                /* Each of K sums rounds by EPS of itself at most; of many, as the root of their number. */
                const double most = (double)(K + 1) * EPS * size;
                const double usual = (16 * sqrt((double)K) * EPS + EPS) * fmax(1.0, fabs(want));
                const double sums = fmin(most, usual);
                CHECK_NEAR((double)got[m * N + n], want, sums + once * (fabs(want) + sums));
            }
        }
        ops_end(&o);
    }
    free(a);
    free(b);
    free(c);
    free(got);
}

static void check_shape(backend *be, int64_t M, int64_t N, int64_t K)
{
    check_shape_as(be, DTYPE_F32, DTYPE_F32, M, N, K);
    if (!be->on_device) return; /* the CPU computes in float32 */
    check_shape_as(be, DTYPE_BF16, DTYPE_BF16, M, N, K);
    check_shape_as(be, DTYPE_BF16, DTYPE_F32, M, N, K);
}

static void every_orientation_and_tail(backend *be)
{
    static const int64_t tail[] = {1, 31, 32, 33};
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            check_shape(be, tail[i], tail[j], tail[(i + j) % 4]);
        }
    }
    check_shape(be, 255, 257, 16);
    check_shape(be, 1, 600, 40);
    check_shape(be, 513, 1, 9);
}

/* Shapes that are cut into every pattern of tiles: one, few, many panels of rows, columns, and both. */
static void many_tiles(backend *be)
{
    check_shape(be, 520, 523, 5);
    check_shape(be, 1030, 70, 3);
    check_shape(be, 3700, 33, 2);
    check_shape(be, 6200, 17, 3);
    check_shape(be, 9, 2100, 3);
    check_shape(be, 30, 8200, 2);
    check_shape(be, 1600, 8193, 1);
}

static void an_empty_sum_is_zero(backend *be)
{
    float got[6];
    static const double want[6] = {0};
    ops o = ops_begin(be);
    const tensor c = ops_output(&o, 2, 3);
    const tensor a = ops_output(&o, 0, 2), b = ops_output(&o, 0, 3);
    CHECK_OK(be->gemm(be, c, a, true, b, false, 0.0f));
    ops_get(&o, got, c);
    check_close("c", got, want, 6, 0);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor a = ops_output(&o, 3, 4), b = ops_output(&o, 4, 5), c = ops_output(&o, 3, 5);
    const tensor ints = ops_make(&o, DTYPE_I32, 3, 4, 4);
    CHECK_FAILS(be->gemm(be, c, a, true, b, false, 0.0f), CUDPO_EINVAL, "K");
    CHECK_FAILS(be->gemm(be, c, a, false, b, true, 0.0f), CUDPO_EINVAL, "K");
    CHECK_FAILS(be->gemm(be, tensor_rows(c, 0, 2), a, false, b, false, 0.0f), CUDPO_EINVAL, "M");
    CHECK_FAILS(be->gemm(be, tensor_cols(c, 0, 4), a, false, b, false, 0.0f), CUDPO_EINVAL, "N");
    CHECK_FAILS(be->gemm(be, c, a, false, b, false, 0.5f), CUDPO_EINVAL, "beta");
    CHECK_FAILS(be->gemm(be, c, a, false, b, false, NAN), CUDPO_EINVAL, "beta");
    CHECK_FAILS(be->gemm(be, c, ints, false, b, false, 0.0f), CUDPO_EINVAL, "is_matrix");
    CHECK_FAILS(be->gemm(be, (tensor){0}, a, false, b, false, 0.0f), CUDPO_EINVAL, "is_matrix");
    const tensor half = ops_output_as(&o, DTYPE_BF16, 4, 5);
    CHECK_FAILS(be->gemm(be, c, a, false, half, false, 0.0f), CUDPO_EINVAL,
                be->on_device ? "b.type" : "is_matrix");
    ops_check_untouched(&o, c);
    ops_end(&o);
}

enum { RM = 1100, RN = 900, RK = 130 };

static void run_large(ops *o, float *result)
{
    float *a = random_floats(5, RM * RK), *b = random_floats(6, RN * RK);
    const tensor c = ops_output(o, RM, RN);
    CHECK_OK(o->be->gemm(o->be, c, ops_floats(o, a, RM, RK), false, ops_floats(o, b, RN, RK), true,
                         0.0f));
    ops_get(o, result, c);
    free(a);
    free(b);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, RM * RN);
}

#ifdef TEST_SIMT /* which algorithm is taken: the stand-in for cuBLASLt has four, and any of them can be the fastest */

static backend *open_with(const char *cache, const char *run)
{
    backend *be = NULL;
    const backend_options options = {.cache = cache};
    if (cache != NULL) CHECK_OK(file_make_folder(cache));
    CHECK_OK(backend_cuda_open(&be, &options));
    if (run != NULL) CHECK_OK(be->recall(be, run));
    return be;
}

static void set_fastest(const char *number)
{
    assert_int_equal(setenv("SIMT_FASTEST", number, 1), 0);
}

/* [1 2 3; 4 5 6] [1 0; 0 1; 1 1] + beta c, exact by any algorithm; out of memory for anything but its operands if wanted. */
static cudpo_status multiply(backend *be, float beta, bool no_memory)
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, 0, 1, 1, 1}, c[] = {1, 2, 3, 4};
    static const double want[2][4] = {{4, 5, 10, 11}, {5, 7, 13, 15}};
    float got[4];
    ops o = ops_begin(be);
    const tensor tc = ops_floats(&o, c, 2, 2), ta = ops_floats(&o, a, 2, 3);
    const tensor tb = ops_floats(&o, b, 3, 2);
    simt_refuse_memory(no_memory);
    const cudpo_status status = be->gemm(be, tc, ta, false, tb, false, beta);
    simt_refuse_memory(false);
    ops_get(&o, got, tc);
    if (status == CUDPO_OK) check_close("c", got, want[beta != 0.0f], 4, 0);
    ops_end(&o);
    return status;
}

/* Number of the algorithm that is taken. */
static int taken(backend *be, float beta)
{
    CHECK_OK(multiply(be, beta, false));
    return simt_last_product();
}

static int taken_with(const char *cache, const char *run, float beta)
{
    backend *be = open_with(cache, run);
    const int number = taken(be, beta);
    be->close(be);
    return number;
}

static void end(void)
{
    assert_int_equal(unsetenv("SIMT_FASTEST"), 0);
    CHECK_OK(file_remove_folder(scratch_folder()));
}

static void the_fastest_again(backend *unused)
{
    (void)unused;
    set_fastest("3");
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 0.0f), 3);
    set_fastest("2");
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 0.0f), 3);
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 1.0f), 2);
    assert_int_equal(taken_with(scratch_path("other"), NULL, 0.0f), 2);
    end();
}

static void none_that_refuses(backend *unused)
{
    (void)unused;
    backend *be = open_with(NULL, NULL);
    set_fastest("1");
    for (int i = 0; i < 2; i++) { /* all refuse in one way or the other: nothing of it is kept */
        simt_refuse_products(i == 0 ? 0x1e : 0, i == 0 ? 0 : 0x1e);
        CHECK_FAILS(multiply(be, 0.0f, false), CUDPO_EDEVICE, "no algorithm for a product of 2 x");
    }
    simt_refuse_products(1u << 1, 1u << 2);
    assert_int_equal(taken(be, 0.0f), 3);
    assert_int_equal(taken(be, 1.0f), 3);
    simt_refuse_products(0, 0);
    assert_int_equal(taken(be, 0.0f), 3);
    be->close(be);
    end();
}

/* Where there is no memory to time a sum into, the first is taken, and stays that of the run; other runs time it. */
static void the_first_without_memory(backend *unused)
{
    (void)unused;
    char run[640];
    snprintf(run, sizeof run, "%s", scratch_path("run.txt"));
    backend *be = open_with(scratch_path("cache"), NULL);
    CHECK_OK(be->keep(be, run));
    set_fastest("4");
    CHECK_OK(multiply(be, 1.0f, true));
    assert_int_equal(simt_last_product(), 1);
    CHECK_OK(multiply(be, 0.0f, true)); /* this one needs none */
    assert_int_equal(simt_last_product(), 4);
    assert_int_equal(taken(be, 1.0f), 1);
    be->close(be);
    set_fastest("3");
    assert_int_equal(taken_with(scratch_path("cache"), run, 1.0f), 1);
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 1.0f), 3);
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 0.0f), 4);
    end();
}

/* Replace the first `from` in a file by `to`, of the same length. */
static void change(const char *path, const char *from, const char *to)
{
    char *text = NULL;
    size_t n;
    CHECK_OK(file_read(&text, &n, path, 1 << 20));
    char *at = strstr(text, from);
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    CHECK_OK(file_write(path, text, n));
    free(text);
}

/* An algorithm that another process has kept in the meantime is taken, but not where it is none for this product; nor is one
 * that was known from the start. */
static void of_other_processes(backend *unused)
{
    (void)unused;
    backend *be = open_with(scratch_path("cache"), NULL);
    set_fastest("2");
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 0.0f), 2);
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 1.0f), 2);
    set_fastest("3");
    assert_int_equal(taken(be, 0.0f), 2);
    be->close(be);
    be = open_with(scratch_path("other"), NULL);
    assert_int_equal(taken_with(scratch_path("other"), NULL, 0.0f), 3);
    change(scratch_path("other/gemm-emulated-GPU-0.txt"), " 03", " 09");
    assert_int_equal(taken(be, 0.0f), 1);
    assert_int_equal(taken_with(scratch_path("other"), NULL, 0.0f), 1);
    be->close(be);
    end();
}

/* What a run took is in its file from keep() on, and comes before all else. */
static void of_the_run(backend *unused)
{
    (void)unused;
    char run[640];
    snprintf(run, sizeof run, "%s", scratch_path("run.txt"));
    set_fastest("3");
    assert_int_equal(taken_with(scratch_path("cache"), run, 0.0f), 3);
    assert_false(file_is_regular(run));
    backend *be = open_with(scratch_path("cache"), run);
    set_fastest("2");
    assert_int_equal(taken(be, 0.0f), 3); /* of the cache */
    CHECK_OK(be->keep(be, run));
    assert_int_equal(taken(be, 1.0f), 2);
    be->close(be);
    set_fastest("4");
    assert_int_equal(taken_with(NULL, run, 0.0f), 3);
    assert_int_equal(taken_with(scratch_path("fresh"), run, 1.0f), 2);
    assert_int_equal(taken_with(scratch_path("fresh"), NULL, 1.0f), 4); /* not of the run */
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 1.0f), 2);
    change(run, "emulated", "EMULATED"); /* another device */
    assert_int_equal(taken_with(NULL, run, 0.0f), 4);
    end();
}

/* $CUDPO_GEMM=first depends on nothing, and leaves nothing. */
static void the_first_where_asked(backend *unused)
{
    (void)unused;
    char run[640];
    snprintf(run, sizeof run, "%s", scratch_path("run.txt"));
    set_fastest("3");
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 0.0f), 3);
    assert_int_equal(setenv("CUDPO_GEMM", "first", 1), 0);
    assert_int_equal(taken_with(scratch_path("cache"), NULL, 0.0f), 1);
    backend *be = open_with(scratch_path("empty"), run);
    assert_int_equal(taken(be, 1.0f), 1);
    CHECK_OK(be->keep(be, run));
    be->close(be);
    assert_true(file_folder_is_empty(scratch_path("empty")));
    assert_false(file_is_regular(run));
    assert_int_equal(setenv("CUDPO_GEMM", "last", 1), 0); /* warns */
    assert_int_equal(taken_with(NULL, NULL, 0.0f), 3);
    assert_int_equal(unsetenv("CUDPO_GEMM"), 0);
    end();
}
#endif

static const op_case cases[] = {
    {"two_by_two_by_hand", two_by_two_by_hand},
    {"every_orientation_and_tail", every_orientation_and_tail},
    {"many_tiles", many_tiles},
    {"an_empty_sum_is_zero", an_empty_sum_is_zero},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
#ifdef TEST_SIMT
    {"the_fastest_again", the_fastest_again},
    {"none_that_refuses", none_that_refuses},
    {"the_first_without_memory", the_first_without_memory},
    {"of_other_processes", of_other_processes},
    {"of_the_run", of_the_run},
    {"the_first_where_asked", the_first_where_asked},
#endif
};
OPS_MAIN(cases)
