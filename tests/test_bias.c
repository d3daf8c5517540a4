/* test_bias.c - the bias of a linear layer, and the sum of two matrices. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"

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
 * behind a vector's boundary; x as the first place says, and the other operand as the second. */
typedef struct place {
    int pad, shift;
} place;

typedef struct layout {
    bool bf16, dbias_bf16;
    place x, other;
} layout;

static const layout layouts[] = {
    {false, false, {0, 0}, {0, 0}}, {false, false, {4, 0}, {4, 0}}, {false, false, {3, 0}, {3, 0}},
    {false, false, {0, 1}, {0, 1}}, {false, false, {0, 1}, {0, 0}}, {false, false, {0, 0}, {0, 1}},
    {false, false, {4, 0}, {0, 0}}, {false, false, {0, 0}, {4, 0}}, {false, false, {0, 4}, {1, 0}},
    {true, true, {0, 0}, {0, 0}},   {true, false, {8, 0}, {8, 0}},  {true, true, {4, 0}, {4, 0}},
    {false, true, {0, 0}, {0, 0}},  {true, false, {0, 1}, {0, 1}},  {true, true, {0, 4}, {0, 0}},
    {true, true, {0, 0}, {0, 4}},   {true, false, {8, 8}, {0, 0}},  {true, false, {0, 0}, {1, 0}},
};

static int layouts_of(backend *be)
{
    return be->on_device ? 18 : 9; /* the CPU has float alone */
}

static tensor make(ops *o, bool bf16, place at, const float *host, int64_t T, int64_t N)
{
    const tensor t = ops_make_at(o, bf16_or_f32(bf16), T, N, N + at.pad, at.shift);
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
    const tensor tx = make(&o, l.bf16, l.x, x, T, N), ty = make(&o, l.bf16, l.other, y, T, N);
    const tensor tb = make(&o, l.bf16, l.other, bias, 1, N);
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
    const tensor tb = make(&o, l.dbias_bf16, l.other, dbias, 1, N);
    CHECK_OK(be->bias_backward(be, tb, make(&o, l.bf16, l.x, dx, T, N)));
    ops_get_floats(&o, got, tb);
    assert_memory_equal(got, want, (size_t)N * 4);
    ops_end(&o);
    free(dx);
    free(dbias);
    free(want);
    free(got);
}

/* Columns around the pieces of a warp, in one, two and more blocks; rows around those that a thread has in flight.  Also
 * eight rows, which are whole vectors in all where they are dense. */
static void tails(backend *be)
{
    static const int64_t tail[] = {1, 8, 31, 32, 33, 127, 128, 129, 255, 256, 257, 264, 1000};
    for (int k = 0; k < layouts_of(be); k++) {
        for (int i = k % 2; i < 13; i += 2) {
            check_sums(be, 3, tail[i], layouts[k]);
            check_sums(be, 8, tail[i], layouts[k]);
            check_backward(be, tail[12 - i], tail[i], layouts[k]);
        }
    }
    check_sums(be, 2, 151936, layouts[0]);
    check_sums(be, 1, 151936, layouts[layouts_of(be) / 2]);
    check_sums(be, 151936, 1, layouts[layouts_of(be) / 2]);
}

#ifdef TEST_CUDA
/* More rows than the blocks of the kernel take at once, with one, two and five blocks beside each other, and so many
 * columns that one block has all rows. */
static void rows_beyond_the_grid(backend *be)
{
    const layout floats = layouts[0], off = layouts[3], half = layouts[9], half_off = layouts[13];
    check_backward(be, 8 * 256 * 4 + 11, 8, floats);
    check_backward(be, 8 * 256 * 4 + 1, 5, off);
    check_backward(be, 8 * 264 + 9, 32, off);
    check_backward(be, 8 * 105 * 2 + 3, 32 * 4 + 4, half_off);
    check_backward(be, 19, 529 * 32, off);
    check_backward(be, 2048, 520, half);
}
#endif

/* With plain numbers.  A row of the kernel passes through additions of 4 rows of a thread, 8 warps, 13 blocks, which 32 warps
 * share, and dbias, each of which rounds a part of the sum of sizes; on the CPU sums are double but for dbias. */
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
        CHECK_NEAR(got[i], sum, (4 + 8 + 13 + 32 + 1) * EPS * size);
    }
    ops_end(&o);
    free(dx);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    tensor x = ops_output(&o, 3, 4), bias = ops_output(&o, 1, 4), y = ops_output(&o, 3, 4);
    const int float_alone = be->on_device ? 0 : ARG_TYPE;
    CHECK_BROKEN(be, x, float_alone, be->bias_add(be, x, bias), "is_matrix(x)");
    CHECK_BROKEN(be, bias, ARG_SHAPE | ARG_TYPE, be->bias_add(be, x, bias),
                 be->on_device ? "is_typed(bias, x.type" : "is_f32(bias, 1");
    CHECK_OVERLAP(x, bias, be->bias_add(be, x, bias), "tensor_disjoint(x, bias)");
    CHECK_BROKEN(be, x, float_alone, be->bias_backward(be, bias, x), "is_matrix(dx)");
    CHECK_BROKEN(be, bias, ARG_SHAPE | float_alone, be->bias_backward(be, bias, x), "(dbias, 1, ");
    CHECK_OVERLAP(x, bias, be->bias_backward(be, bias, x), "tensor_disjoint(dbias, dx)");
    CHECK_BROKEN(be, x, float_alone, be->add(be, x, y), "is_matrix(x)");
    CHECK_BROKEN(be, y, ARG_SHAPE | ARG_TYPE, be->add(be, x, y),
                 be->on_device ? "is_like(y, x)" : "is_f32(y, x");
    CHECK_OVERLAP(x, y, be->add(be, x, y), "tensor_disjoint(x, y)");
    CHECK_FAILS(be->bias_add(be, x, tensor_rows(x, 2, 1)), CUDPO_EINVAL,
                "tensor_disjoint(x, bias)");
    CHECK_FAILS(be->add(be, tensor_rows(x, 0, 2), tensor_rows(x, 1, 2)), CUDPO_EINVAL, "(x, y)");
    const tensor none = tensor_rows(x, 1, 0);
    CHECK_OK(be->bias_add(be, none, bias));
    CHECK_OK(be->bias_backward(be, bias, none));
    CHECK_OK(be->add(be, none, none));
    CHECK_OK(be->add(be, none, tensor_rows(x, 0, 0)));
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, y);
    ops_check_untouched(&o, bias);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void broken_contracts_of_the_launcher(backend *be)
{
    const size_t bytes = cuda_bias_backward_scratch(9, 4);
    ops o = ops_begin(be);
    tensor dx = ops_output(&o, 9, 4), dbias = ops_output(&o, 1, 4);
    scratch s = ops_scratch(&o, bytes);
    assert_int_equal(bytes, 2 * 4 * 4); /* eight rows are one block's */
#define CALL cuda_bias_backward(dbias, dx, s, stream_of(be))
    CHECK_SCRATCH(s, bytes, CALL);
    CHECK_OVERLAP(dbias, s, CALL, "is_apart(s, bytes, dbias)");
    CHECK_OVERLAP(dx, s, CALL, "is_apart(s, bytes, dx)");
    CHECK_CHANGED(void *, s.data, (char *)dx.data + 9 * 16 - 16, CALL, "is_apart(s, bytes, dx)");
#undef CALL
    ops_check_untouched(&o, dx);
    ops_check_untouched(&o, dbias);
    ops_end(&o);
}

/* A grid has 2^31 - 1 blocks at most, of 256 elements or vectors; of 32 columns for the sum over rows. */
static void more_than_a_grid(backend *be)
{
    for (int vectors = 0; vectors < 2; vectors++) {
        const int64_t n = (int64_t)INT32_MAX * 256 * (vectors ? 4 : 1) + 4;
        const tensor x = imagined(1, DTYPE_F32, 1, n), y = imagined(2, DTYPE_F32, 1, n);
        const tensor other = vectors ? y : moved(y, 4);
        CHECK_FAILS(be->add(be, x, other), CUDPO_EINVAL, "fits_grid(x.rows");
        CHECK_FAILS(be->bias_add(be, x, other), CUDPO_EINVAL, "fits_grid(x.rows");
    }
    const int64_t wide = (int64_t)INT32_MAX * 32 + 1;
    const tensor dx = imagined(1, DTYPE_F32, 2, wide), dbias = imagined(2, DTYPE_F32, 1, wide);
    CHECK_FAILS(be->bias_backward(be, dbias, dx), CUDPO_EINVAL, "is_width(dx.cols)");
}

/* No scratch for what the launcher refuses: so the refusal is its own. */
static void impossible_scratch(backend *be)
{
    static const int64_t sizes[][2] = {{-1, 4}, {0, 4},  {INT64_MIN, 4}, {INT64_MAX, 4},
                                       {4, 0},  {4, -1}, {4, INT64_MAX}, {-4, -4}};
    (void)be;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(cuda_bias_backward_scratch(sizes[i][0], sizes[i][1]), 0);
    }
    assert_int_equal(cuda_bias_backward_scratch(1, (int64_t)INT32_MAX * 32),
                     (int64_t)INT32_MAX * 128);
    assert_int_equal(cuda_bias_backward_scratch(1, (int64_t)INT32_MAX * 32 + 1), 0);
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
    {"sums_of_any_numbers", sums_of_any_numbers},
    {"broken_contracts", broken_contracts},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
#ifdef TEST_CUDA
    {"rows_beyond_the_grid", rows_beyond_the_grid},
    {"broken_contracts_of_the_launcher", broken_contracts_of_the_launcher},
    {"more_than_a_grid", more_than_a_grid},
    {"impossible_scratch", impossible_scratch},
#endif
};
OPS_MAIN(cases)
