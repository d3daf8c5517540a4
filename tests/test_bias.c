/* test_bias.c - the bias of a linear layer, and the sum of two matrices. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"
#ifdef TEST_CUDA
#include "backend/cuda/ops.h"
#endif

static void by_hand(backend *be)
{
    static const float x[] = {1, 2, 3, 4}, bias[] = {10, 20};
    static const double want[] = {11, 22, 13, 24}, want_bias[] = {10 + 24, 20 + 46};
    float got[4];
    ops o = ops_begin(be);
    const tensor tx = ops_floats(&o, x, 2, 2), tb = ops_floats(&o, bias, 1, 2);
    CHECK_OK(be->bias_add(be, tx, tb));
    ops_get(&o, got, tx);
    check_close("x", got, want, 4, 0);
    CHECK_OK(be->bias_backward(be, tb, tx));
    ops_get(&o, got, tb);
    check_close("dbias", got, want_bias, 2, 0);
    ops_end(&o);
}

/* Types of the activations and of dbias, and how matrices lie: rows `pad` elements apart, the first one `shift` elements
 * behind a vector's boundary. */
typedef struct layout {
    bool bf16, dbias_bf16;
    int pad, shift;
} layout;

static const layout layouts[] = {{false, false, 0, 0}, {false, false, 4, 0}, {false, false, 3, 0},
                                 {false, false, 0, 1}, {true, true, 0, 0},   {true, false, 8, 0},
                                 {true, true, 4, 0},   {false, true, 0, 0},  {true, false, 0, 1}};

static int layouts_of(backend *be)
{
    return be->on_device ? 9 : 4;
}

static tensor make(ops *o, layout l, const float *host, int64_t T, int64_t N)
{
    const tensor t = ops_make_at(o, bf16_or_f32(l.bf16), T, N, N + l.pad, l.shift);
    ops_put_floats(o, t, host);
    return t;
}

/* One rounding to float, and the one to the type of floats that are not exact in it: the sum of two, in that order, is
 * what the op must give to the bit. */
static void check_sums(backend *be, int64_t T, int64_t N, layout l)
{
    const dtype type = bf16_or_f32(l.bf16);
    float *x = random_floats(1, T * N), *bias = random_floats(2, N), *y = random_floats(3, T * N);
    float *want = zeros(T * N, 4), *got = zeros(T * N, 4);
    round_to(type, x, T * N);
    round_to(type, bias, N);
    round_to(type, y, T * N);
    ops o = ops_begin(be);
    const tensor tx = make(&o, l, x, T, N), tb = ops_floats_as(&o, type, bias, 1, N);
    const tensor ty = make(&o, l, y, T, N);
    for (int64_t i = 0; i < T * N; i++) {
        want[i] = x[i] + bias[i % N];
    }
    round_to(type, want, T * N);
    CHECK_OK(be->bias_add(be, tx, tb));
    ops_get_floats(&o, got, tx);
    assert_memory_equal(got, want, (size_t)(T * N) * 4);
    for (int64_t i = 0; i < T * N; i++) {
        want[i] = want[i] + y[i];
    }
    round_to(type, want, T * N);
    CHECK_OK(be->add(be, tx, ty));
    ops_get_floats(&o, got, tx);
    assert_memory_equal(got, want, (size_t)(T * N) * 4);
    ops_end(&o);
    free(x);
    free(bias);
    free(y);
    free(want);
    free(got);
}

/* Small integers, whose sums are exact: dbias is rounded once, from the exact sum. */
static void check_backward(backend *be, int64_t T, int64_t N, layout l)
{
    const dtype type = bf16_or_f32(l.dbias_bf16);
    float *dx = zeros(T * N, 4), *dbias = zeros(N, 4), *want = zeros(N, 4), *got = zeros(N, 4);
    for (int64_t i = 0; i < N; i++) {
        dbias[i] = want[i] = (float)(i % 100);
    }
    for (int64_t i = 0; i < T * N; i++) {
        dx[i] = (float)(int)(rng_bits(1, 0, (uint64_t)i) % 9) - 3;
        want[i % N] += dx[i];
    }
    round_to(type, want, N);
    ops o = ops_begin(be);
    const tensor tb = ops_floats_as(&o, type, dbias, 1, N);
    CHECK_OK(be->bias_backward(be, tb, make(&o, l, dx, T, N)));
    ops_get_floats(&o, got, tb);
    assert_memory_equal(got, want, (size_t)N * 4);
    ops_end(&o);
    free(dx);
    free(dbias);
    free(want);
    free(got);
}

/* Columns around the pieces of a warp, in one, two and more blocks; rows around those that a thread has in flight. */
static void tails(backend *be)
{
    static const int64_t tail[] = {1, 8, 31, 32, 33, 127, 128, 129, 255, 256, 257, 264, 1000};
    for (int k = 0; k < layouts_of(be); k++) {
        for (int i = k % 2; i < 13; i += 2) {
            check_sums(be, 3, tail[i], layouts[k]);
            check_backward(be, tail[12 - i], tail[i], layouts[k]);
        }
    }
}

/* More rows than the blocks of the kernel take at once, with one, two and five blocks beside each other, and so many
 * columns that one block has all rows. */
static void rows_beyond_the_grid(backend *be)
{
    if (!be->on_device) return;
    check_backward(be, 8 * 256 * 4 + 11, 8, layouts[0]);
    check_backward(be, 8 * 256 * 4 + 1, 5, layouts[3]);
    check_backward(be, 8 * 264 + 9, 32, layouts[3]);
    check_backward(be, 8 * 105 * 2 + 3, 32 * 4 + 4, layouts[8]);
    check_backward(be, 19, 529 * 32, layouts[3]);
    check_backward(be, 2048, 520, layouts[4]);
}

/* With plain numbers: each sum passes through at most 4 rounds of 4 rows, 8 warps, 9 blocks, 32 warps and dbias; on the CPU
 * in double but for dbias. */
static void sums_of_any_numbers(backend *be)
{
    enum { T = 100, N = 40 };
    float *dx = random_floats(1, T * N), dbias[N] = {0}, got[N];
    ops o = ops_begin(be);
    const tensor tb = ops_floats(&o, dbias, 1, N);
    CHECK_OK(be->bias_backward(be, tb, ops_floats(&o, dx, T, N)));
    ops_get(&o, got, tb);
    for (int i = 0; i < N; i++) {
        double sum = 0, size = 0;
        for (int t = 0; t < T; t++) {
            sum += (double)dx[t * N + i];
            size += fabs((double)dx[t * N + i]);
        }
        CHECK_NEAR(got[i], sum, (16 + 8 + 9 + 32 + 1) * EPS * size);
    }
    ops_end(&o);
    free(dx);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 3, 4), b = ops_output(&o, 1, 4), c = ops_output(&o, 1, 3);
    CHECK_FAILS(be->bias_add(be, x, c), CUDPO_EINVAL, "bias");
    CHECK_FAILS(be->bias_add(be, x, x), CUDPO_EINVAL, "bias");
    CHECK_FAILS(be->bias_backward(be, c, x), CUDPO_EINVAL, "dbias");
    CHECK_FAILS(be->add(be, x, b), CUDPO_EINVAL, "y, x");
    CHECK_FAILS(be->add(be, (tensor){0}, b), CUDPO_EINVAL, "is_matrix");
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, c);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void broken_contracts_of_kernels(backend *be)
{
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 4, 4), b = ops_output(&o, 1, 4), a = tensor_rows(x, 0, 3);
    const tensor half = ops_output_as(&o, DTYPE_BF16, 3, 4), in_x = tensor_rows(x, 2, 1);
    const size_t bytes = cuda_bias_backward_scratch(3, 4);
    const scratch small = {half.data, bytes - 1}, absent = {NULL, bytes};
    CHECK_FAILS(be->bias_add(be, half, b), CUDPO_EINVAL, "bias.type");
    CHECK_FAILS(be->bias_add(be, a, in_x), CUDPO_EINVAL, "tensor_disjoint(x, bias)");
    CHECK_FAILS(be->bias_backward(be, in_x, a), CUDPO_EINVAL, "tensor_disjoint(dbias, dx)");
    CHECK_FAILS(be->add(be, a, half), CUDPO_EINVAL, "is_like(y");
    CHECK_FAILS(be->add(be, a, a), CUDPO_EINVAL, "tensor_disjoint(x, y)");
    CHECK_FAILS(be->add(be, a, tensor_rows(x, 1, 3)), CUDPO_EINVAL, "tensor_disjoint(x, y)");
    CHECK_FAILS(cuda_bias_backward(b, a, small, NULL), CUDPO_EINVAL, "scratch");
    CHECK_FAILS(cuda_bias_backward(b, a, absent, NULL), CUDPO_EINVAL, "scratch");
    assert_int_equal(bytes, 4 * 4); /* eight rows and fewer are one block's */
    const tensor none = tensor_rows(x, 0, 0);
    CHECK_OK(be->bias_add(be, none, b));
    CHECK_OK(be->bias_backward(be, b, none));
    CHECK_OK(be->add(be, none, none));
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, b);
    ops_check_untouched(&o, half);
    ops_end(&o);
}
#endif

enum { LT = 500, LN = 200 };

static void run_large(ops *o, float *result)
{
    float *dx = random_floats(1, LT * LN), *dbias = random_floats(2, LN);
    const tensor b = ops_floats(o, dbias, 1, LN);
    CHECK_OK(o->be->bias_backward(o->be, b, ops_floats(o, dx, LT, LN)));
    ops_get(o, result, b);
    free(dx);
    free(dbias);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, LN);
}

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"tails", tails},
    {"rows_beyond_the_grid", rows_beyond_the_grid},
    {"sums_of_any_numbers", sums_of_any_numbers},
    {"broken_contracts", broken_contracts},
#ifdef TEST_CUDA
    {"broken_contracts_of_kernels", broken_contracts_of_kernels},
#endif
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
